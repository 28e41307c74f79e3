//! `ringpost queue verify`: reads every byte of the queue's files and says where one is not as it was written.
//!
//! Changes nothing; beside a daemon that runs, a file that is just being written to may be reported: run it again.
//! Exit code 0 if all is whole, 65 (data error) if not.

use super::QueueError;
use crate::cli::grouped;
use crate::daemon::secret_of;
use crate::files::{Damage, QueueFiles};
use queue::log::Depth;
use std::io::IsTerminal as _;
use std::path::Path;

pub(super) fn verify(queue: &Path, json: bool) -> Result<(), QueueError> {
    let mut files = QueueFiles::open::<QueueError>(queue)?;
    let found = files.journals::<QueueError>()?;
    let (mut messages, mut owed) = (0u64, 0u64);
    let shows_progress = std::io::stderr().is_terminal() && !json;
    files.visit::<QueueError>(Depth::Contents, Some(&found), &mut |entry| {
        messages += 1;
        owed += entry.left.iter().map(|(_, waiting)| u64::from(waiting.span.count)).sum::<u64>();
        if shows_progress && messages.is_multiple_of(10_000) {
            eprint!("\r{} messages", grouped(messages));
        }
        Ok(())
    })?;
    if shows_progress {
        eprint!("\r");
    }
    files.damages.extend(damaged_secret(queue)?);
    let journals = &found.damaged;
    let is_whole = journals.is_empty() && files.damages.is_empty();
    if json {
        println!("{}", as_json(&files, journals, (messages, owed)));
    } else {
        print(&files, journals, (messages, owed), is_whole);
    }
    if is_whole { Ok(()) } else { Err(QueueError::Damaged) }
}

/// The secret lies beside the partitions. A queue that nobody has served yet has none.
fn damaged_secret(queue: &Path) -> Result<Option<Damage>, QueueError> {
    let path = queue.join("verp-secret");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let damage = secret_of(&bytes).err();
    Ok(damage.map(|_| Damage {
        path,
        offset: 0,
        len: bytes.len() as u64,
        what: "the secret is not whole".to_owned(),
    }))
}

fn print(files: &QueueFiles, journals: &[String], (messages, owed): (u64, u64), is_whole: bool) {
    for damage in &files.damages {
        println!("{}: {} at byte {}{}", damage.path.display(), damage.what, damage.offset, length_of(damage));
    }
    for place in journals {
        println!("{place}: what it said there is lost; some recipients may be served again");
    }
    println!(
        "{} files, {} records, {} octets read; {} messages owed to {} recipients; {}",
        grouped(files.extent.files),
        grouped(files.extent.records),
        grouped(files.extent.octets),
        grouped(messages),
        grouped(owed),
        if is_whole {
            "all whole".to_owned()
        } else {
            format!("{} damaged places", files.damages.len() + journals.len())
        }
    );
}

fn length_of(damage: &Damage) -> String {
    if damage.len == 0 { String::new() } else { format!(" ({} bytes)", grouped(damage.len)) }
}

fn as_json(files: &QueueFiles, journals: &[String], (messages, owed): (u64, u64)) -> serde_json::Value {
    let damages: Vec<_> = files
        .damages
        .iter()
        .map(|damage| {
            serde_json::json!({ "file": damage.path, "offset": damage.offset, "len": damage.len, "what": damage.what })
        })
        .collect();
    serde_json::json!({
        "files": files.extent.files, "records": files.extent.records, "octets": files.extent.octets,
        "messages": messages, "recipients_owed": owed, "damaged": damages, "damaged_journals": journals,
    })
}
