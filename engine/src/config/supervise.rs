//! `[supervise]`: the users that the parts run as when root starts them, and where their sockets are.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// See the module.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Supervise {
    /// Folder of the sockets between the parts. Made if it is not there.
    pub run: PathBuf,
    /// Takes mail in, keeps it and sends it out. The queue is its alone.
    pub engine_user: String,
    /// Takes mail for mailboxes from the engine and asks for the recipient's process.
    pub local_user: String,
    /// Answers POP3 clients and checks their passwords.
    pub pop3_user: String,
    /// Parts give up what they do not need: programs, files, system calls. Off only to find out what is in the way.
    pub confine: bool,
}

impl Default for Supervise {
    fn default() -> Supervise {
        Supervise {
            run: "/run/ringpost".into(),
            engine_user: "ringpost".to_owned(),
            local_user: "ringpost-local".to_owned(),
            pop3_user: "ringpost-pop3".to_owned(),
            confine: true,
        }
    }
}
