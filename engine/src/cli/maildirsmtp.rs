//! `ringpost maildirsmtp DIR PREFIX HOST[:PORT]`, as serialmail's: what a Maildir has in `new/` goes to a host by SMTP, once
//! that host is there, over one connection as long as it lasts.
//!
//! The sender is the `Return-Path` that the delivery wrote on top, the recipient its `Delivered-To` without the prefix.
//! What the host takes is removed. All else stays where it is, with a line that says why, and nothing is bounced: unlike
//! serialmail's, no message leaves a mailbox because of a reply that may be about the link. Exit codes: 0 all is sent, 75
//! something stays, 78 the configuration or the command is wrong. Trusts neither host nor files. Bounds: the
//! names in `new/`; one message of `intake.message_size_max` octets under way, and one read ahead.

mod letter;

use super::{ConfigFile, complain};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::demands::{self, Candidate};
use crate::routes::{RelayHost, To, parse_relay};
use clap::Args;
use letter::Letter;
use message::{Reply, Verdict, content};
use smtp_out::{Flight, FlightPiece, Habits, Link, Offered, Output, Session, TlsClient, Transaction};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub(crate) struct MaildirSmtp {
    #[command(flatten)]
    file: ConfigFile,
    /// The Maildir.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// What stands before the recipient's address in Delivered-To.
    prefix: String,
    /// Where its mail goes: host, host:port or [IPv6]:port.
    host: String,
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
enum CourierError {
    #[error("{0:?} is no host; write host, host:port or [IPv6]:port")]
    Host(String),
    #[error("{folder}: {source}")]
    Folder { folder: String, source: io::Error },
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsFilesError),
}

pub(super) fn run(args: &MaildirSmtp) -> ExitCode {
    let sent = Courier::new(args).and_then(|courier| Ok((courier, files_in(&args.folder)?)));
    let (mut courier, files) = match sent {
        Ok(ready) => ready,
        Err(error) => return complain(78, &error),
    };
    courier.deliver(files);
    let Courier { sent, kept, .. } = courier;
    println!("{sent} messages sent, {kept} kept");
    ExitCode::from(if kept == 0 { 0 } else { 75 })
}

