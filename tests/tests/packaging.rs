//! What a distribution installs beside the program: systemd reads it without a word, and a configuration as it is documented
//! finds every folder that it writes to, each its writer's.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::process::home::{RUN_MAX, ringpost, told};
use tests::process::{peer, setup, wait};
use toml::{Table, Value};

const UNITS: [&str; 2] = ["ringpost.service", "ringpost-engine.service"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").to_owned()
}

fn packaged(name: &str) -> PathBuf {
    root().join("packaging/systemd").join(name)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn systemd_has_nothing_to_say_about_our_units() {
    let Some(mut verify) = peer("systemd-analyze") else { return };
    let folder = setup::temporary_folder();
    verify.arg("verify");
    for name in UNITS {
        // The program is not installed; another one that is stands for it.
        let unit = read(&packaged(name)).replace("/usr/bin/ringpost ", "/bin/true ");
        assert!(unit.contains("ExecStart=/bin/true "), "{name}");
        std::fs::write(folder.path().join(name), unit).expect("ours");
        verify.arg(folder.path().join(name));
    }
    let output = wait::finish(&mut verify, Duration::from_secs(60));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

// ---- users and their folders ----

/// Users and their homes, as sysusers.conf has them made.
fn homes() -> BTreeMap<String, PathBuf> {
    let text = read(&packaged("sysusers.conf"));
    let users = text.lines().filter(|line| line.starts_with("u "));
    let home_of = |line: &str| {
        let user = line.split(' ').nth(1).expect("a user's line has a name");
        let home = line.rsplit(' ').next().filter(|home| home.starts_with('/'));
        (user.to_owned(), PathBuf::from(home.unwrap_or_else(|| panic!("no home: {line}"))))
    };
    users.map(home_of).collect()
}

/// Folders and their owners, as tmpfiles.conf has them made.
fn folders() -> BTreeMap<PathBuf, String> {
    let text = read(&packaged("tmpfiles.conf"));
    let folders = text.lines().filter(|line| line.starts_with("d "));
    let owner_of = |line: &str| {
        let [_, path, mode, user, group, _] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("it is d path mode user group age: {line}");
        };
        assert!(mode.len() == 4 && user == group, "{line}");
        (PathBuf::from(path), user.to_owned())
    };
    folders.map(owner_of).collect()
}

#[test]
fn every_home_is_made_and_every_folder_is_a_users_of_ours() {
    let (homes, folders) = (homes(), folders());
    for (user, home) in homes.iter().filter(|(_, home)| *home != Path::new("/")) {
        assert_eq!(folders.get(home), Some(user), "{}", home.display());
    }
    let strange: Vec<&String> = folders.values().filter(|owner| !homes.contains_key(*owner)).collect();
    assert!(strange.is_empty() && homes.contains_key("alias"), "{strange:?}, {homes:?}");
    let [with_root, without] = UNITS.map(Unit::read);
    assert!(homes.contains_key(&without.user) && with_root.user == "root");
}

#[test]
fn systemd_makes_users_and_folders() {
    let (Some(mut sysusers), Some(mut tmpfiles)) = (peer("systemd-sysusers"), peer("systemd-tmpfiles"))
    else {
        return;
    };
    if !peer::is_root() {
        return peer::skip("only root can give folders to others");
    }
    let system = setup::temporary_folder();
    std::fs::create_dir(system.path().join("etc")).expect("ours");
    let option = format!("--root={}", system.path().display());
    wait::succeed(sysusers.arg(&option).arg(packaged("sysusers.conf")), RUN_MAX);
    wait::succeed(tmpfiles.arg("--create").arg(&option).arg(packaged("tmpfiles.conf")), RUN_MAX);
    let passwords = read(&system.path().join("etc/passwd"));
    let fields = passwords.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let uids: BTreeMap<&str, u32> =
        fields.map(|fields| (fields[0], fields[2].parse().expect("a number"))).collect();
    for (path, owner) in folders() {
        let made = system.path().join(path.strip_prefix("/").expect("it is a whole path"));
        let about = made.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(about.is_dir() && about.uid() == uids[owner.as_str()], "{}", path.display());
    }
}

// ---- what is written to ----

/// Who writes.
#[derive(Clone, Copy, Debug)]
enum Writer {
    Engine,
    /// Whoever the unit starts: it binds the sockets.
    Starter,
}

/// Keys that name a folder that is written to, and those that name a file in one.
const FOLDERS: [(&str, Writer); 3] =
    [("queue", Writer::Engine), ("events.folder", Writer::Engine), ("supervise.run", Writer::Starter)];
const FILES: [(&str, Writer); 6] = [
    ("delivery_log", Writer::Engine),
    ("events.files.*.path", Writer::Engine),
    ("control", Writer::Engine),
    ("submit", Writer::Starter),
    ("local.socket", Writer::Starter),
    ("local.launcher", Writer::Starter),
];

/// Keys by which a unit has folders made, and where they are.
const DIRECTORIES: [(&str, &str); 3] =
    [("RuntimeDirectory", "/run"), ("StateDirectory", "/var/lib"), ("LogsDirectory", "/var/log")];

/// What a unit says of its folders.
struct Unit {
    user: String,
    /// Folders that systemd makes for its user.
    made: Vec<PathBuf>,
    /// `None`: all that its user may write to.
    writable: Option<Vec<PathBuf>>,
}

impl Unit {
    fn read(name: &str) -> Unit {
        let text = read(&packaged(name));
        let words = |key: &str| -> Vec<String> {
            let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            values.flat_map(str::split_whitespace).map(str::to_owned).collect()
        };
        let below = |&(key, base): &(&str, &str)| -> Vec<PathBuf> {
            words(key).into_iter().map(|name| Path::new(base).join(name)).collect()
        };
        let made: Vec<PathBuf> = DIRECTORIES.iter().flat_map(below).collect();
        let named = words("ReadWritePaths").into_iter().map(PathBuf::from);
        let is_strict = words("ProtectSystem") == ["strict"];
        let writable = is_strict.then(|| named.chain(made.clone()).collect());
        let user = words("User").pop().unwrap_or_else(|| "root".to_owned());
        Unit { user, made, writable }
    }

    fn writer(&self, writer: Writer) -> String {
        match writer {
            Writer::Engine if self.user == "root" => engine::config::Supervise::default().engine_user,
            Writer::Engine | Writer::Starter => self.user.clone(),
        }
    }

    /// Whose a folder is: the nearest above it that is made says so, and all else is root's.
    fn owner_of(&self, folder: &Path) -> String {
        let folders = folders();
        let made = folder.ancestors().find_map(|above| {
            let is_made = self.made.iter().any(|made| made == above);
            if is_made { Some(self.user.clone()) } else { folders.get(above).cloned() }
        });
        made.unwrap_or_else(|| "root".to_owned())
    }

    fn may_write(&self, writer: Writer, folder: &Path) -> bool {
        let is_writable = |paths: &Vec<PathBuf>| paths.iter().any(|path| folder.starts_with(path));
        let who = self.writer(writer);
        self.writable.as_ref().is_none_or(is_writable) && (who == "root" || who == self.owner_of(folder))
    }
}

/// Configurations that somebody may copy, and where they stand.
fn samples() -> Vec<(String, Table)> {
    let documents = ["README.md", "packaging/systemd/README.md"].map(|name| (name, read(&root().join(name))));
    let mut samples: Vec<(String, Table)> = Vec::new();
    for (name, text) in &documents {
        for fence in text.split("```toml\n").skip(1) {
            let (sample, _) = fence.split_once("\n```").unwrap_or_else(|| panic!("{name}: no end: {fence}"));
            let table = sample.parse::<Table>().unwrap_or_else(|error| panic!("{name}: {error}\n{sample}"));
            samples.push(((*name).to_owned(), table));
        }
    }
    samples.push(("ringpost import-qmail".to_owned(), imported()));
    samples
}

fn imported() -> Table {
    let qmail = setup::temporary_folder();
    std::fs::create_dir(qmail.path().join("control")).expect("ours");
    std::fs::write(qmail.path().join("control/me"), "mx.example.org\n").expect("ours");
    let (_, text, said) = told(&wait::finish(ringpost(&["import-qmail"]).arg(qmail.path()), RUN_MAX));
    text.parse::<Table>().unwrap_or_else(|error| panic!("{error}\n{text}\n{said}"))
}

/// Values of a key, tables before it; `*` stands for any.
fn values<'a>(table: &'a Table, key: &str) -> Vec<&'a str> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let found = table.iter().filter(|(name, _)| first == "*" || *name == first).map(|(_, value)| value);
    match rest {
        Some(rest) => found.filter_map(Value::as_table).flat_map(|table| values(table, rest)).collect(),
        None => found.filter_map(Value::as_str).collect(),
    }
}

#[test]
fn what_documents_name_can_be_written_to_under_each_unit() {
    let run = engine::config::Supervise::default().run;
    let mut written = vec![("[supervise] run is by default".to_owned(), Writer::Starter, run)];
    let mut keys = BTreeSet::new();
    for (document, sample) in samples() {
        for (key, writer) in FOLDERS.iter().chain(&FILES) {
            for path in values(&sample, key).into_iter().map(Path::new) {
                let is_file = FILES.iter().any(|(file, _)| file == key);
                let folder = if is_file { path.parent().expect("it is a whole path") } else { path };
                let what = format!("{key} is in {document}: {}", path.display());
                written.push((what, *writer, folder.to_owned()));
                keys.insert(*key);
            }
        }
    }
    assert!(["queue", "delivery_log", "submit"].iter().all(|key| keys.contains(key)), "{keys:?}");
    for name in UNITS {
        let unit = Unit::read(name);
        for (what, writer, folder) in &written {
            let who = unit.writer(*writer);
            assert!(unit.may_write(*writer, folder), "{name}: {who} may not write to what {what}");
        }
    }
}
