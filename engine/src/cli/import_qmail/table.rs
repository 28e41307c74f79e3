//! Control files in our words.

use std::collections::BTreeMap;
use std::path::Path;
use toml::{Table, Value};

/// qmail's own defaults, where ours are others.
const LIFETIME_SECS: i64 = 604_800;
const IDLE_SECS: i64 = 1200;
const CONNECT_SECS: i64 = 60;

/// Files that say something which is said elsewhere, or which nobody needs to say here.
const NEEDLESS: &[(&str, &str)] = &[
    ("bouncefrom", "bounces come from MAILER-DAEMON"),
    ("bouncehost", "bounces come from host_name"),
    ("timeoutremote", "each step of a dialogue has the time that RFC 5321 gives it"),
    ("smtpgreeting", "the greeting is host_name"),
    ("qmqpservers", "this host keeps its own queue"),
];

/// What was said, and what was not.
#[derive(Debug, Default)]
pub(super) struct Translation {
    table: Table,
    /// Lines for the operator.
    pub(super) untold: Vec<String>,
}

impl Translation {
    pub(super) fn text(&self) -> String {
        toml::to_string(&self.table).expect("a table of strings, numbers and lists is TOML")
    }

    pub(super) fn untold(&mut self, line: &str) {
        self.untold.push(line.to_owned());
    }

    /// True if some addresses are this machine's.
    pub(super) fn has_local(&self) -> bool {
        self.table.contains_key("local")
    }

    /// `[section] key = value`; without a section at the top.
    pub(super) fn say(&mut self, section: &str, key: &str, value: impl Into<Value>) {
        let table = match section {
            "" => &mut self.table,
            section => {
                let entry = self.table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                entry.as_table_mut().expect("sections are tables: nothing else is put there")
            }
        };
        table.insert(key.to_owned(), value.into());
    }

    fn say_number(&mut self, file: &str, text: &str, section: &str, key: &str) {
        match text.parse::<i64>() {
            Ok(number) => self.say(section, key, number),
            Err(_) => self.untold(&format!("control/{file}: {text:?} is no number")),
        }
    }
}

/// Lines of a control file that count: without blanks at their ends, empty ones and comments.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn list(text: &str) -> Value {
    Value::Array(lines(text).map(|line| Value::String(line.to_owned())).collect())
}

pub(super) fn translate(files: &BTreeMap<String, String>, control: &Path) -> Translation {
    let mut said = Translation::default();
    let first = |name: &str| files.get(name).and_then(|text| lines(text).next()).map(str::to_owned);
    let me = first("me");
    said.say("", "queue", "/var/spool/ringpost");
    // Without it nothing can be sent on.
    said.say("", "submit", "/run/ringpost/submit.sock");
    said.say("bounces", "format", "qsbmf");
    match &me {
        Some(me) => said.say("", "host_name", me.as_str()),
        None => said.untold("control/me: it is not there; host_name will be the system's"),
    }
    // Where a file is not there, qmail's default is meant, and it need not be ours.
    said.say_number(
        "queuelifetime",
        &first("queuelifetime").unwrap_or(LIFETIME_SECS.to_string()),
        "retry",
        "lifetime_secs",
    );
    said.say_number(
        "timeoutsmtpd",
        &first("timeoutsmtpd").unwrap_or(IDLE_SECS.to_string()),
        "intake",
        "idle_timeout_secs",
    );
    let connect = first("timeoutconnect").unwrap_or(CONNECT_SECS.to_string());
    said.say_number("timeoutconnect", &connect, "delivery", "connect_timeout_secs");
    if let Some(count) = first("concurrencyremote") {
        said.say_number("concurrencyremote", &count, "delivery", "connections_total");
    }
    if let Some(len) = first("databytes").filter(|len| len != "0") {
        said.say_number("databytes", &len, "intake", "message_size_max");
    }
    for (file, key) in [
        ("defaulthost", "default_host"),
        ("defaultdomain", "default_domain"),
        ("plusdomain", "plus_domain"),
        ("idhost", "id_host"),
    ] {
        if let Some(name) = first(file) {
            said.say("compose", key, name);
        }
    }
    say_access(&mut said, files, control);
    say_local(&mut said, files);
    say_doublebounce(&mut said, first("doublebounceto"), first("doublebouncehost").or(me));
    say_routes(&mut said, files.get("smtproutes").map_or("", String::as_str));
    say_what_is_left(&mut said, files);
    said
}

