//! Programs of users: what they are told, how long they may take, and what their exit code means.
//!
//! A program runs as `/bin/sh -c` in the user's home, with the message on its standard input and the variables of
//! [`environment`]; nothing of the message or its envelope is part of the command. Code 0 is done, 99 done and no
//! further line is read; 100 and 64 65 70 76 77 78 112 bounce; every other code, a signal, and too long a time keep
//! the message.
//!
//! Bounds: [`Limits`]; [`OUTPUT_MAX`] octets of what it says are kept, the rest is read and thrown away.

pub mod environment;
mod runner;

pub use runner::{Limits, Program, run};

use crate::failure::Failure;

/// Octets kept of what a program says, for the bounce.
pub const OUTPUT_MAX: usize = 4 << 10;

/// Whether the lines behind this one are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    GoOn,
    /// Exit code 99: the rest is not read.
    Stop,
}

/// What an exit code says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CodeClass {
    Done,
    Stop,
    Hard,
    Soft,
}

impl CodeClass {
    pub fn of(code: i32) -> CodeClass {
        match code {
            0 => CodeClass::Done,
            99 => CodeClass::Stop,
            100 | 64 | 65 | 70 | 76 | 77 | 78 | 112 => CodeClass::Hard,
            _ => CodeClass::Soft,
        }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Code(i32),
    /// A signal.
    Crashed,
    /// It was killed when its time was over.
    OutOfTime,
}

/// How a program ended, and the first of what it said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ran {
    pub end: End,
    pub output: Vec<u8>,
}

impl Ran {
    /// What that means for the delivery.
    pub fn outcome(&self) -> Result<Next, Failure> {
        let code = match self.end {
            End::Code(code) => code,
            End::Crashed => return Err(Failure::soft("Aack, child crashed. (#4.3.0)")),
            End::OutOfTime => {
                return Err(Failure::soft("The program took too long and was stopped. (#4.3.0)"));
            }
        };
        match CodeClass::of(code) {
            CodeClass::Done => Ok(Next::GoOn),
            CodeClass::Stop => Ok(Next::Stop),
            CodeClass::Hard => Err(Failure::hard(self.words(code, "#5.3.0"))),
            CodeClass::Soft => Err(Failure::soft(self.words(code, "#4.3.0"))),
        }
    }

    /// What it said is why; a program that says nothing is spoken for.
    fn words(&self, code: i32, enhanced: &str) -> String {
        let said = String::from_utf8_lossy(&self.output);
        let said = said.trim_end();
        if said.is_empty() {
            format!("The program exited with code {code}. ({enhanced})")
        } else {
            said.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Severity;

    #[test]
    fn codes_mean_what_they_mean_to_qmail() {
        for code in 0..256 {
            let want = match code {
                0 => CodeClass::Done,
                99 => CodeClass::Stop,
                64 | 65 | 70 | 76 | 77 | 78 | 100 | 112 => CodeClass::Hard,
                _ => CodeClass::Soft,
            };
            assert_eq!(CodeClass::of(code), want, "{code}");
        }
    }

    #[test]
    fn what_a_program_says_is_why() {
        let ran = |code, output: &str| Ran { end: End::Code(code), output: output.into() }.outcome();
        assert_eq!(ran(100, "No, thanks.\n"), Err(Failure::hard("No, thanks.")));
        assert_eq!(ran(111, ""), Err(Failure::soft("The program exited with code 111. (#4.3.0)")));
        assert_eq!(ran(99, "x"), Ok(Next::Stop));
        let late = Ran { end: End::OutOfTime, output: Vec::new() }.outcome().unwrap_err();
        assert_eq!(late.severity, Severity::Soft);
    }
}
