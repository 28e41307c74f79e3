//! What follows from how a program ended that was asked about a message.

use super::Exit;
use crate::failure::is_passing;
use std::io;

/// How it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChildEnd {
    Code(i32),
    Crashed,
}

/// What `condredirect` and `bouncesaying` do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Gate {
    /// The program said yes.
    Act,
    /// It said no: the rest of the instructions is followed.
    Exit(Exit),
}

/// The answer of the program of `name`, which is `condredirect` or `bouncesaying`.
pub fn gate_of(name: &str, end: ChildEnd) -> Gate {
    match end {
        ChildEnd::Code(0) => Gate::Act,
        end => Gate::Exit(troubled(name, end).unwrap_or(Exit::silent(0))),
    }
}

/// What `except` ends with: the other way round.
pub type Except = Exit;

pub fn except_of(end: ChildEnd) -> Except {
    match end {
        ChildEnd::Code(0) => Exit::silent(100),
        end => troubled("except", end).unwrap_or(Exit::silent(0)),
    }
}

fn troubled(name: &str, end: ChildEnd) -> Option<Exit> {
    match end {
        ChildEnd::Code(111) => Some(Exit::new(111, format!("{name}: fatal: temporary child error"))),
        ChildEnd::Crashed => Some(Exit::new(111, format!("{name}: fatal: child crashed"))),
        ChildEnd::Code(_) => None,
    }
}

/// The code of a program that could not be started: 111 if it may be possible later. With qmail it is the child that
/// finds out, so to its parent it is a no.
pub fn start_failed(error: &io::Error) -> i32 {
    if is_passing(error) { 111 } else { 100 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_is_code_0_and_anything_but_trouble_is_no() {
        assert_eq!(gate_of("condredirect", ChildEnd::Code(0)), Gate::Act);
        for code in [1, 99, 100] {
            assert_eq!(gate_of("condredirect", ChildEnd::Code(code)), Gate::Exit(Exit::silent(0)));
            assert_eq!(except_of(ChildEnd::Code(code)), Exit::silent(0));
        }
        assert_eq!(except_of(ChildEnd::Code(0)), Exit::silent(100));
        let soft = Exit::new(111, "bouncesaying: fatal: temporary child error");
        assert_eq!(gate_of("bouncesaying", ChildEnd::Code(111)), Gate::Exit(soft));
        assert_eq!(except_of(ChildEnd::Crashed), Exit::new(111, "except: fatal: child crashed"));
    }

    #[test]
    fn a_program_that_is_not_there_says_no() {
        assert_eq!(start_failed(&io::Error::from_raw_os_error(2)), 100);
        assert_eq!(start_failed(&io::Error::from_raw_os_error(12)), 111);
    }
}
