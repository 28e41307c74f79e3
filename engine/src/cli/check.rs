//! `ringpost check`: is the configuration right, and what does it come to?

use super::{ConfigFile, complain};
use std::process::ExitCode;

pub(super) fn run(file: &ConfigFile) -> ExitCode {
    let config = match file.load() {
        Ok(config) => config,
        Err(error) => return complain(78, &error),
    };
    if let Err(error) = config.shaping.load_providers() {
        return complain(78, &error);
    }
    if let Err(error) = crate::tls::load(&config.tls) {
        return complain(78, &error);
    }
    if let Err(error) = crate::dkim::load(&config.dkim) {
        return complain(78, &error);
    }
    if let Err(error) = config.auth.load_passwords() {
        return complain(78, &error);
    }
    match toml::to_string(&config) {
        Ok(text) => {
            print!("{text}");
            // What came from other files, in a comment, so that what is printed can be read again.
            println!("\n# {}", crate::access::Access::new(&config).summary());
            ExitCode::SUCCESS
        }
        Err(error) => complain(75, &error),
    }
}
