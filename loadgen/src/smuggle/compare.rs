//! What was sent against what a sink took, trace fields aside: the sink digests from the token's line on.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use super::{CaseReport, Outcome, SmuggleReport};
use crate::records::{Received, next_line, token_parts};

#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("{path}: cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}:{line}: no line of a sink's record")]
    Line { path: PathBuf, line: usize },
}

/// Something that should not be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Difference {
    /// Accepted, and has not arrived (yet).
    Missing {
        case: String,
    },
    /// Arrived with another content.
    Altered {
        case: String,
    },
    Repeated {
        case: String,
    },
    /// Refused or skipped, and arrived all the same.
    Uninvited {
        case: String,
    },
    /// Arrived, and is no message that was sent.
    Smuggled {
        token: String,
        recipient: String,
    },
}

impl SmuggleReport {
    /// What differs from what a sink recorded (`sink --audit`): nothing, if every accepted case arrived once and as it
    /// was, and nothing else did.
    pub fn compare(&self, received: &[impl AsRef<Path>]) -> Result<Vec<Difference>, CompareError> {
        let mut arrivals: HashMap<u64, Vec<u64>> = HashMap::new();
        let mut differences = Vec::new();
        for path in received {
            each_line(path.as_ref(), |line| match self.number_of(line.token) {
                Some(number) => arrivals.entry(number).or_default().push(line.digest),
                None => differences.push(Difference::Smuggled {
                    token: String::from_utf8_lossy(line.token).into_owned(),
                    recipient: String::from_utf8_lossy(line.forward_path).into_owned(),
                }),
            })?;
        }
        for case in &self.cases {
            let digests = arrivals.get(&case.number).map_or(&[][..], Vec::as_slice);
            differences.extend(case.differences(digests));
        }
        Ok(differences)
    }

    /// Of a case, if the token is of this run.
    fn number_of(&self, token: &[u8]) -> Option<u64> {
        let (run, number) = token_parts(token)?;
        let is_ours = run == self.run.as_bytes() && self.cases.iter().any(|case| case.number == number);
        is_ours.then_some(number)
    }
}

impl CaseReport {
    /// As its differences name it.
    pub fn title(&self) -> String {
        format!("{} by {:?}", self.name, self.by)
    }

    fn differences(&self, digests: &[u64]) -> Vec<Difference> {
        let case = self.title();
        let is_altered = digests.iter().any(|digest| *digest != self.digest);
        match (self.outcome, digests.len()) {
            (Outcome::Refused | Outcome::Skipped | Outcome::Unknown, 0) => Vec::new(),
            (Outcome::Refused | Outcome::Skipped, _) => vec![Difference::Uninvited { case }],
            (_, 0) => vec![Difference::Missing { case }],
            _ if is_altered => vec![Difference::Altered { case }],
            (_, 1) => Vec::new(),
            _ => vec![Difference::Repeated { case }],
        }
    }
}

fn each_line(path: &Path, mut take: impl FnMut(Received<'_>)) -> Result<(), CompareError> {
    let fail = |source| CompareError::Read { path: path.to_owned(), source };
    let mut lines = BufReader::new(File::open(path).map_err(fail)?);
    let (mut line, mut number) = (Vec::new(), 0);
    while next_line(&mut lines, &mut line).map_err(fail)? {
        number += 1;
        let parsed = Received::parse(&line);
        take(parsed.ok_or_else(|| CompareError::Line { path: path.to_owned(), line: number })?);
    }
    Ok(())
}
