//! What was said and how long it took, summed up for people.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

const REASONS_MAX: usize = 100;
const OTHERS: &str = "(others)";

/// How often each reason was given. Bound: a hundred, then they are counted together.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Reasons(pub BTreeMap<String, u64>);

impl Reasons {
    pub(crate) fn add(&mut self, reason: String) {
        let is_known = self.0.contains_key(&reason);
        let reason = if is_known || self.0.len() < REASONS_MAX { reason } else { OTHERS.into() };
        *self.0.entry(reason).or_default() += 1;
    }

    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// How often a reason that begins so was given: `421` counts all of that code.
    pub fn count_of(&self, start: &str) -> u64 {
        self.0.iter().filter(|(reason, _)| reason.starts_with(start)).map(|(_, count)| count).sum()
    }
}

/// A failure as people count it: its kind.
pub(crate) fn reason_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other | io::ErrorKind::InvalidData => error.to_string(),
        kind => kind.to_string(),
    }
}

/// The smallest, the middle one and the largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub min: f64,
    pub p50: f64,
    pub max: f64,
}

impl Spread {
    /// None of nothing.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Spread { min, p50: values[values.len() / 2], max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded() {
        let mut reasons = Reasons::default();
        (0..200).for_each(|number| reasons.add(format!("421 {number}")));
        assert_eq!((reasons.0.len(), reasons.count(), reasons.0[OTHERS]), (REASONS_MAX + 1, 200, 100));
        assert_eq!(reasons.count_of("421"), 100);
    }

    #[test]
    fn a_spread_is_of_something() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0].into_iter()), Some(Spread { min: 1.0, p50: 2.0, max: 3.0 }));
        assert_eq!(Spread::of([].into_iter()), None);
    }
}
