//! `[campaigns]`: how many there may be, and how long one that is over is kept.

use super::Span;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Numbers of campaigns have 16 bits, and none is 0.
const CAMPAIGNS_MAX: u32 = 65_535;

/// Until then nothing of a campaign can be owed any more that a crash would bring back.
const KEEP_MIN: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Campaigns {
    /// Campaigns at a time, whatever they are at.
    pub campaigns_max: u32,
    /// Octets of all their letters, which are held in memory.
    pub memory_max: usize,
    /// A campaign that nobody waits for is removed so long after its last recipient or order; its name is free then, and
    /// nobody knows any more who was in it.
    pub keep: Span,
}

impl Default for Campaigns {
    fn default() -> Campaigns {
        let keep = Span::of_days(30);
        Campaigns { campaigns_max: 1000, memory_max: 256 << 20, keep }
    }
}

impl Campaigns {
    pub(super) fn check(&self) -> Result<(), String> {
        let rules = [
            (
                (1..=CAMPAIGNS_MAX).contains(&self.campaigns_max),
                "campaigns.campaigns_max must be between 1 and 65535",
            ),
            (self.memory_max >= 1 << 20, "campaigns.memory_max must be at least 1 MiB"),
            (
                self.keep.duration() >= KEEP_MIN,
                "campaigns.keep must be at least 1h: a client that lost our answer asks again meanwhile",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_checked() {
        let check = |keys: &str| toml::from_str::<Campaigns>(keys).unwrap().check();
        assert!(check("").is_ok() && check("campaigns_max = 65535\nkeep = \"1h\"").is_ok());
        assert!(check("campaigns_max = 0").unwrap_err().contains("between 1 and"));
        assert!(check("keep = \"59min\"").unwrap_err().contains("at least 1h"));
        assert!(check("memory_max = 5").unwrap_err().contains("1 MiB"));
    }
}
