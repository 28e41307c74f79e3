//! `[local]`: which addresses are this machine's mailboxes, and how mail gets there. Read by the daemon, which sends it on,
//! and by `ringpost local` and `ringpost launch`, which deliver it.

use local::maildir::quota::Quota;
use local::virtual_domains::Domains;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// For what a delivery does besides its programs.
pub const DELIVERY_BESIDES: Duration = Duration::from_secs(300);

const SESSIONS_MAX: usize = 1000;
const PROGRAM_MAX_SECS: u64 = 24 * 3600;

/// Less, and not even a shell begins.
const PROGRAM_MEMORY_MIN: u64 = 16 << 20;

/// See the module.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Local {
    /// Hosts whose mailboxes are here (qmail's locals).
    pub locals: Vec<String>,
    /// Lines of qmail's virtualdomains: `domain:word`, `user@domain:word`, `.domain:word`, `:word` for all the rest. An empty
    /// word: elsewhere, after all.
    pub virtual_domains: Vec<String>,
    /// qmail's users/assign: whose a local part is. Who is not in it is looked for in the system's password file.
    pub assign: Option<PathBuf>,
    /// Who gets what is nobody's, by the files of this user's home: `.qmail-postmaster`, `.qmail-default`.
    pub alias_user: String,
    /// Instructions for who has none.
    pub default_delivery: String,
    /// qmail's envnoathost: the host of an address that has none in `.qmail` and `.forward` files, in tables of aliases, and
    /// among the words of `forward` and `condredirect`. A host that is there stays as it is. Default: `host_name`.
    pub no_at_host: Option<String>,
    /// Where the two processes and their callers meet. Default: `local.sock` and `launch.sock` in `[supervise] run`.
    pub socket: Option<PathBuf>,
    pub launcher: Option<PathBuf>,
    /// Messages being delivered at a time; each may be a process of its recipient's.
    pub sessions_max: usize,
    /// A program that takes longer is stopped, and the message waits; so do all programs of one delivery that take five
    /// minutes longer together.
    pub program_secs: u64,
    /// Octets of address space of each process of a program. None: no limit.
    pub program_memory_max: Option<u64>,
    /// Programs may open connections to the net. Else `ringpost launch` and all that it starts have Unix sockets alone.
    pub programs_connect: bool,
    /// A Maildir without a quota of its own (a `maildirsize`) has this one, such as `100000000S,10000C`. None: none.
    pub quota: Option<String>,
    /// What they amount to.
    #[serde(skip)]
    pub domains: Arc<Domains>,
    #[serde(skip)]
    host_name: String,
    #[serde(skip)]
    run: PathBuf,
}

impl Default for Local {
    fn default() -> Local {
        Local {
            locals: Vec::new(),
            virtual_domains: Vec::new(),
            assign: None,
            alias_user: "alias".to_owned(),
            default_delivery: "./Maildir/".to_owned(),
            no_at_host: None,
            socket: None,
            launcher: None,
            sessions_max: 40,
            program_secs: 3600,
            program_memory_max: None,
            programs_connect: false,
            quota: None,
            domains: Arc::default(),
            host_name: String::new(),
            run: PathBuf::new(),
        }
    }
}