fn say_access(said: &mut Translation, files: &BTreeMap<String, String>, control: &Path) {
    match files.get("rcpthosts") {
        Some(hosts) => {
            let (wild, hosts): (Vec<&str>, Vec<&str>) = lines(hosts).partition(|host| *host == "*");
            said.say("access", "relay_to", hosts);
            if !wild.is_empty() {
                said.untold("control/rcpthosts: \"*\" is no host to qmail; here it would be every host, and is left out");
            }
        }
        None => said.untold("control/rcpthosts: without it qmail relays for everybody; here nobody may"),
    }
    if files.contains_key("morercpthosts.cdb") {
        let path = control.join("morercpthosts.cdb");
        said.say("access", "relay_to_file", path.display().to_string());
    } else if files.contains_key("morercpthosts") {
        said.untold("control/morercpthosts: qmail does not read it without its .cdb either");
    }
    if let Some(senders) = files.get("badmailfrom") {
        said.say("access", "bad_senders", list(senders));
    }
    if let Some(hosts) = files.get("percenthack") {
        said.say("access", "percent_hack", list(hosts));
    }
    let become_host = files.get("localiphost").or(files.get("me")).and_then(|text| lines(text).next());
    if let Some(host) = become_host {
        said.say("access", "local_addresses_become", host);
    }
}

/// The file that says whose mailboxes are here. Without a list of locals, qmail's is the host's own name.
pub(super) fn locals_file(files: &BTreeMap<String, String>) -> &'static str {
    if files.contains_key("locals") { "locals" } else { "me" }
}

/// Whose mailboxes are here.
fn say_local(said: &mut Translation, files: &BTreeMap<String, String>) {
    let text = |name: &str| files.get(name).map_or("", String::as_str);
    let own = locals_file(files);
    let (hosts, wrong): (Vec<&str>, Vec<&str>) =
        lines(text(own)).partition(|host| message::Domain::parse(host).is_ok());
    wrong.iter().for_each(|host| said.untold(&format!("control/{own}: {host:?} is no host name")));
    let (virtuals, wrong): (Vec<&str>, Vec<&str>) =
        lines(text("virtualdomains")).partition(|line| line.contains(':'));
    wrong.iter().for_each(|line| said.untold(&format!("control/virtualdomains: {line:?} has no colon")));
    if hosts.is_empty() && virtuals.is_empty() {
        said.untold("control/locals: it names nobody; no address will be this machine's");
        return;
    }
    said.say("local", "locals", hosts);
    if !virtuals.is_empty() {
        said.say("local", "virtual_domains", virtuals);
    }
    say_deliveries(said, files);
}

fn say_deliveries(said: &mut Translation, files: &BTreeMap<String, String>) {
    match files.get("defaultdelivery").map(|text| text.trim_end()).filter(|text| !text.is_empty()) {
        Some(instructions) => said.say("local", "default_delivery", instructions),
        None => said.untold(
            "control/defaultdelivery: it is not there; local.default_delivery is ./Maildir/ unless you say what \
             qmail-start was told",
        ),
    }
    if let Some(host) = files.get("envnoathost").and_then(|text| lines(text).next()) {
        said.say("local", "no_at_host", host);
    }
    // qmail's own limit is 255 where it is built, ours 1000.
    match files.get("concurrencylocal").map(|text| text.trim()) {
        None => {}
        Some("0") => {
            said.untold("control/concurrencylocal: 0 holds local mail; local.sessions_max is at least 1")
        }
        Some(count) => said.say_number("concurrencylocal", count, "local", "sessions_max"),
    }
}

fn say_doublebounce(said: &mut Translation, to: Option<String>, host: Option<String>) {
    if let (Some(to), Some(host)) = (to, host) {
        said.say("bounces", "doublebounce_to", format!("{to}@{host}"));
    }
}

/// `domain:relay:port`, either of the last two left out.
fn say_routes(said: &mut Translation, text: &str) {
    for line in lines(text) {
        let Some((domain, relay)) = line.split_once(':') else {
            said.untold(&format!("control/smtproutes: {line:?} has no colon"));
            continue;
        };
        let relay = relay.trim_end_matches(':');
        // Behind the port some patches have a user and a password.
        if relay.contains(char::is_whitespace) {
            said.untold(&format!(
                "control/smtproutes: {domain:?} has more than a relay; see [routes] in README"
            ));
            continue;
        }
        let domain = if domain.is_empty() { "*" } else { domain };
        said.say("routes", domain, relay);
    }
}

