//! `[keep]`: what is kept of messages besides their delivery (qmail's QUEUE_EXTRA).

use serde::{Deserialize, Serialize};

/// Copies of each message.
const ARCHIVES_MAX: usize = 8;

/// See the module.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// The delivery log has a line with each accepted message's BLAKE3.
    pub hash: bool,
    /// Addresses that get a copy of every accepted message.
    pub archive: Vec<String>,
}

impl Keep {
    /// What must hold, and what is said if it does not.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.archive.len() > ARCHIVES_MAX {
            return Err("keep.archive has more than 8 addresses".to_owned());
        }
        let wrong = self.archive.iter().find(|address| message::Mailbox::parse(address).is_err());
        wrong.map_or(Ok(()), |address| Err(format!("keep.archive: {address:?} is no mail address")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_addresses() {
        let keep = |keys: &str| toml::from_str::<Keep>(keys).unwrap().check();
        assert!(keep("archive = [\"all@example.net\"]\nhash = true").is_ok() && keep("").is_ok());
        assert!(keep("archive = [\"all\"]").unwrap_err().contains("no mail address"));
        let many = format!("archive = {:?}", ["a@b.test"; 9]);
        assert!(keep(&many).unwrap_err().contains("more than 8"));
    }
}