/// The oldest first. Names that begin with a dot are no messages.
fn files_in(folder: &Path) -> Result<VecDeque<PathBuf>, CourierError> {
    let new = folder.join("new");
    let wrong = |source| CourierError::Folder { folder: new.display().to_string(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&new).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let Ok(about) = entry.metadata() else { continue };
        if about.is_file() && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            files.push((about.modified().ok(), entry.path()));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// A message that was given to the session.
struct UnderWay {
    path: PathBuf,
    content: Vec<u8>,
}

/// Carries files to one host.
struct Courier {
    config: Config,
    prefix: String,
    host: RelayHost,
    port: u16,
    tls: Option<Arc<TlsClient>>,
    habits: Habits,
    /// Not offered yet.
    files: VecDeque<PathBuf>,
    under_way: HashMap<u32, UnderWay>,
    next_key: u32,
    sent: u64,
    kept: u64,
    is_closed: bool,
}

impl Courier {
    fn new(args: &MaildirSmtp) -> Result<Courier, CourierError> {
        let config = args.file.load()?;
        let wrong = || CourierError::Host(args.host.clone());
        let Some(To::Relay(host, port)) = parse_relay(&args.host, 25) else { return Err(wrong()) };
        let tls = crate::tls::load(&config.tls)?;
        let name = name_of(&host);
        let candidate = Candidate { name: name.as_str().into(), ..Candidate::default() };
        let by_name = demands::configured(&config.tls, &name);
        let demands = demands::decide(&config.tls, by_name, &[candidate], None);
        let policy = demands.policies.into_iter().flatten().next().unwrap_or_default();
        Ok(Courier {
            prefix: args.prefix.clone(),
            tls: tls.client(&policy),
            config,
            host,
            port,
            habits: Habits::default(),
            files: VecDeque::new(),
            under_way: HashMap::new(),
            next_key: 0,
            sent: 0,
            kept: 0,
            is_closed: false,
        })
    }

    /// A connection after the other, while they bring anything forward.
    fn deliver(&mut self, files: VecDeque<PathBuf>) {
        self.files = files;
        while !self.files.is_empty() {
            let before = (self.sent + self.kept, self.habits);
            let stream = match self.connect() {
                Ok(stream) => stream,
                Err(error) => {
                    complain(75, &format_args!("{}: {error}", name_of(&self.host)));
                    break;
                }
            };
            self.converse(stream);
            if (self.sent + self.kept, self.habits) == before {
                break;
            }
        }
        self.kept += self.files.len() as u64;
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let patience = Duration::from_secs(self.config.delivery.connect_timeout_secs.max(1));
        let addresses: Vec<SocketAddr> = match &self.host {
            RelayHost::Address(ip) => vec![(*ip, self.port).into()],
            RelayHost::Name(name) => (name.as_str(), self.port).to_socket_addrs()?.collect(),
        };
        let mut last = io::Error::new(ErrorKind::NotFound, "it has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, patience) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// One connection's life.
    fn converse(&mut self, mut stream: TcpStream) {
        let link = Link { host: name_of(&self.host).into(), tls: self.tls.clone(), ..Link::default() };
        let config = Arc::new(smtp_out::Config {
            helo: self.config.host_name.clone(),
            timeouts: smtp_out::Timeouts::default(),
            window_max: 1,
            transactions_max: 0,
        });
        let mut session = Session::new(now(), config, self.habits, link);
        self.is_closed = false;
        loop {
            self.offer(&mut session);
            if self.files.is_empty() {
                session.quit(now());
            }
            self.drain(&mut session);
            let sent = self.send(&mut session, &mut stream);
            if sent && !self.is_closed {
                continue;
            }
            if self.is_closed {
                break;
            }
            receive(&mut session, &mut stream);
            self.drain(&mut session);
        }
        self.habits = session.habits();
        // Each was answered or returned by now; whatever else became of one, its file is there.
        self.kept += self.under_way.drain().count() as u64;
    }

    fn offer(&mut self, session: &mut Session) {
        while session.capacity() > 0
            && let Some(path) = self.files.pop_front()
        {
            let letter = match self.read(&path) {
                Ok(letter) => letter,
                Err(why) => {
                    self.keep(&path, &why);
                    continue;
                }
            };
            let key = self.next_key;
            self.next_key = self.next_key.wrapping_add(1);
            let Letter { sender, recipient, content, facts } = letter;
            let transaction = Transaction {
                key,
                reverse_path: sender.on_the_wire(),
                recipients: &[recipient.as_ref()],
                content_len: content.len() as u64,
                facts,
                smtputf8: false,
                requires_tls: false,
                asked: None,
            };
            match session.offer(&transaction) {
                Offered::Taken => {
                    self.under_way.insert(key, UnderWay { path, content });
                }
                Offered::Refused(verdict, _) => {
                    self.keep(&path, &said("cannot be given it", verdict.reply()))
                }
            }
        }
    }

    fn read(&self, path: &Path) -> Result<Letter, String> {
        let len_max = self.config.intake.message_size_max;
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        file.take(len_max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > len_max {
            return Err(format!("it has more than {len_max} octets (intake.message_size_max)"));
        }
        Letter::read(&bytes, &self.prefix).map_err(|error| error.to_string())
    }

    fn drain(&mut self, session: &mut Session) {
        while let Some(output) = session.poll_output() {
            match output {
                Output::Verdict { key, verdict, .. } => self.on_verdict(key, &verdict),
                Output::Finished { key, .. } => {
                    self.under_way.remove(&key);
                }
                Output::Returned { key } => {
                    let returned = self.under_way.remove(&key).map(|under_way| under_way.path);
                    self.files.extend(returned);
                }
                Output::Closed { verdict } => {
                    self.is_closed = true;
                    if let Some((verdict, _)) = verdict {
                        let name = name_of(&self.host);
                        complain(75, &format_args!("{name}: {}", said("says", verdict.reply())));
                    }
                }
                Output::Protection(_) | Output::Ready | Output::Trace { .. } => {}
            }
        }
    }

    fn on_verdict(&mut self, key: u32, verdict: &Verdict) {
        let Some(path) = self.under_way.get(&key).map(|under_way| under_way.path.clone()) else { return };
        match verdict {
            Verdict::Delivered(_) => match std::fs::remove_file(&path) {
                Ok(()) => self.sent += 1,
                Err(error) => self.keep(&path, &format!("was sent, but cannot be removed: {error}")),
            },
            Verdict::Deferred(reply) => self.keep(&path, &said("deferred", reply)),
            Verdict::Failed(reply) => self.keep(&path, &said("refused for good", reply)),
        }
    }

    fn keep(&mut self, path: &Path, why: &str) {
        self.kept += 1;
        complain(75, &format_args!("{}: kept: {why}", path.display()));
    }

    /// Sends what is due. False: there was nothing.
    fn send(&mut self, session: &mut Session, stream: &mut TcpStream) -> bool {
        let mut flight = Flight::default();
        if self.is_closed || !session.take_flight(now(), &mut flight) {
            return false;
        }
        let mut bytes = Vec::new();
        for piece in &flight.pieces {
            match piece {
                FlightPiece::Own(range) => {
                    bytes.extend_from_slice(&flight.own[range.start as usize..range.end as usize]);
                }
                FlightPiece::Content { key, stuffed } => {
                    let whole = self.under_way.get(key).map_or(&[][..], |under_way| &under_way.content);
                    match stuffed {
                        true => bytes.extend(content::dot_stuff(whole)),
                        false => bytes.extend_from_slice(whole),
                    }
                }
            }
        }
        if session.is_sealing() && !flight.is_raw {
            let mut sealed = Vec::new();
            session.seal(&bytes, &mut sealed);
            bytes = sealed;
        }
        let _ = stream.set_write_timeout(wait_of(session));
        match stream.write_all(&bytes) {
            Ok(()) => session.handle_sent(now()),
            Err(error) => session.handle_closed(now(), &error.to_string()),
        }
        true
    }
}

/// Waits for octets, at most as long as the session waits.
fn receive(session: &mut Session, stream: &mut TcpStream) {
    let _ = stream.set_read_timeout(wait_of(session));
    let mut bytes = [0; 16 << 10];
    match stream.read(&mut bytes) {
        Ok(0) => session.handle_closed(now(), "the host closed the connection"),
        Ok(len) => session.handle_bytes(now(), &bytes[..len]),
        // Its deadline, or a signal.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
            ) => {}
        Err(error) => session.handle_closed(now(), &error.to_string()),
    }
    // A host that sends an octet now and then is not waited for longer.
    session.handle_timeout(now());
}

/// Until its deadline; a socket knows no wait of zero.
fn wait_of(session: &Session) -> Option<Duration> {
    let left = session.poll_timeout()?.saturating_duration_since(now());
    Some(left.max(Duration::from_millis(1)))
}

fn now() -> Instant {
    SystemClock.now()
}

fn name_of(host: &RelayHost) -> String {
    match host {
        RelayHost::Name(name) => name.clone(),
        RelayHost::Address(IpAddr::V4(ip)) => ip.to_string(),
        RelayHost::Address(IpAddr::V6(ip)) => ip.to_string(),
    }
}

fn said(what: &str, reply: &Reply) -> String {
    format!("{what}: {} {}", reply.code, reply.text())
}
