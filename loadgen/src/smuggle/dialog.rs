//! One case on a connection of its own.
//!
//! QUIT goes right behind the content, and everything is heard until the connection ends: the replies before the last
//! one's 221 are those to the content, however many messages the server took it for. No clock decides.

use std::time::Duration;

use super::{By, Case, CaseReport, Outcome, SmuggleConfig};
use crate::client::{Caller, ClientError, Line, Reply};

/// Between segments: long enough for a server to read each by itself, nothing depends on it.
const PAUSE: Duration = Duration::from_millis(2);
const REPLIES_MAX: usize = 100;

/// An error is a server that is not there.
pub(super) async fn put(
    caller: &Caller,
    config: &SmuggleConfig,
    case: &Case,
) -> Result<CaseReport, ClientError> {
    let (outcome, replies) = match try_put(caller, config, case).await {
        Ok(replies) => judge(replies),
        Err(source) => {
            return Err(ClientError::Connect { target: caller.introduction.target.clone(), source });
        }
    };
    Ok(CaseReport {
        name: case.name.clone(),
        by: case.by,
        number: case.number,
        outcome,
        replies: replies.into_iter().map(|reply| reply.text).collect(),
        size_bytes: case.content.len() as u64,
        digest: case.digest(),
    })
}

/// What came of it.
enum Heard {
    NoChunking,
    /// To the envelope or to a chunk: no more was to be sent.
    Early(Reply),
    /// All from the content on.
    Content(Vec<Reply>),
}

async fn try_put(caller: &Caller, config: &SmuggleConfig, case: &Case) -> std::io::Result<Heard> {
    let (mut line, offers) = match caller.call(None).await? {
        Ok(called) => called,
        Err(reply) => return Ok(Heard::Early(reply)),
    };
    let chunked = matches!(case.by, By::Bdat | By::Chunks);
    if chunked && !offers.chunking {
        return Ok(Heard::NoChunking);
    }
    for command in envelope(config, case, chunked) {
        let reply = line.ask(&command).await?;
        if reply.code >= 400 {
            return Ok(Heard::Early(reply));
        }
    }
    // A server that has heard enough closes; what it said is still to be heard.
    let sent = if chunked { put_chunks(&mut line, case).await } else { put_data(&mut line, case).await };
    match sent {
        Ok(None) => line.send(b"QUIT\r\n").await.unwrap_or_default(),
        Ok(Some(refusal)) => return Ok(Heard::Early(refusal)),
        Err(_) => {}
    }
    let mut replies = Vec::new();
    while replies.len() < REPLIES_MAX {
        match line.reply().await {
            Ok(reply) => replies.push(reply),
            Err(_) => break,
        }
    }
    Ok(Heard::Content(replies))
}

fn envelope(config: &SmuggleConfig, case: &Case, chunked: bool) -> Vec<Vec<u8>> {
    let mut rcpt = b"RCPT TO:<".to_vec();
    config.recipients().write_to(&mut rcpt, case.number);
    rcpt.extend_from_slice(b">\r\n");
    let mut commands = vec![format!("MAIL FROM:<{}>\r\n", config.reverse_path).into_bytes(), rcpt];
    if !chunked {
        commands.push(b"DATA\r\n".to_vec());
    }
    commands
}

async fn put_data(line: &mut Line, case: &Case) -> std::io::Result<Option<Reply>> {
    for piece in pieces(case) {
        line.send(piece).await?;
        if !case.cuts.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(None)
}

/// All but the last are answered at once, so that what is heard later are the replies to the message. Some is the
/// refusal of one of them.
async fn put_chunks(line: &mut Line, case: &Case) -> std::io::Result<Option<Reply>> {
    let mut pieces = pieces(case).peekable();
    while let Some(piece) = pieces.next() {
        let is_last = pieces.peek().is_none();
        let mut chunk =
            format!("BDAT {}{}\r\n", piece.len(), if is_last { " LAST" } else { "" }).into_bytes();
        chunk.extend_from_slice(piece);
        line.send(&chunk).await?;
        if !is_last {
            let reply = line.reply().await?;
            if reply.code >= 400 {
                return Ok(Some(reply));
            }
        }
    }
    Ok(None)
}

fn pieces(case: &Case) -> impl Iterator<Item = &[u8]> {
    let starts = std::iter::once(0).chain(case.cuts.iter().copied());
    let ends = case.cuts.iter().copied().chain(std::iter::once(case.wire.len()));
    starts.zip(ends).map(|(start, end)| &case.wire[start..end])
}

fn judge(heard: Heard) -> (Outcome, Vec<Reply>) {
    match heard {
        Heard::NoChunking => (Outcome::Skipped, Vec::new()),
        Heard::Early(reply) => (Outcome::Refused, vec![reply]),
        Heard::Content(mut replies) => {
            if replies.last().is_some_and(|reply| reply.code == 221) {
                replies.pop();
            }
            let outcome = match &replies[..] {
                [] => Outcome::Unknown,
                [reply] if reply.code < 300 => Outcome::Accepted,
                [_] => Outcome::Refused,
                _ => Outcome::Split,
            };
            (outcome, replies)
        }
    }
}
