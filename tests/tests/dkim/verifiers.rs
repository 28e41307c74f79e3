//! Three verifiers that others wrote, each shown one signature of a message at a time.

use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator};
use message::compose::header::RawFields;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::process::{peer, wait};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verifier {
    MailAuth,
    /// mail-auth for the header, our own digest of the body: as incoming mail is verified.
    MailAuthWithOurDigest,
    DkimPy,
    OpenDkim,
}

/// The message once for each signature by `domain`, with that one alone, and the selector.
pub(crate) fn by_signature(content: &[u8], domain: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut fields = RawFields::of(content);
    let (mut ours, mut at) = (Vec::new(), 0);
    while let Some(field) = fields.next() {
        let end = content.len() - fields.rest().len();
        let text = String::from_utf8_lossy(field.value).into_owned();
        if field.name == b"DKIM-Signature" && text.contains(&format!("d={domain};")) {
            let selector = text.split("s=").nth(1).and_then(|rest| rest.split(';').next());
            ours.push((selector.expect("a signature has a selector").to_owned(), at..end));
        }
        at = end;
    }
    for (selector, place) in &ours {
        let mut alone = Vec::with_capacity(content.len());
        let mut at = 0;
        for (_, other) in ours.iter().filter(|(_, other)| other != place) {
            alone.extend_from_slice(&content[at..other.start]);
            at = other.end;
        }
        alone.extend_from_slice(&content[at..]);
        found.push((selector.clone(), alone));
    }
    found
}

pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// mail-auth, with its own cache.
pub(crate) fn mail_auth(server: SocketAddr) -> MessageAuthenticator {
    let mut names = NameServerConfig::udp_and_tcp(server.ip());
    names.connections.iter_mut().for_each(|connection| connection.port = server.port());
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![names]);
    MessageAuthenticator::new(config, ResolverOpts::default()).expect("a resolver")
}

/// Whether the one signature in `message` holds, or why not.
pub(crate) async fn by_mail_auth(names: &MessageAuthenticator, message: &[u8]) -> Result<(), String> {
    let parsed = AuthenticatedMessage::parse(message).ok_or("mail-auth cannot read the message")?;
    let outputs = names.verify_dkim(&parsed).await;
    let own =
        outputs.iter().rfind(|output| output.signature().is_some_and(|found| found.d != "elsewhere.test"));
    match own.map(|output| output.result()) {
        Some(DkimResult::Pass) => Ok(()),
        other => Err(format!("mail-auth: {other:?}")),
    }
}

/// Argument 1: a file with a JSON object of records by name; the rest: files of messages. A line for each: `True` or why not.
/// Of several signatures the last one counts.
const DKIMPY: &str = r#"
import dkim, json, sys
records = json.load(open(sys.argv[1]))
def ask(name, timeout=5):
    record = records.get(name.decode().rstrip('.'))
    return record.encode() if record else None
for file in sys.argv[2:]:
    try:
        message = dkim.DKIM(open(file, 'rb').read())
        count = sum(1 for name, _ in message.headers if name.lower() == b'dkim-signature')
        holds = any([message.verify(idx=index, dnsfunc=ask) for index in range(count)])
        print(holds)
    except Exception as error:
        print(type(error).__name__, str(error).replace('\n', ' '))
"#;

/// Python with dkimpy and, for Ed25519, pynacl: the system's, which Debian's packages are for, else the first one.
fn dkimpy() -> Option<Command> {
    let has_it = |python: &PathBuf| {
        Command::new(python)
            .args(["-c", "import dkim, nacl"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let pythons = [PathBuf::from("/usr/bin/python3"), PathBuf::from("python3")];
    let found = pythons.into_iter().find(has_it);
    if found.is_none() {
        peer::skip("there is no Python with dkimpy and pynacl (python3-dkim, python3-nacl)");
    }
    found.map(Command::new)
}

/// For each file whether a signature holds, or why not. `None`: it is not installed.
pub(crate) fn by_dkimpy(
    folder: &Path,
    records: &HashMap<String, String>,
    files: &[PathBuf],
) -> Option<Vec<Result<(), String>>> {
    let mut python = dkimpy()?;
    let known = folder.join("records.json");
    std::fs::write(&known, serde_json::to_string(records).expect("a map of strings")).expect("ours");
    let output = wait::succeed(python.args(["-c", DKIMPY]).arg(known).args(files), wait::PATIENCE);
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let results: Vec<_> = lines
        .lines()
        .map(|line| if line == "True" { Ok(()) } else { Err(format!("dkimpy: {line}")) })
        .collect();
    assert_eq!(results.len(), files.len(), "{lines}");
    Some(results)
}

/// The same by OpenDKIM, which reads records from a file when it is asked for a test.
pub(crate) fn by_opendkim(
    folder: &Path,
    records: &HashMap<String, String>,
    files: &[PathBuf],
) -> Option<Vec<Result<(), String>>> {
    peer("opendkim")?;
    let (config, known) = (folder.join("opendkim.conf"), folder.join("opendkim.records"));
    let lines: String = records.iter().map(|(name, record)| format!("{name} {record}\n")).collect();
    std::fs::write(&known, lines).expect("ours");
    std::fs::write(&config, format!("Mode v\nTestDNSData file:{}\n", known.display())).expect("ours");
    let ended = folder.join("opendkim.eml");
    let verify = |file: &PathBuf| {
        let mut message = std::fs::read(file).expect("ours");
        if !message.ends_with(b"\n") {
            // It reads lines, and does not see one without an end.
            message.extend_from_slice(b"\r\n");
        }
        std::fs::write(&ended, message).expect("ours");
        let mut opendkim = peer("opendkim").expect("it was there");
        let output = wait::finish(opendkim.arg("-x").arg(&config).arg("-t").arg(&ended), wait::PATIENCE);
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        if said.contains(") succeeded") { Ok(()) } else { Err(format!("OpenDKIM: {said}")) }
    };
    Some(files.iter().map(verify).collect())
}
