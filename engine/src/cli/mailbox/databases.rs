//! `setforward data.cdb data.tmp < INSTRUCTIONS` makes a database for `fastforward`; `printforward < data.cdb` shows one.
//!
//! The database is written as data.tmp, synced, and moved to data.cdb: who looks something up meanwhile has the old one or the
//! new, and where anything is wrong the old one stays. Bounds: [`TABLE_MAX`] octets of instructions, [`LEN_MAX`] of a
//! database.

use super::{trouble, whichever};
use local::aliases::database::install;
use local::aliases::{TABLE_MAX, source};
use local::disk::StdDisk;
use local::failure::reason;
use local::filters::Exit;
use message::cdb::{Cdb, LEN_MAX};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

pub(super) fn setforward(words: &[String]) -> Exit {
    let [database, temporary] = words else {
        return Exit::new(100, "setforward: usage: setforward data.cdb data.tmp");
    };
    whichever(input("setforward", TABLE_MAX).and_then(|text| {
        let compiled = source::compile(&text).map_err(|error| {
            Exit::new(100, format!("setforward: fatal: {error}; {database} stays as it was"))
        })?;
        let done = install(&mut StdDisk, &compiled.octets, Path::new(database), Path::new(temporary));
        done.map_err(|error| {
            let words = format!("unable to make {database} by {temporary}: {}", reason(&error));
            Exit::new(111, format!("setforward: fatal: {words}"))
        })?;
        Ok(Exit::silent(0))
    }))
}

pub(super) fn printforward() -> Exit {
    whichever(input("printforward", LEN_MAX).and_then(|octets| {
        let database = Cdb::new(octets)
            .ok_or_else(|| Exit::new(111, "printforward: fatal: this is no database, or a part of one"))?;
        let printed = source::print(&database);
        io::stdout()
            .write_all(&printed)
            .and_then(|()| io::stdout().flush())
            .map_err(|error| trouble("printforward", "unable to write output", &error))?;
        Ok(Exit::silent(0))
    }))
}

/// Standard input; one octet more than it may have, if it has more: who reads it says so.
fn input(program: &str, len_max: usize) -> Result<Vec<u8>, Exit> {
    let mut octets = Vec::new();
    io::stdin()
        .lock()
        .take(len_max as u64 + 1)
        .read_to_end(&mut octets)
        .map_err(|error| trouble(program, "unable to read input", &error))?;
    Ok(octets)
}
