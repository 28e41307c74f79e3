//! `[retry]`: when deferred mail is tried again, and for how long.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    pub schedule: RetrySchedule,
    /// With `quadratic`: attempt n is due at birth + n² × this.
    pub quadratic_secs: u64,
    /// With `list`: the waits between attempts; the last one repeats.
    pub list_secs: Vec<u64>,
    /// With `exponential`: the first wait, what each is multiplied by, the longest, and the part of itself by which
    /// a wait may be shorter or longer.
    pub first_secs: u64,
    pub factor: f64,
    pub max_secs: u64,
    pub jitter: f64,
    /// At this age one last attempt is made.
    pub lifetime_secs: u64,
    /// From this age on, a failed attempt is told to the sender, once. 0: never.
    pub warn_after_secs: u64,
}

/// `retry.schedule`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RetrySchedule {
    Quadratic,
    List,
    Exponential,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            schedule: RetrySchedule::Quadratic,
            quadratic_secs: 400,
            list_secs: Vec::new(),
            first_secs: 60,
            factor: 2.0,
            max_secs: 4 * 3600,
            jitter: 0.1,
            lifetime_secs: 7 * 24 * 3600,
            warn_after_secs: 0,
        }
    }
}

impl Retry {
    /// What must hold, and what is said if it does not. A key of another schedule than the chosen one is a
    /// mistake that would otherwise be noticed when mail is late.
    pub(super) fn rules(&self) -> [(bool, &'static str); 9] {
        let is = |schedule| self.schedule == schedule;
        let usual = Retry::default();
        let is_usual_curve = (self.first_secs, self.max_secs) == (usual.first_secs, usual.max_secs)
            && self.factor.to_bits() == usual.factor.to_bits()
            && self.jitter.to_bits() == usual.jitter.to_bits();
        [
            (self.quadratic_secs > 0, "retry.quadratic_secs must be at least 1"),
            (
                !is(RetrySchedule::List) || !self.list_secs.is_empty(),
                "retry.schedule is \"list\": write the waits into retry.list_secs, such as [300, 900, 3600]",
            ),
            (
                is(RetrySchedule::List) || self.list_secs.is_empty(),
                "retry.list_secs is used by no other schedule: write retry.schedule = \"list\" or remove it",
            ),
            (self.list_secs.iter().all(|secs| *secs > 0), "retry.list_secs: each wait must be at least 1"),
            (
                is(RetrySchedule::Exponential) || is_usual_curve,
                "retry.first_secs, factor, max_secs and jitter are used by no other schedule: write \
                 retry.schedule = \"exponential\" or remove them",
            ),
            (
                (1..=self.max_secs).contains(&self.first_secs),
                "retry.first_secs must be at least 1 and at most retry.max_secs",
            ),
            ((1.0..=100.0).contains(&self.factor), "retry.factor must be 1.0 to 100.0"),
            ((0.0..=0.5).contains(&self.jitter), "retry.jitter must be 0.0 to 0.5"),
            (
                self.warn_after_secs == 0 || self.warn_after_secs < self.lifetime_secs,
                "retry.warn_after_secs must be below retry.lifetime_secs, where the bounce is; 0 turns warnings off",
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn retry(keys: &str) -> Result<Retry, String> {
        let text = format!("host_name = \"h.test\"\nqueue = \"q\"\n[retry]\n{keys}");
        parse(&text, "ringpost.toml").map(|config| config.retry).map_err(|error| error.to_string())
    }

    #[test]
    fn retry_schedules_are_read() {
        let shown = toml::to_string(&retry("").unwrap()).unwrap();
        assert!(retry(&shown).is_ok(), "what `check` prints can be used: {shown}");
        assert_eq!(retry("quadratic_secs = 7\nlifetime_secs = 99").unwrap().quadratic_secs, 7);
        assert_eq!(retry("schedule = \"list\"\nlist_secs = [60, 600]").unwrap().list_secs, [60, 600]);
        let keys = "schedule = \"exponential\"\nfirst_secs = 30\nfactor = 3\nmax_secs = 7200\njitter = 0.5";
        assert_eq!(retry(keys).unwrap().schedule, RetrySchedule::Exponential);
    }

    #[test]
    fn wrong_retry_schedules_name_the_key_and_what_to_write() {
        for (keys, said) in [
            ("schedule = \"cubic\"", "ringpost.toml:4: schedule: unknown variant `cubic`, expected one of"),
            ("schedule = \"list\"", "write the waits into retry.list_secs"),
            ("list_secs = [60]", "write retry.schedule = \"list\" or remove it"),
            ("schedule = \"list\"\nlist_secs = [60, 0]", "retry.list_secs: each wait must be at least 1"),
            ("jitter = 0.2", "write retry.schedule = \"exponential\" or remove them"),
            ("schedule = \"exponential\"\nfirst_secs = 0", "retry.first_secs must be at least 1"),
            ("schedule = \"exponential\"\nfirst_secs = 20\nmax_secs = 10", "at most retry.max_secs"),
            ("schedule = \"exponential\"\nfactor = 0.5", "retry.factor must be 1.0 to 100.0"),
            ("schedule = \"exponential\"\nfactor = nan", "retry.factor must be 1.0 to 100.0"),
            ("schedule = \"exponential\"\njitter = 0.6", "retry.jitter must be 0.0 to 0.5"),
            ("warn_after_secs = 700000", "retry.warn_after_secs must be below retry.lifetime_secs"),
            ("warn_after_sec = 60", "did you mean \"warn_after_secs\"?"),
        ] {
            let error = retry(keys).unwrap_err();
            assert!(error.contains(said), "{keys}: {error}");
        }
    }
}
