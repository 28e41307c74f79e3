//! The suppression list over HTTP: looked at, changed one by one, taken in and given out as a whole (B24).
//!
//! Every answer that says that something was changed says that it is durable. Lines that come in and go out are those of
//! [`crate::suppression::Import`] and its export, in pieces: constant memory. Bounds: those of a body, and of exports at a time.

use super::Refused;
use super::desk::{AddressOf, Desk, Opened};
use super::recipients::Format;
use super::reply::{Problem, json};
use crate::auth::Scope;
use crate::clock;
use crate::suppression::{
    Defaults, Entry, Filter, Import, Listed, Piece, Reason, Suppression, Who, filter_of,
};
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;

type Denied = crate::suppression::Refused;

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Refused {
        match denied {
            Denied::Busy | Denied::TooLong => Refused::Full,
            Denied::Stopping => Refused::Broken,
            Denied::Set(error) => {
                tracing::error!(%error, "changing the suppression list");
                Refused::Broken
            }
        }
    }
}

/// Of which list. Not said: of all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[serde(default)]
    list: String,
}

/// What is given out, or what lines are that do not say it themselves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WholeQuery {
    list: Option<String>,
    reason: Option<Reason>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EntryRequest {
    list: String,
    reason: Option<Reason>,
}

/// One entry.
#[derive(Debug, Serialize)]
struct EntryReply<'a> {
    address: &'a str,
    /// Empty: for all lists.
    list: &'a str,
    reason: Reason,
    since: String,
}

impl<'a> EntryReply<'a> {
    fn new(who: &'a Who, Listed { reason, at }: Listed) -> EntryReply<'a> {
        EntryReply { address: who.address.as_str(), list: &who.list, reason, since: at.rfc3339() }
    }
}

#[derive(Debug, Default, Serialize)]
struct ImportReply {
    new: u64,
    known: u64,
    invalid: u64,
    /// Of the invalid lines, the first.
    errors: Vec<String>,
}

fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let query = Query::try_from_uri(uri);
    query
        .map(|Query(query)| query)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the query: {error}")))
}

fn who(list: &str, address: &str) -> Result<Who, Problem> {
    Who::parse(list, address).map_err(|what| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, what))
}

fn nobody() -> Problem {
    Refused::Unknown("entry").into()
}

/// `GET /api/suppressions/{address}?list=NAME`: that very entry.
pub(super) async fn find(
    State(desk): State<Arc<Desk>>,
    AddressOf(address): AddressOf,
    request: Request,
) -> Result<Response, Problem> {
    let asked = query::<ListQuery>(request.uri());
    desk.open(request, Scope::Suppress)?;
    let who = who(&asked?.list, &address)?;
    let listed = look(desk.suppression()?, who.clone()).await?.ok_or_else(nobody)?;
    Ok(json(StatusCode::OK, &EntryReply::new(&who, listed)))
}

/// May wait for the disk: on a thread that may.
async fn look(suppression: &Arc<Suppression>, who: Who) -> Result<Option<Listed>, Problem> {
    let suppression = Arc::clone(suppression);
    let found = tokio::task::spawn_blocking(move || suppression.book().find(&who)).await;
    match found {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::error!(%error, "reading the suppression list");
            Err(Refused::Broken.into())
        }
        Err(_) => Err(Refused::Broken.into()),
    }
}

/// `PUT /api/suppressions/{address}`: 201 if he was not on it. Who is on it stays as he is.
pub(super) async fn put(
    State(desk): State<Arc<Desk>>,
    AddressOf(address): AddressOf,
    request: Request,
) -> Result<Response, Problem> {
    let opened = desk.open(request, Scope::Suppress)?;
    let (EntryRequest { list, reason }, _held) = desk.json(opened).await?;
    let who = who(&list, &address)?;
    let entry = Entry { who: who.clone(), reason: reason.unwrap_or(Reason::Manual), at: clock::wall() };
    let suppression = desk.suppression()?;
    let changed = suppression.add(vec![entry]).await.map_err(Refused::from)?;
    let status = if changed == [true] { StatusCode::CREATED } else { StatusCode::OK };
    let listed = look(suppression, who.clone()).await?.ok_or_else(nobody)?;
    Ok(json(status, &EntryReply::new(&who, listed)))
}

