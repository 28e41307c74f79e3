//! What must stay true of the source itself: who may know whom, where `unsafe` and the clock are, what is promised
//! in the feature list. Each check reads the files as they are; each failure names them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// DESIGN.md section 2: the siblings that a crate may use, dev-dependencies included.
const ARROWS: &[(&str, &[&str])] = &[
    ("message", &[]),
    ("smtp-in", &["message"]),
    ("queue", &["message"]),
    ("smtp-out", &["message"]),
    ("local", &["message"]),
    ("pop3", &["message"]),
    ("ring", &[]),
    ("loadgen", &[]),
    ("engine", &["message", "smtp-in", "queue", "smtp-out", "local", "pop3", "ring", "loadgen"]),
    ("bench", EVERYTHING),
    ("tests", EVERYTHING),
];

const EVERYTHING: &[&str] =
    &["message", "smtp-in", "queue", "smtp-out", "local", "pop3", "ring", "loadgen", "engine", "bench"];

/// Sources that are tests though they stand in `src`.
const TEST_SOURCES: &[&str] = &["tests.rs"];

/// Their time comes from their caller; the engine's comes from one file.
const CLOCKLESS: &[&str] = &["engine", "queue", "message", "smtp-in", "smtp-out", "local", "pop3"];
const CLOCK: &str = "engine/src/clock.rs";

const STATES: &[&str] = &["works", "partly", "not yet"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of the workspace's members, as its manifest lists them.
fn members() -> Vec<String> {
    let manifest: toml::Table = read(&root().join("Cargo.toml")).parse().expect("Cargo.toml is TOML");
    let members = manifest["workspace"]["members"].as_array().expect("members is a list");
    members.iter().map(|member| member.as_str().expect("a member is a string").to_owned()).collect()
}

/// Files below `folder` whose names end so, in order; never what was built.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder's entry").path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            found.extend(files(&path, ending));
        } else if path.is_file() && name.ends_with(ending) {
            found.push(path);
        }
    }
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

// ---- who may know whom ----

/// Names of dependencies of every kind, those of targets included.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (section, value) in manifest {
        let Some(table) = value.as_table() else { continue };
        if section.ends_with("dependencies") {
            names.extend(table.iter().map(|(name, value)| package_of(name, value)));
        } else if section == "target" {
            names.extend(table.values().filter_map(toml::Value::as_table).flat_map(dependencies));
        }
    }
    names
}

/// A dependency may go by another name than its package's.
fn package_of(name: &str, value: &toml::Value) -> String {
    value.get("package").and_then(toml::Value::as_str).unwrap_or(name).to_owned()
}

#[test]
fn crates_know_only_whom_the_drawing_lets_them() {
    let members = members();
    let mut wrong = Vec::new();
    for member in &members {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == member) else {
            wrong.push(format!("{member} is not in the drawing"));
            continue;
        };
        let manifest: toml::Table =
            read(&root().join(member).join("Cargo.toml")).parse().expect("a manifest is TOML");
        let siblings = dependencies(&manifest).into_iter().filter(|name| members.contains(name));
        wrong.extend(
            siblings
                .filter(|name| !allowed.contains(&name.as_str()))
                .map(|name| format!("{member} ──▶ {name}")),
        );
    }
    assert_none("arrows that DESIGN.md section 2 does not have", &wrong);
}

#[test]
fn every_member_says_its_job() {
    let text = read(&root().join("Cargo.toml"));
    let silent: Vec<String> = members()
        .into_iter()
        .filter(|member| {
            !text.lines().any(|line| line.trim().starts_with(&format!("\"{member}\",")) && line.contains('#'))
        })
        .collect();
    assert_none("members without a comment in Cargo.toml", &silent);
}

// ---- source ----

