//! A host that speaks SMTP or LMTP in lock-step, offers what a test wants and keeps every word.
//!
//! `late…` is told to come again and `bad…` that there is no such user; everybody else gets what comes.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tests::process::wait;

/// A message as it was taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    /// From `FROM:` on.
    pub(crate) mail: String,
    /// From `TO:` on; of the accepted.
    pub(crate) rcpts: Vec<String>,
    /// Lines end in LF; dots are not doubled.
    pub(crate) content: String,
}

/// See the module.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl Host {
    pub(crate) fn start(offers: &'static [&'static str]) -> Host {
        Host::start_on("127.0.0.1:0", offers)
    }

    /// Its threads end with the test.
    pub(crate) fn start_on(address: &str, offers: &'static [&'static str]) -> Host {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let taken = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || serve(&stream, offers, &kept));
            }
        });
        Host { address, taken }
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All that it took, once those are so many.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Taken> {
        wait::until(&format!("{count} messages"), Duration::from_secs(60), || self.taken().len() >= count);
        self.taken()
    }
}

/// One connection. An error is its end.
fn serve(stream: &TcpStream, offers: &[&str], kept: &Mutex<Vec<Taken>>) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let say = |text: String| (&mut &*stream).write_all(text.as_bytes());
    say("220 host.test\r\n".to_owned())?;
    let (mut is_lmtp, mut open) = (false, Taken::default());
    while let Some(line) = lines.next() {
        let line = line?;
        let verb = line.get(..4).unwrap_or("").to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" | "LHLO" => {
                is_lmtp = verb == "LHLO";
                let offers: String = offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
                say(format!("250-host.test\r\n{offers}250 SIZE\r\n"))?;
            }
            "MAIL" => {
                open = Taken { mail: line[5..].to_owned(), ..Taken::default() };
                say("250 2.1.0 Ok\r\n".to_owned())?;
            }
            "RCPT" => say(rcpt(&line[5..], &mut open))?,
            "DATA" if open.rcpts.is_empty() => say("554 5.5.1 No valid recipients\r\n".to_owned())?,
            "DATA" => {
                say("354 Go on\r\n".to_owned())?;
                for line in lines.by_ref() {
                    let line = line?;
                    if line == "." {
                        break;
                    }
                    open.content += line.strip_prefix('.').unwrap_or(&line);
                    open.content.push('\n');
                }
                let replies = if is_lmtp { open.rcpts.len() } else { 1 };
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut open));
                say("250 2.6.0 Taken\r\n".repeat(replies))?;
            }
            "QUIT" => return say("221 2.0.0 Bye\r\n".to_owned()),
            _ => say("250 2.0.0 Ok\r\n".to_owned())?,
        }
    }
    Ok(())
}

fn rcpt(argument: &str, open: &mut Taken) -> String {
    match argument {
        _ if argument.starts_with("TO:<late") => "450 4.2.1 Come again\r\n".to_owned(),
        _ if argument.starts_with("TO:<bad") => "550 5.1.1 No such user\r\n".to_owned(),
        _ => {
            open.rcpts.push(argument.to_owned());
            "250 2.1.5 Ok\r\n".to_owned()
        }
    }
}