/// `DELETE /api/suppressions/{address}?list=NAME`
pub(super) async fn remove(
    State(desk): State<Arc<Desk>>,
    AddressOf(address): AddressOf,
    request: Request,
) -> Result<Response, Problem> {
    let asked = query::<ListQuery>(request.uri());
    desk.open(request, Scope::Suppress)?;
    let who = who(&asked?.list, &address)?;
    let removed = desk.suppression()?.remove(vec![who]).await.map_err(Refused::from)?;
    if removed == [true] { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(nobody()) }
}

/// `POST /api/suppressions?list=NAME&reason=REASON`: lines of CSV, each taken in or told to be wrong.
pub(super) async fn import(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Problem> {
    let asked = query::<WholeQuery>(request.uri());
    let opened = desk.open(request, Scope::Suppress)?;
    let begun = begin_import(&opened, asked);
    let mut import = match begun {
        Ok(import) => import,
        Err(problem) => return Err(opened.body.refuse(problem)),
    };
    let _held = desk.room.for_stream()?;
    let (mut body, mut reply) = (opened.body, ImportReply::default());
    let ended = take_in(desk.suppression()?, &mut body, &mut import, &mut reply).await;
    (reply.invalid, reply.errors) = (import.wrong, import.said);
    match ended {
        Ok(()) => Ok(json(StatusCode::OK, &reply)),
        Err(problem) => {
            body.linger();
            Err(problem.with_all(&reply))
        }
    }
}

fn begin_import(opened: &Opened, asked: Result<WholeQuery, Problem>) -> Result<Import, Problem> {
    let WholeQuery { list, reason } = asked?;
    if opened.format()? != Format::Csv {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be text/csv"));
    }
    let list = list.unwrap_or_default();
    let list = message::list_id(&list).ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "the query: list is no id of a list (RFC 2919)")
    })?;
    Ok(Import::new(Defaults { list, reason: reason.unwrap_or(Reason::Import), at: clock::wall() }))
}

async fn take_in(
    suppression: &Suppression,
    body: &mut super::body::Incoming,
    import: &mut Import,
    reply: &mut ImportReply,
) -> Result<(), Problem> {
    loop {
        let piece = body.next().await?;
        let done = suppression.import_lines(import, piece.as_deref()).await.map_err(Refused::from)?;
        (reply.new, reply.known) = (reply.new + done.new, reply.known + done.known);
        if piece.is_none() {
            return Ok(());
        }
    }
}

/// `GET /api/suppressions?list=NAME&reason=REASON`: the list as CSV. One that ends early has no proper end.
pub(super) async fn export(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Problem> {
    let asked = query::<WholeQuery>(request.uri());
    desk.open(request, Scope::Suppress)?;
    let WholeQuery { list, reason } = asked?;
    let filter: Filter = filter_of(list.as_deref(), reason)
        .map_err(|what| Problem::new(StatusCode::BAD_REQUEST, format!("the query: {what}")))?;
    let suppression = desk.suppression()?;
    if !suppression.keeps_addresses {
        let what = "addresses are not kept, only their hashes (suppression.keep_addresses)";
        return Err(Problem::new(StatusCode::CONFLICT, what));
    }
    let pieces = suppression.export(filter).map_err(Refused::from)?;
    let body = Body::from_stream(stream::unfold(Some(pieces), next_piece));
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "text/csv; charset=utf-8")], body).into_response())
}

type Next = Option<(Result<Bytes, std::io::Error>, Option<Receiver<Piece>>)>;

/// `None` as a state: it has ended.
async fn next_piece(pieces: Option<Receiver<Piece>>) -> Next {
    let mut pieces = pieces?;
    match pieces.recv().await {
        Some(Piece::Lines(lines)) => Some((Ok(Bytes::from(lines)), Some(pieces))),
        Some(Piece::End(exported)) if exported.damaged == 0 => None,
        Some(Piece::End(exported)) => {
            tracing::error!(
                places = exported.damaged,
                "the suppression list is damaged; an export lacks entries"
            );
            Some((Err(std::io::ErrorKind::InvalidData.into()), None))
        }
        Some(Piece::Failed(error)) => {
            tracing::error!(error, "an export of the suppression list ended early");
            Some((Err(std::io::ErrorKind::Other.into()), None))
        }
        // Entries are for others.
        Some(Piece::Entries(_)) | None => Some((Err(std::io::ErrorKind::UnexpectedEof.into()), None)),
    }
}
