//! `ringpost access`: which rule would a client meet, and what would it be allowed?
//!
//! Read from the configuration as it is now; a daemon that runs knows it since its last reload. Nothing is looked up.

use super::{ConfigFile, complain};
use crate::access::{Access, Ask};
use clap::Args;
use smtp_in::door::Origin;
use std::net::IpAddr;
use std::process::ExitCode;

#[derive(Args, Debug)]
pub(crate) struct AccessArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "uid", conflicts_with = "uid")]
    address: Option<IpAddr>,
    /// Or a process of this machine, by the Unix socket: its user's number.
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// The client's name by reverse look-up; empty: it has none.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The name that it logged in by.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The listener. Default: the first one.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// A recipient: would it be taken?
    #[arg(long, value_name = "MAILBOX")]
    recipient: Option<String>,
}

pub(super) fn run(args: &AccessArgs) -> ExitCode {
    let config = match args.file.load() {
        Ok(config) => config,
        Err(error) => return complain(78, &error),
    };
    let access = Access::new(&config);
    match access.explain(&args.ask(), crate::clock::now(), crate::control::dns::is_local) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(what) => complain(64, &what),
    }
}

impl AccessArgs {
    fn ask(&self) -> Ask {
        let origin = match (self.address, self.uid) {
            (None, Some(uid)) => Origin::Local { uid },
            // clap lets none go by without one of them.
            (address, _) => {
                let address = address.unwrap_or(IpAddr::from([127, 0, 0, 1])).to_canonical();
                Origin::Net { address, port: 0 }
            }
        };
        Ask {
            origin,
            name: self.name.clone(),
            user: self.user.clone(),
            listener: self.listener.clone(),
            recipient: self.recipient.clone(),
        }
    }
}
