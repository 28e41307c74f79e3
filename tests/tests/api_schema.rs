//! The API is what its own description says (B02): schemathesis makes requests of it, right and wrong, and looks at what comes back.

use std::process::Command;
use std::time::Duration;
use tests::process::{Daemon, Setup, peer, programs, wait};

const RUN_MAX: Duration = Duration::from_secs(600);

/// What must hold of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,ignored_auth,allow_header_conformance";

/// How it writes lines of JSON: a text as it is, and anything else in the form of JSON.
const HOOKS: &str = "import json, schemathesis\n\n\n@schemathesis.serializer('application/x-ndjson')\ndef ndjson(ctx, value):\n    \
                     text = value if isinstance(value, str) else json.dumps(value, default=str)\n    return text.encode(errors='replace')\n";

/// A daemon whose API wants a token, and the token.
fn start() -> (Daemon, String) {
    let setup = Setup::new().relay("127.0.0.1:1".parse().expect("an address"));
    let file = setup.folder().join("tokens");
    let mut made = Command::new(programs::ringpost());
    let output = wait::succeed(made.args(["token", "tester", "--file"]).arg(&file), wait::PATIENCE);
    let token = String::from_utf8(output.stdout).expect("text").trim().to_owned();
    let setup = setup
        .with_lines("[api]\nlisten = [\"127.0.0.1:0\"]\n[suppression]\nkeep_addresses = true\n[auth]\nwrong_per_address = \"100000/min\"")
        .with("api.tokens_file", file.to_str().expect("plain"));
    (setup.start(), token)
}

#[test]
fn answers_are_what_the_description_says() {
    let Some(mut schemathesis) = peer("schemathesis") else { return };
    let (daemon, token) = start();
    schemathesis.args(["run", "--no-color", "--seed", "1", "--max-examples", "25", "--checks", CHECKS]);
    schemathesis.args(["--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all"]);
    let hooks = daemon.setup.folder().join("hooks.py");
    std::fs::write(&hooks, HOOKS).expect("the folder is ours");
    schemathesis.env("SCHEMATHESIS_HOOKS", &hooks);
    schemathesis.arg("--header").arg(format!("Authorization: Bearer {token}"));
    schemathesis.arg(format!("http://{}/openapi.json", daemon.api[0]));
    wait::succeed(schemathesis.current_dir(daemon.setup.folder()), RUN_MAX);
    daemon.assert_healthy();
}
