//! `ringpost sendmail`: what mail programs, cron and scripts call as /usr/sbin/sendmail (Q09).
//!
//! With `-t` the recipients are those of the header, and addresses among the arguments get nothing, as with Sendmail and
//! Exim. Without it they are the arguments alone. A line of a lone dot ends the message unless `-i` or `-oi` is there.
//! Exit codes are those of `sysexits(3)`; 0 says that the message is on the daemon's disk.

mod arguments;

use super::client::{self, Letter};
use super::error::SubmitError;
use super::place::{Place, Pointers};
use super::user::{User, variable};
use super::{compose, followup_lists, mailq, newaliases, read_message};
use arguments::{Arguments, Mode, USAGE};
use message::compose::{ArgumentSyntax, Injected, Letters, Options, RecipientsFrom};
use message::envelope::Recipients;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

pub use arguments::fuzz_arguments;

pub(super) fn run(words: Vec<String>) -> ExitCode {
    let arguments = match arguments::parse(words) {
        Ok(arguments) => arguments,
        Err(error) => return crate::cli::complain(error.sysexit(), &error),
    };
    let is_quiet = arguments.is_quiet;
    let done = match arguments.mode {
        Mode::Deliver => deliver(arguments),
        Mode::Speak => speak(&arguments.pointers),
        Mode::Queue => return mailq::show(&arguments.pointers),
        Mode::Aliases => return newaliases::rebuild(arguments.aliases, None, &arguments.pointers),
        Mode::Nothing => Ok(()),
        Mode::Help => {
            println!("{USAGE}");
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_quiet => ExitCode::from(error.sysexit()),
        Err(error) => crate::cli::complain(error.sysexit(), &error),
    }
}

fn deliver(arguments: Arguments) -> Result<(), SubmitError> {
    if !arguments.recipients_in_header && arguments.recipients.is_empty() {
        return Err(SubmitError::Usage(format!("no recipient is named\n{USAGE}")));
    }
    let place = Place::find(&arguments.pointers)?;
    let mut input = read_message()?;
    if !arguments.dots_are_text {
        input.truncate(len_before_dot(&input));
    }
    let injected = message_of(&arguments, &place, &input)?;
    client::submit(&place.socket, Letter { injected: &injected, dsn: &arguments.dsn }).map(drop)
}

fn message_of(arguments: &Arguments, place: &Place, input: &[u8]) -> Result<Injected, SubmitError> {
    let mut identity = User::ours().identity(true);
    identity.name = arguments.name.clone().or(identity.name);
    let options = Options {
        recipients_from: RecipientsFrom::Arguments,
        recipients: arguments.recipients.clone(),
        argument_syntax: ArgumentSyntax::List,
        sender: arguments.sender.clone(),
        letters: Letters::parse(&variable("QMAILINJECT").unwrap_or_default()),
        followup_lists: followup_lists()?,
        ..Options::default()
    };
    if !arguments.recipients_in_header {
        return compose(place, &identity, options, input);
    }
    let by_header = Options { recipients_from: RecipientsFrom::Header, ..options.clone() };
    let mut injected = compose(place, &identity, by_header, input)?;
    if !arguments.recipients.is_empty() {
        // Once more, so that the arguments are completed as the header's addresses were.
        let others = compose(place, &identity, options, b"\n")?.recipients;
        injected.recipients = without(&injected.recipients, &others);
        if injected.recipients.is_empty() {
            return Err(SubmitError::Usage("-t leaves out the arguments, and nobody else is named".into()));
        }
    }
    Ok(injected)
}

fn without(all: &Recipients, others: &Recipients) -> Recipients {
    let others: HashSet<String> = others.iter().map(|mailbox| mailbox.to_string()).collect();
    let mut left = Recipients::new();
    for mailbox in all.iter().filter(|mailbox| !others.contains(&mailbox.to_string())) {
        left.push(mailbox);
    }
    left
}

/// Octets before the first line that is a dot alone.
fn len_before_dot(input: &[u8]) -> usize {
    let mut start = 0;
    for line in input.split_inclusive(|octet| *octet == b'\n') {
        if matches!(line, b".\n" | b".\r\n" | b".") {
            break;
        }
        start += line.len();
    }
    start
}

/// `-bs`: the caller speaks SMTP itself, with the daemon. Ends when the daemon hangs up.
fn speak(pointers: &Pointers) -> Result<(), SubmitError> {
    let stream = client::connect(&Place::find(pointers)?.socket)?;
    let mut said = stream.try_clone().map_err(SubmitError::Broken)?;
    // It ends with the process if the daemon hangs up first.
    std::thread::spawn(move || forward(&mut std::io::stdin(), &mut said));
    let (mut stream, mut out) = (stream, std::io::stdout());
    let mut piece = vec![0; 16 << 10];
    loop {
        let len = stream.read(&mut piece).map_err(SubmitError::Broken)?;
        if len == 0 {
            return Ok(());
        }
        out.write_all(&piece[..len]).and_then(|()| out.flush()).map_err(SubmitError::Output)?;
    }
}

/// What the caller says; its end is said too.
fn forward(from: &mut impl Read, to: &mut UnixStream) {
    let _ = std::io::copy(from, to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use message::MailboxRef;

    #[test]
    fn a_lone_dot_ends_the_message() {
        for (input, left) in [
            ("a\n.\nb\n", "a\n"),
            ("a\r\n.\r\nb", "a\r\n"),
            ("a\n..\n.b\n", "a\n..\n.b\n"),
            (".\n", ""),
            ("a\n.", "a\n"),
            ("a.\n", "a.\n"),
        ] {
            assert_eq!(&input[..len_before_dot(input.as_bytes())], left, "{input:?}");
        }
    }

    #[test]
    fn what_is_left_out_is_compared_as_completed() {
        let list = |addresses: &[&str]| {
            let mut list = Recipients::new();
            addresses.iter().for_each(|address| list.push(MailboxRef::parse(address).unwrap()));
            list
        };
        let left = without(&list(&["ann@A.test", "bob@b.test"]), &list(&["ann@a.test", "cy@c.test"]));
        assert_eq!(left, list(&["bob@b.test"]));
    }
}