fn say_what_is_left(said: &mut Translation, files: &BTreeMap<String, String>) {
    const SAID: &[&str] = &[
        "me",
        "locals",
        "virtualdomains",
        "defaultdelivery",
        "concurrencylocal",
        "envnoathost",
        "queuelifetime",
        "timeoutsmtpd",
        "timeoutconnect",
        "concurrencyremote",
        "databytes",
        "defaulthost",
        "defaultdomain",
        "plusdomain",
        "idhost",
        "rcpthosts",
        "morercpthosts",
        "morercpthosts.cdb",
        "badmailfrom",
        "percenthack",
        "localiphost",
        "doublebounceto",
        "doublebouncehost",
        "smtproutes",
    ];
    for (name, text) in files.iter().filter(|(name, _)| !SAID.contains(&name.as_str())) {
        let why = NEEDLESS.iter().find(|(needless, _)| needless == name).map(|(_, why)| *why);
        let line = match name.as_str() {
            "helohost" => {
                format!("control/helohost: ehlo of a source, [sources.NAME], says {:?}", text.trim())
            }
            _ => format!("control/{name}: {}", why.unwrap_or("nothing here corresponds to it")),
        };
        said.untold(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(files: &[(&str, &str)]) -> Translation {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        translate(&files, Path::new("/var/qmail/control"))
    }

    #[test]
    fn what_qmail_says_is_said_here() {
        let said = translated(&[
            ("me", "mx.example.org\n"),
            ("rcpthosts", "example.org\n# not this\n*\n.example.net \n\n"),
            ("morercpthosts.cdb", ""),
            ("smtproutes", "inside.test:hub.test:2525\n:[192.0.2.1]\nmx.test:\nbad\nx.test:h user pass\n"),
            ("databytes", "0\n"),
            ("concurrencyremote", "120\n"),
            ("queuelifetime", "soon\n"),
            ("badmailfrom", "@spam.test\n"),
            ("doublebounceto", "ann\n"),
            ("locals", "mx.example.org\nno host\n"),
            ("virtualdomains", "lists.example.org:lists\nann@example.org:ann\n.uucp:alias-uucp\nwrong\n"),
            ("defaultdelivery", "./Mailbox\n\n"),
            ("concurrencylocal", "20\n"),
            ("envnoathost", "far.example.org\n"),
            ("helohost", "out.example.org\n"),
            ("strange", "x\n"),
        ]);
        let config = crate::config::parse(&said.text().replace("relay_to_file", "# relay_to_file"), "x.toml");
        let config = config.unwrap_or_else(|error| panic!("{error}\n{}", said.text()));
        assert_eq!(config.host_name, "mx.example.org");
        assert_eq!(config.submit.as_deref(), Some(Path::new("/run/ringpost/submit.sock")));
        assert_eq!(config.access.relay_to, ["example.org", ".example.net"]);
        assert_eq!(config.delivery.connections_total, 120);
        let local = config.local.expect("it has names");
        assert_eq!(local.no_at_host(), "far.example.org");
        assert_eq!((&local.locals[..], local.sessions_max), (&["mx.example.org".to_owned()][..], 20));
        assert_eq!((local.virtual_domains.len(), local.default_delivery.as_str()), (3, "./Mailbox"));
        assert_eq!(config.bounces.doublebounce_to.as_deref(), Some("ann@mx.example.org"));
        let text = said.text();
        for line in ["\"*\" = \"[192.0.2.1]\"", "\"inside.test\" = \"hub.test:2525\"", "\"mx.test\" = \"\""] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.contains("relay_to_file = \"/var/qmail/control/morercpthosts.cdb\""), "{text}");
        let untold = said.untold.join("\n");
        for word in [
            "queuelifetime: \"soon\"",
            "\"bad\" has no colon",
            "\"x.test\" has more",
            "\"no host\" is no host",
            "\"wrong\" has no colon",
            "\"*\" is no host to qmail",
            "strange",
        ] {
            assert!(untold.contains(word), "{word}: {untold}");
        }
        assert_eq!(said.untold.len(), 8, "{untold}");
    }

    #[test]
    fn an_open_relay_is_not_imported() {
        let said = translated(&[("me", "mx.example.org\n")]);
        let (access, delivery) = (&said.untold[0], &said.untold[1]);
        assert!(said.untold.len() == 2 && delivery.contains("defaultdelivery"), "{:?}", said.untold);
        assert!(access.contains("rcpthosts") && !said.text().contains("relay_to ="));
    }
}