/// The source without comments, strings and characters, line for line. Rough: raw strings end at the first `"#`.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let len = skipped_len(rest);
        if len > 0 {
            code.extend(rest[..len].chars().filter(|char| *char == '\n'));
            rest = &rest[len..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// Length of the comment or literal that `rest` begins with, else 0.
fn skipped_len(rest: &str) -> usize {
    let until =
        |start: usize, end: &str| rest[start..].find(end).map_or(rest.len(), |at| start + at + end.len());
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until(2, "*/");
    }
    if rest.starts_with("r#\"") {
        return until(3, "\"#");
    }
    match rest.as_bytes() {
        [b'"', ..] => literal_len(rest.as_bytes(), b'"'),
        // A lifetime has no closing quote right behind its first character.
        [b'\'', b'\\', ..] | [b'\'', _, b'\'', ..] => literal_len(rest.as_bytes(), b'\''),
        _ => 0,
    }
}

fn literal_len(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            octet if octet == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The code before its test module, which by our habit is the last thing in a file.
fn without_tests(code: &str) -> &str {
    code.find("#[cfg(test)]").map_or(code, |at| &code[..at])
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|char: char| !char.is_alphanumeric() && char != '_')
}

/// Places where `is_wrong` finds a line of code.
fn places(files: &[PathBuf], whole: bool, is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for path in files {
        let code = code_of(&read(path));
        let code = if whole { &code } else { without_tests(&code) };
        let wrong = code.lines().enumerate().filter(|(_, line)| is_wrong(line));
        found.extend(wrong.map(|(index, line)| format!("{}:{}: {}", shown(path), index + 1, line.trim())));
    }
    found
}

#[test]
fn unsafe_is_in_ring_alone() {
    let outside: Vec<PathBuf> =
        files(&root(), ".rs").into_iter().filter(|path| !path.starts_with(root().join("ring"))).collect();
    let found = places(&outside, true, |line| words(line).any(|word| word == "unsafe"));
    assert_none("unsafe outside ring/", &found);
}

#[test]
fn every_crate_but_ring_forbids_unsafe() {
    let mut lax = Vec::new();
    for member in members().iter().filter(|member| *member != "ring") {
        for top in ["src/lib.rs", "src/main.rs"].map(|name| root().join(member).join(name)) {
            if top.is_file() && !code_of(&read(&top)).contains("#![forbid(unsafe_code)]") {
                lax.push(shown(&top));
            }
        }
    }
    assert_none("without #![forbid(unsafe_code)]", &lax);
}

#[test]
fn the_system_clock_is_read_in_one_file() {
    let sources: Vec<PathBuf> = CLOCKLESS
        .iter()
        .flat_map(|member| files(&root().join(member).join("src"), ".rs"))
        .filter(|path| *path != root().join(CLOCK) && !TEST_SOURCES.iter().any(|name| path.ends_with(name)))
        .collect();
    let reads = ["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now", "UNIX_EPOCH.elapsed"];
    let found = places(&sources, false, |line| reads.iter().any(|read| line.contains(read)));
    assert_none(&format!("reads of the system clock outside {CLOCK}"), &found);
}

// ---- everything that is tracked ----

/// Files that git tracks or would, if it is there to ask; else all that are text by their name.
fn tracked() -> Vec<PathBuf> {
    let listed = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root())
        .output();
    match listed {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8_lossy(&output.stdout).into_owned();
            names.split('\0').filter(|name| !name.is_empty()).map(|name| root().join(name)).collect()
        }
        _ => {
            [".rs", ".toml", ".md", ".txt", ".sh"].iter().flat_map(|ending| files(&root(), ending)).collect()
        }
    }
}

#[test]
fn no_file_names_a_developers_machine() {
    // Put together here, so that this file does not find itself.
    let own = root().display().to_string();
    let homes = ["/home", "/Users", "C:\\Users"]
        .map(|start| format!("{start}{}", if start.contains('\\') { '\\' } else { '/' }));
    let mut found = Vec::new();
    for path in tracked() {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for (index, line) in text.lines().enumerate() {
            // A home in a test or a document is an example if it is that of one of RFC-style people.
            let example =
                ["/home/ann", "/home/bob", "/home/alice", "/home/*", "/home/USER", "/home/$", "/home/{"];
            let home = homes.iter().any(|home| line.contains(home.as_str()))
                && !example.iter().any(|name| line.contains(name));
            if home || own.len() > 5 && names_path(line, &own) {
                found.push(format!("{}:{}: {}", shown(&path), index + 1, line.trim()));
            }
        }
    }
    assert_none("paths of a developer's machine", &found);
}

/// True if `path` stands in the line as a whole path or the start of one.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[at + path.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '-')
    })
}

// ---- the feature list ----

fn promised() -> Vec<String> {
    let qmail = (1..=69).map(|number| format!("Q{number:02}"));
    qmail.chain((1..=38).map(|number| format!("B{number:02}"))).collect()
}

#[test]
fn every_feature_is_listed_once_with_its_state() {
    let text = read(&root().join("docs/features.md"));
    let rows: Vec<Vec<&str>> = text.lines().filter_map(cells).collect();
    let mut wrong = Vec::new();
    for id in promised() {
        let found: Vec<&Vec<&str>> = rows.iter().filter(|row| id_of(row[0]) == id).collect();
        match found[..] {
            [row] if row.iter().any(|cell| STATES.contains(cell)) => {}
            [row] => wrong.push(format!("{id}: no state of {STATES:?} in {row:?}")),
            _ => wrong.push(format!("{id}: {} rows", found.len())),
        }
    }
    assert_none("docs/features.md", &wrong);
}

/// `| Q01 | works | … |` → its cells.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.trim().strip_prefix('|')?;
    Some(row.trim_end_matches('|').split('|').map(str::trim).collect())
}

/// `B04 ★` is B04.
fn id_of(cell: &str) -> &str {
    cell.split_whitespace().next().unwrap_or_default()
}

#[test]
fn comments_and_strings_are_not_code() {
    let source =
        "let a = \"unsafe \\\" unsafe\"; // unsafe\n/* unsafe\n */ b('\"', 'x', &'a str); r#\"unsafe\"#; c";
    let code = code_of(source);
    assert!(!code.contains("unsafe"), "{code}");
    assert_eq!(code.lines().count(), 3);
    assert!(code.contains("str") && code.ends_with("; c"));
    assert!(!words("unsafe_code").any(|word| word == "unsafe"));
}
