//! Knot DNS as a whole tree of names: a root of our own, with zones below it that are signed or not.

use super::daemon::Own;
use super::dns::free_address;
use super::peer::peer;
use super::{setup, wait};
use std::fmt::Write as _;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;

/// Another program may take the port between our look and knotd's.
const ATTEMPTS: usize = 5;

/// What the tree says of a zone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Chain {
    /// Signed, and vouched for by the root.
    Secure,
    /// Not signed, and the root proves that it is not.
    Insecure,
    /// Signed by another key than the one that the root vouches for.
    Bogus,
    /// The root leads there, and nobody answers but with SERVFAIL.
    Lame,
}

/// A zone right below the root, or deeper in one that has its NS records itself.
#[derive(Clone, Debug)]
pub struct Zone {
    pub name: &'static str,
    pub chain: Chain,
    /// Lines of a zone file, relative to the zone.
    pub records: &'static [&'static str],
}

/// See the module.
#[derive(Debug)]
pub struct Knot {
    _child: Own,
    folder: TempDir,
    pub address: SocketAddr,
}

impl Knot {
    /// `None` if it is not installed.
    pub fn start(zones: &[Zone]) -> Option<Knot> {
        for _ in 0..ATTEMPTS {
            peer("knotd")?;
            peer("keymgr")?;
            if let Some(knot) = Knot::try_start(zones) {
                return Some(knot);
            }
        }
        panic!("knotd did not come up");
    }

    /// File with the key of the root.
    pub fn anchors(&self) -> PathBuf {
        self.folder.path().join("anchors")
    }

    fn try_start(zones: &[Zone]) -> Option<Knot> {
        let folder = setup::temporary_folder();
        let address = free_address();
        let file = |name: &str| folder.path().join(name);
        std::fs::create_dir(file("db")).expect("the folder is ours");
        std::fs::write(file("knot.conf"), configuration(&folder, address, zones))
            .expect("the folder is ours");
        let keys = |zone: &str, words: &[&str]| {
            let mut keymgr = peer("keymgr").expect("it was there");
            let output =
                wait::succeed(keymgr.arg("-c").arg(file("knot.conf")).arg(zone).args(words), wait::PATIENCE);
            String::from_utf8(output.stdout).expect("records are text")
        };
        let generate = ["generate", "algorithm=ECDSAP256SHA256", "ksk=yes", "zsk=yes"];
        keys(".", &generate);
        let mut root = start_of_zone(".");
        for zone in zones {
            if !zone.name.contains('.') {
                let _ = writeln!(root, "{}. NS ns.plain.", zone.name);
            }
            if matches!(zone.chain, Chain::Secure | Chain::Bogus) {
                keys(&format!("{}.", zone.name), &generate);
                let ds = keys(&format!("{}.", zone.name), &["ds"]);
                root += &if zone.chain == Chain::Bogus { of_another_key(&ds) } else { ds };
            }
            if zone.chain != Chain::Lame {
                let text = start_of_zone(zone.name) + &zone.records.join("\n") + "\n";
                std::fs::write(file(&format!("{}.zone", zone.name)), text).expect("the folder is ours");
            }
        }
        root += "plain. NS ns.plain.\nns.plain. A 127.0.0.1\n";
        std::fs::write(file("root.zone"), root).expect("the folder is ours");
        std::fs::write(file("plain.zone"), start_of_zone("plain") + "ns A 127.0.0.1\n")
            .expect("the folder is ours");
        let anchor = keys(".", &["dnskey"]).replacen(". DNSKEY", ". 3600 IN DNSKEY", 1);
        std::fs::write(file("anchors"), anchor).expect("the folder is ours");
        let talk = File::create(file("talk")).expect("the folder is ours");
        let mut knotd = peer("knotd").expect("it was there");
        let knotd =
            knotd.arg("-c").arg(file("knot.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(talk);
        let mut child = Own(knotd.spawn().expect("knotd starts"));
        let is_up = wait::until_some("knotd", Duration::from_secs(60), || {
            let has_ended = child.0.try_wait().is_ok_and(|ended| ended.is_some());
            let said = std::fs::read_to_string(file("talk")).unwrap_or_default();
            // Zones are loaded and signed before it says so.
            if has_ended { Some(false) } else { said.contains("server started").then_some(true) }
        });
        is_up.then_some(Knot { _child: child, folder, address })
    }
}

fn configuration(folder: &TempDir, address: SocketAddr, zones: &[Zone]) -> String {
    let path = folder.path().display();
    let mut text = format!(
        "server:\n  listen: {}@{}\n  rundir: {path}\ndatabase:\n  storage: {path}/db\n\
         log:\n  - target: stderr\n    any: info\n\
         policy:\n  - id: ours\n    manual: on\n    algorithm: ecdsap256sha256\n\
         template:\n  - id: default\n    storage: {path}\n    file: \"%s.zone\"\n\
         zone:\n  - domain: .\n    file: root.zone\n    dnssec-signing: on\n    dnssec-policy: ours\n  - domain: plain.\n",
        address.ip(),
        address.port(),
    );
    for zone in zones {
        let _ = writeln!(text, "  - domain: {}.", zone.name);
        if matches!(zone.chain, Chain::Secure | Chain::Bogus) {
            text += "    dnssec-signing: on\n    dnssec-policy: ours\n";
        }
    }
    text
}

fn start_of_zone(name: &str) -> String {
    let origin = if name == "." { ".".to_owned() } else { format!("{name}.") };
    format!("$ORIGIN {origin}\n$TTL 300\n@ SOA ns.plain. h.plain. 1 3600 600 86400 60\n@ NS ns.plain.\n")
}

/// DS records whose digests begin otherwise.
fn of_another_key(ds: &str) -> String {
    let line = |line: &str| {
        let (head, digest) = line.rsplit_once(' ').expect("a DS record ends in its digest");
        let other = if digest.starts_with("00") { "ff" } else { "00" };
        format!("{head} {other}{}\n", &digest[2..])
    };
    ds.lines().map(line).collect()
}
