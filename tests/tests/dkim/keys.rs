//! Keys as an operator makes them, and a daemon that signs with them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Output;
use tests::names::{Names, Said, TXT};
use tests::process::{Setup, programs, wait};

/// Whose mail is signed.
pub(crate) const DOMAIN: &str = "here.test";

/// `ringpost dkim keygen` for [`DOMAIN`], into a file of the setup's folder.
pub(crate) fn keygen(setup: &Setup, selector: &str, kind: &str) -> Output {
    let mut command = std::process::Command::new(programs::ringpost());
    command.args(["dkim", "keygen", "--domain", DOMAIN, "--selector", selector, "--type", kind, "--out"]);
    wait::finish(command.arg(key_file(setup, selector)), wait::PATIENCE)
}

pub(crate) fn key_file(setup: &Setup, selector: &str) -> PathBuf {
    setup.folder().join(format!("{selector}.pem"))
}

/// A table of TOML that has these selectors sign for `domain`.
pub(crate) fn signs(setup: &Setup, domain: &str, selectors: &[&str]) -> String {
    let key = |selector: &&str| {
        format!("{{ selector = {selector:?}, key = {:?} }}", key_file(setup, selector).display().to_string())
    };
    let keys: Vec<String> = selectors.iter().map(key).collect();
    format!("[dkim.domains.{domain:?}]\nselectors = [{}]\n", keys.join(", "))
}

/// With an RSA key `r1` and an Ed25519 key `e1` for [`DOMAIN`].
pub(crate) fn with_keys(setup: Setup) -> Setup {
    for (selector, kind) in [("r1", "rsa"), ("e1", "ed25519")] {
        let made = keygen(&setup, selector, kind);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let lines = signs(&setup, DOMAIN, &["r1", "e1"]);
    setup.with_lines(&lines)
}

/// The records of all configured keys by their names, from `ringpost dkim show`.
pub(crate) fn records(setup: &Setup) -> HashMap<String, String> {
    setup.write_config();
    let output = wait::succeed(&mut setup.command(&["dkim", "show", "--json"]), wait::PATIENCE);
    let lines = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let record = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).expect("a JSON object per line");
        let text = |key: &str| value[key].as_str().expect("a string").to_owned();
        (text("name"), text("record"))
    };
    lines.lines().map(record).collect()
}

/// A name server that has these records; others it does not know, and `broken.test` it does not know about.
pub(crate) fn serve(records: HashMap<String, String>) -> Names {
    Names::start(move |name, kind| match (records.get(name), kind) {
        (Some(text), TXT) => Said::text(text),
        (Some(_), _) => Said::NoData,
        (None, _) if name.ends_with("broken.test") => Said::ServFail,
        (None, _) => Said::NoName,
    })
}
