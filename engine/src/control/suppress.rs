//! An operator's questions about the suppression list, over the control socket.
//!
//! Bounds: those of `suppression/ask` and `suppression/transfer`: one order of a connection at a time.

use super::socket::say;
use crate::clock;
use crate::crossing::Crossing;
use crate::steer::wire::Answer;
use crate::suppression::{
    Ask, Entry, EntryRow, Listed, Piece, ROWS_MAX, StatRow, Suppression, Told, Who, WhoRow, filter_of,
};
use std::io;
use std::sync::Arc;
use tokio::net::unix::OwnedWriteHalf;

pub(super) async fn attend(
    ask: Result<Ask, String>,
    uid: u32,
    crossing: &Crossing,
    writer: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let (Ok(ask), Some(suppression)) = (&ask, crossing.suppression.get()) else {
        let why = ask.err().unwrap_or_else(|| "there is no suppression list".into());
        return say(writer, &Answer::Error(why)).await;
    };
    let told = match ask {
        Ask::Add { entries } => add(suppression, uid, entries).await,
        Ask::Remove { who } => remove(suppression, uid, who).await,
        Ask::Check { who } => check(suppression, who),
        Ask::Export { list, reason } => match filter_of(list.as_deref(), *reason) {
            Err(why) => Err(why),
            Ok(filter) => match suppression.export_entries(filter, ROWS_MAX) {
                Err(refused) => Err(refused.to_string()),
                Ok(pieces) => return export(pieces, writer).await,
            },
        },
        Ask::Stat => Ok(Told::Stat(StatRow::new(&suppression.stat(), suppression.keeps_addresses))),
    };
    say(writer, &told.map_or_else(Answer::Error, Answer::Suppression)).await
}

async fn add(suppression: &Arc<Suppression>, uid: u32, rows: &[EntryRow]) -> Result<Told, String> {
    let now = clock::wall();
    let entries: Vec<Entry> = rows.iter().map(|row| row.check(now)).collect::<Result<_, _>>()?;
    let changed = suppression.add(entries).await.map_err(|refused| refused.to_string())?;
    note(uid, "put on", &changed);
    Ok(Told::Changed(changed))
}

async fn remove(suppression: &Arc<Suppression>, uid: u32, rows: &[WhoRow]) -> Result<Told, String> {
    let changed = suppression.remove(checked(rows)?).await.map_err(|refused| refused.to_string())?;
    note(uid, "taken off", &changed);
    Ok(Told::Changed(changed))
}

fn check(suppression: &Suppression, rows: &[WhoRow]) -> Result<Told, String> {
    let find = |who: Who| suppression.contains(&who).map_err(|error| error.to_string());
    let row = |listed: Listed| (listed.reason, listed.at.seconds());
    let found = checked(rows)?.into_iter().map(|who| Ok(find(who)?.map(row)));
    found.collect::<Result<_, String>>().map(Told::Found)
}

fn checked(rows: &[WhoRow]) -> Result<Vec<Who>, String> {
    rows.iter().map(WhoRow::check).collect()
}

/// For the daemon's log: how many, and not who.
fn note(uid: u32, what: &str, changed: &[bool]) {
    let count = changed.iter().filter(|changed| **changed).count();
    tracing::info!(uid, count, "entries were {what} the suppression list");
}

async fn export(
    mut pieces: tokio::sync::mpsc::Receiver<Piece>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<()> {
    while let Some(piece) = pieces.recv().await {
        let answer = match piece {
            Piece::Entries(entries) => {
                Answer::Suppression(Told::Rows(entries.iter().map(EntryRow::new).collect()))
            }
            Piece::End(exported) => {
                let (entries, damaged) = (exported.entries, exported.damaged);
                return say(writer, &Answer::Suppression(Told::Exported { entries, damaged })).await;
            }
            Piece::Failed(why) => return say(writer, &Answer::Error(why)).await,
            // Of the other kind of export.
            Piece::Lines(_) => continue,
        };
        say(writer, &answer).await?;
    }
    say(writer, &Answer::Error("the export ended early".into())).await
}
