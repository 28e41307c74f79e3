//! The smuggler against the sink, which is not taken in, and against servers that are.

#![allow(clippy::unwrap_used, reason = "a test may end at what it did not expect")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use common::Sink;
use loadgen::audit::{self, AuditConfig};
use loadgen::client::{ClientTls, ClientTlsMode, Introduction};
use loadgen::sink::{TlsConfig, TlsMode};
use loadgen::smuggle::{self, Difference, Outcome, SmuggleConfig, SmuggleReport};

struct Trial {
    folder: tempfile::TempDir,
}

impl Trial {
    fn new() -> Trial {
        Trial { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// All cases through a sink of the given kind.
    fn run(
        &self,
        tls: Option<ClientTls>,
        change: impl FnOnce(&mut loadgen::sink::SinkConfig),
    ) -> SmuggleReport {
        let sink = Sink::start(|config| {
            config.audit = Some(self.path("received"));
            change(config);
        });
        let config = SmuggleConfig {
            audit: Some(self.path("sent")),
            ..SmuggleConfig::to(Introduction { tls, ..Introduction::to(sink.address) })
        };
        let report = smuggle::run(&config).unwrap();
        sink.end();
        report
    }
}

#[test]
fn the_sink_takes_each_for_one_message_and_as_it_was() {
    let starttls = Some(ClientTls::new(ClientTlsMode::StartTls));
    for tls in [None, starttls] {
        let trial = Trial::new();
        let report =
            trial.run(tls.clone(), |config| config.tls = tls.map(|_| TlsConfig::new(TlsMode::Require)));
        assert_eq!(
            (report.split, report.refused, report.unknown, report.skipped),
            (0, 0, 0, 0),
            "{report:?}"
        );
        assert_eq!((report.accepted, report.cases.len()), (125, 125));
        assert_eq!(report.compare(&[trial.path("received")]).unwrap(), []);
        let (sent, received) = (vec![trial.path("sent")], vec![trial.path("received")]);
        assert!(audit::run(&AuditConfig { sent, received, verp: None }).unwrap().is_clean());
    }
}

#[test]
fn chunks_are_skipped_where_there_are_none() {
    let trial = Trial::new();
    let report = trial.run(None, |config| config.chunking = false);
    assert_eq!((report.split, report.refused, report.accepted), (0, 0, 56));
    assert_eq!(report.skipped, 125 - 56);
    assert_eq!(report.compare(&[trial.path("received")]).unwrap(), []);
}

/// Tells a connection's lines apart by LF alone, as old servers did: a dot on a line of its own ends the data. Each
/// message it takes goes to `record`, as a sink's would.
fn gullible(stream: TcpStream) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream);
    out.write_all(b"220 x\r\n")?;
    let (mut line, mut in_data) = (Vec::new(), false);
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = line.trim_ascii_end().to_ascii_uppercase();
        let reply: &[u8] = match (in_data, &text[..]) {
            (true, b".") => {
                in_data = false;
                b"250 taken\r\n"
            }
            (true, _) => b"",
            (false, b"DATA") => {
                in_data = true;
                b"354 go\r\n"
            }
            (false, b"QUIT") => b"221 bye\r\n",
            (false, _) => b"250 ok\r\n",
        };
        out.write_all(reply)?;
        line.clear();
        if reply.starts_with(b"221") {
            return Ok(());
        }
    }
    Ok(())
}

fn serve(answer: impl Fn(TcpStream) -> std::io::Result<()> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(common::ANY).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _the_client_may_be_gone = answer(stream.unwrap());
        }
    });
    address
}

fn outcomes(address: SocketAddr, only: &str) -> Vec<(String, Outcome)> {
    let config = SmuggleConfig { only: Some(only.into()), ..SmuggleConfig::to(Introduction::to(address)) };
    let report = smuggle::run(&config).unwrap();
    let cases = report.cases.into_iter().filter(|case| case.outcome != Outcome::Skipped);
    cases.map(|case| (format!("{} {:?}", case.name, case.by), case.outcome)).collect()
}

#[test]
fn a_server_that_is_taken_in_is_found() {
    let address = serve(gullible);
    for name in ["LF.LF", "LF.CRLF"] {
        let seen = outcomes(address, name);
        assert!(!seen.is_empty());
        for (case, outcome) in seen.iter().filter(|(case, _)| case.starts_with(&format!("{name} "))) {
            assert_eq!(*outcome, Outcome::Split, "{case}");
        }
    }
    for (case, outcome) in outcomes(address, "NUL in") {
        assert_eq!(outcome, Outcome::Accepted, "{case}");
    }
}

#[test]
fn a_refusal_is_no_split_and_silence_is_neither() {
    let refuses = serve(|mut stream| {
        stream.write_all(b"220 x\r\n250 x\r\n550 5.7.1 no\r\n")?;
        stream.read_to_end(&mut Vec::new()).map(|_| ())
    });
    assert!(outcomes(refuses, "CR.CR").iter().all(|(_, outcome)| *outcome == Outcome::Refused));
    let leaves = serve(|mut stream| {
        stream.write_all(b"220 x\r\n250 x\r\n250 ok\r\n250 ok\r\n354 go\r\n")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new()).map(|_| ())
    });
    assert!(outcomes(leaves, "CR.CR").iter().all(|(_, outcome)| *outcome == Outcome::Unknown));
}

#[test]
fn a_record_tells_what_was_lost_altered_repeated_or_smuggled() {
    let trial = Trial::new();
    let mut report = trial.run(None, |_| {});
    let text = std::fs::read_to_string(trial.path("received")).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let altered = lines[1].split('\t').nth(1).unwrap().to_owned();
    lines[1] = lines[1].replacen(&altered, "0123456789abcdef", 1);
    lines.push(lines[2].clone());
    lines[0] = lines[0].replacen(&format!("{}-0", report.run), "forged-0", 1);
    std::fs::write(trial.path("received"), lines.join("\n")).unwrap();
    report.cases[3].outcome = Outcome::Refused;
    let [zero, one, two, three] = [0, 1, 2, 3].map(|number: usize| report.cases[number].title());
    let differences = report.compare(&[trial.path("received")]).unwrap();
    assert_eq!(
        differences,
        [
            Difference::Smuggled { token: "forged-0".into(), recipient: "u000000@d001.test".into() },
            Difference::Missing { case: zero },
            Difference::Altered { case: one },
            Difference::Repeated { case: two },
            Difference::Uninvited { case: three },
        ]
    );
}