impl Local {
    /// Where the daemon hands mail over.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.run.join("local.sock"))
    }

    /// Where a recipient's process is asked for.
    pub fn launcher(&self) -> PathBuf {
        self.launcher.clone().unwrap_or_else(|| self.run.join("launch.sock"))
    }

    /// The longest that one recipient's delivery takes, programs and all; what takes longer is stopped.
    pub fn delivery_max(&self) -> Duration {
        Duration::from_secs(self.program_secs) + DELIVERY_BESIDES
    }

    /// What the parts have to agree on takes a restart: a reload goes on with what the start had.
    pub fn keep_of_start(&mut self, start: &Local) {
        (self.sessions_max, self.program_secs) = (start.sessions_max, start.program_secs);
    }

    /// Completes an address that has no host.
    pub fn no_at_host(&self) -> &str {
        self.no_at_host.as_deref().unwrap_or(&self.host_name)
    }

    /// Works out what the lists amount to.
    pub(super) fn settle(&mut self, host_name: &str, run: &Path) -> Result<(), String> {
        let words = |list: &[String]| list.to_vec();
        let (locals, virtuals) = (words(&self.locals), words(&self.virtual_domains));
        self.host_name = host_name.to_owned();
        let domains = Domains::new(self.no_at_host())
            .with_locals(locals.iter().map(String::as_str))
            .and_then(|domains| domains.with_virtuals(virtuals.iter().map(String::as_str)))
            .map_err(|error| format!("local.virtual_domains: {error}"))?;
        (self.domains, self.run) = (Arc::new(domains), run.to_owned());
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let wrong = self.locals.iter().find(|host| message::Domain::parse(host).is_err());
        if let Some(host) = wrong {
            return Err(format!("local.locals: {host:?} is no host name"));
        }
        let wrong = self.no_at_host.iter().find(|host| message::Domain::parse(host).is_err());
        if let Some(host) = wrong {
            return Err(format!("local.no_at_host: {host:?} is no host name"));
        }
        let memory = self.program_memory_max.unwrap_or(PROGRAM_MEMORY_MIN);
        let quota = self.quota.as_deref().map(Quota::parse);
        let rules = [
            (
                !(self.locals.is_empty() && self.virtual_domains.is_empty()),
                "locals and virtual_domains are empty: no address would be local",
            ),
            (!self.alias_user.is_empty(), "alias_user is empty: name the user whose files are for the rest"),
            (!self.default_delivery.is_empty(), "default_delivery is empty: write ./Maildir/ or ./Mailbox"),
            ((1..=SESSIONS_MAX).contains(&self.sessions_max), "sessions_max must be 1 to 1000"),
            ((1..=PROGRAM_MAX_SECS).contains(&self.program_secs), "program_secs must be 1 to 86400"),
            (memory >= PROGRAM_MEMORY_MIN, "program_memory_max must be at least 16777216 (16 MiB)"),
            (quota.is_none_or(|quota| quota.is_some()), "quota is a limit such as 100000000S or 10000C"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(format!("local.{what}")))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    fn error(local: &str) -> String {
        let text = format!("host_name = \"h.test\"\nqueue = \"q\"\n[local]\n{local}");
        parse(&text, "ringpost.toml").unwrap_err().to_string()
    }

    #[test]
    fn wrong_settings_say_what_to_do() {
        assert!(error("").contains("no address would be local"));
        assert!(error("locals = [\"a b\"]").contains("is no host name"));
        assert!(error("locals = [\"a.test\"]\nno_at_host = \"a b\"").contains("local.no_at_host: \"a b\""));
        assert!(error("virtual_domains = [\"a.test\"]").contains("domain:word"));
        assert!(error("locals = [\"a.test\"]\nprogram_memory_max = 5").contains("16 MiB"));
        assert!(error("locals = [\"a.test\"]\nsessions_max = 0").contains("1 to 1000"));
        assert!(error("locals = [\"a.test\"]\nquota = \"much\"").contains("is a limit such as"));
    }

    #[test]
    fn who_has_no_host_gets_ours_unless_another_is_named() {
        let text = "host_name = \"h.test\"\nqueue = \"q\"\n[local]\nlocals = [\"a.test\"]\n";
        let settled = |text: &str| parse(text, "f").unwrap().local.unwrap();
        assert_eq!(settled(text).no_at_host(), "h.test");
        let named = settled(&format!("{text}no_at_host = \"b.test\""));
        let place = local::virtual_domains::Place::Remote { address: "ann@b.test".into() };
        assert_eq!((named.no_at_host(), named.domains.place_of("ann")), ("b.test", place));
    }

    #[test]
    fn sockets_are_where_the_supervisor_makes_them_unless_they_are_named() {
        let text = "host_name = \"h.test\"\nqueue = \"q\"\n[local]\nlocals = [\"a.test\"]\n";
        let local = parse(text, "f").unwrap().local.unwrap();
        assert_eq!(local.socket().to_str(), Some("/run/ringpost/local.sock"));
        let submit = |text: &str| parse(text, "f").unwrap().submit;
        assert_eq!(submit(text).unwrap().to_str(), Some("/run/ringpost/submit.sock"));
        assert_eq!(submit("host_name = \"h.test\"\nqueue = \"q\"\n"), None);
        let local = parse(&format!("{text}launcher = \"/l\"\n[supervise]\nrun = \"/r\""), "f")
            .unwrap()
            .local
            .unwrap();
        assert_eq!((local.socket().to_str(), local.launcher().to_str()), (Some("/r/local.sock"), Some("/l")));
    }
}
