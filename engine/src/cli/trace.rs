//! `ringpost trace`: the SMTP dialogues with a domain's hosts, line by line, until the reader has seen enough.
//!
//! What is shown is what the domain's connections do; where domains share a site its connections are theirs too. Lines
//! that come faster than they are read are lost and counted.

use super::look;
use super::queue::{Daemon, QueueError};
use super::{ConfigFile, complain, grouped};
use crate::look::ask::{Look, domain_of};
use crate::look::trace::TraceLine;
use crate::look::view::View;
use clap::Args;
use message::UnixMillis;
use std::io::{self, Write as _};
use std::process::ExitCode;

#[derive(Args, Debug)]
pub(crate) struct Trace {
    #[command(flatten)]
    file: ConfigFile,
    /// The domain whose mail is watched.
    #[arg(value_name = "DOMAIN")]
    domain: String,
    /// One JSON object per line on standard output.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Trace) -> ExitCode {
    match domain_of(&args.domain) {
        Ok(domain) => look::run(&args.file, |daemon| watch(daemon, domain, args.json)),
        Err(why) => complain(64, &why),
    }
}

fn watch(mut daemon: Daemon, domain: String, json: bool) -> Result<(), QueueError> {
    let View::Tracing(domain) = daemon.look(&Look::Trace { domain })? else { return Err(look::surprise()) };
    eprintln!("ringpost: watching {domain}; Ctrl-C ends");
    loop {
        match daemon.next_traced()? {
            Ok(line) if json => {
                let line = serde_json::to_string(&line).map_err(io::Error::other)?;
                writeln!(io::stdout(), "{line}")?;
            }
            Ok(line) => writeln!(io::stdout(), "{}", rendered(&line))?,
            Err(lost) => eprintln!("ringpost: {} lines came too fast and are not shown", grouped(lost)),
        }
    }
}

/// Time, core and connection, host, whose words, text.
fn rendered(line: &TraceLine) -> String {
    let TraceLine { at_ms, core, connection, host, direction, text } = line;
    format!("{}  {core}.{connection}  {host}  {} {text}", UnixMillis(*at_ms).rfc3339(), direction.arrow())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::trace::Direction;

    #[test]
    fn line_says_when_where_and_who() {
        let line = |direction| TraceLine {
            at_ms: 951_782_400_007,
            core: 1,
            connection: 17,
            host: "mx.a.test[192.0.2.1:25]".into(),
            direction,
            text: "QUIT".into(),
        };
        let start = "2000-02-29T00:00:00.007Z  1.17  mx.a.test[192.0.2.1:25]";
        for (direction, arrow) in
            [(Direction::Sent, "->"), (Direction::Received, "<-"), (Direction::Note, "--")]
        {
            assert_eq!(rendered(&line(direction)), format!("{start}  {arrow} QUIT"));
        }
    }
}
