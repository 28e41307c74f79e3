//! Campaigns over HTTP: made, filled with recipients by the million, steered, looked at.
//!
//! A list of recipients is handed on in batches, each durable before the next is read on: constant memory, and a client
//! that sends too fast waits. Where it ends early, the answer says how many records are durable; a client may send the
//! rest, or all of it again, since nobody is in a campaign twice. Bounds: [`super::recipients`]; [`ERRORS_MAX`] errors
//! in an answer; a full log is waited for [`FULL_TRIES`] times.

use super::body::Incoming;
use super::desk::{Desk, Named};
use super::recipients::{Batch, Format, Reader, RecordError};
use super::reply::{Problem, json};
use super::request::{CampaignRequest, RateRequest};
use super::{Added, Campaign, CampaignId, Created, Order, Recipient, Refused};
use crate::auth::Scope;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Invalid records that an answer names.
const ERRORS_MAX: usize = 100;

/// How often a batch is offered to a log that is full, and how long we wait between: a commit frees its room.
const FULL_TRIES: u32 = 40;
const FULL_WAIT: Duration = Duration::from_millis(250);

/// Campaigns in one answer.
const PAGE_MAX: usize = 1000;

#[derive(Serialize)]
struct CampaignReply<'a> {
    id: &'a str,
    state: &'static str,
    created: String,
    envelope_sender: &'a str,
    list: Option<&'a str>,
    rate: Option<String>,
    /// That each recipient must bring.
    fields: &'a [Box<str>],
    recipients: u64,
    delivered: u64,
    failed: u64,
    waiting: u64,
    suppressed: u64,
    cancelled: u64,
}

impl<'a> From<&'a Campaign> for CampaignReply<'a> {
    fn from(campaign: &'a Campaign) -> CampaignReply<'a> {
        let counts = campaign.counts;
        CampaignReply {
            id: campaign.id.as_str(),
            state: campaign.phase.name(),
            created: campaign.created.rfc3339(),
            envelope_sender: &campaign.sender,
            list: campaign.list.as_ref().map(|list| list.as_str()),
            rate: campaign.rate.map(String::from),
            fields: &campaign.fields,
            recipients: counts.recipients,
            delivered: counts.delivered,
            failed: counts.failed,
            waiting: counts.waiting,
            suppressed: counts.suppressed,
            cancelled: counts.cancelled,
        }
    }
}

fn shown(status: StatusCode, campaign: &Campaign) -> Response {
    json(status, &CampaignReply::from(campaign))
}

/// `PUT /api/campaigns/{id}`: 201 if it is new, 200 if it was there already, 409 if another one has its name.
pub(super) async fn create(
    State(desk): State<Arc<Desk>>,
    Named(id): Named,
    request: Request,
) -> Result<Response, Problem> {
    let opened = desk.open(request, Scope::Campaigns)?;
    let (request, _held) = desk.json::<CampaignRequest>(opened).await?;
    let campaign = request.read(id.clone(), desk.limits())?;
    let created = desk.campaigns()?.create(id.clone(), campaign).await?;
    let status = match created {
        Created::New => StatusCode::CREATED,
        Created::Before => StatusCode::OK,
    };
    Ok(shown(status, &desk.campaigns()?.get(&id).await?))
}

/// `GET /api/campaigns/{id}`
pub(super) async fn show(
    State(desk): State<Arc<Desk>>,
    Named(id): Named,
    request: Request,
) -> Result<Response, Problem> {
    desk.open(request, Scope::Read)?;
    Ok(shown(StatusCode::OK, &desk.campaigns()?.get(&id).await?))
}

/// `DELETE /api/campaigns/{id}`: 204, or 409 if it is not over.
pub(super) async fn remove(
    State(desk): State<Arc<Desk>>,
    Named(id): Named,
    request: Request,
) -> Result<StatusCode, Problem> {
    desk.open(request, Scope::Campaigns)?;
    desk.campaigns()?.remove(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    after: Option<CampaignId>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct PageReply<'a> {
    campaigns: Vec<CampaignReply<'a>>,
    /// What `after` must say to get the next ones; not there if these were the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

/// `GET /api/campaigns?after=ID&limit=100`
pub(super) async fn list(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Problem> {
    let query = Query::<PageQuery>::try_from_uri(request.uri());
    desk.open(request, Scope::Read)?;
    let Query(PageQuery { after, limit }) =
        query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the query: {error}")))?;
    let limit = limit.unwrap_or(100);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the query: limit must be 1 to 1000"));
    }
    let campaigns = desk.campaigns()?.list(after.as_ref(), limit).await?;
    let next = campaigns.last().filter(|_| campaigns.len() == limit).map(|last| last.id.as_str());
    let reply = PageReply { campaigns: campaigns.iter().map(CampaignReply::from).collect(), next };
    Ok(json(StatusCode::OK, &reply))
}

/// `POST /api/campaigns/{id}/pause`, `resume`, `cancel` and `rate`.
pub(super) async fn order(
    State(desk): State<Arc<Desk>>,
    Named(id): Named,
    Path((_, verb)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let opened = desk.open(request, Scope::Campaigns)?;
    let order = match verb.as_str() {
        "pause" => Order::Pause,
        "resume" => Order::Resume,
        "cancel" => Order::Cancel,
        "rate" => Order::Rate(desk.json::<RateRequest>(opened).await?.0.rate),
        _ => return Err(super::router::unknown()),
    };
    Ok(shown(StatusCode::OK, &desk.campaigns()?.order(&id, order).await?))
}

/// What became of a list's records so far.
#[derive(Debug, Default, Serialize)]
struct Tally {
    /// Records that were read and are settled for good: who sends the rest begins behind them.
    durable: u64,
    added: u64,
    duplicate: u64,
    suppressed: u64,
    invalid: u64,
    /// Of the invalid ones, the first hundred.
    errors: Vec<String>,
}

impl Tally {
    fn note(&mut self, added: &Added, invalid: &[RecordError]) {
        let invalid_count = invalid.len() as u64;
        self.added += added.new;
        self.duplicate += added.duplicate;
        self.suppressed += added.suppressed.len() as u64;
        self.invalid += invalid_count;
        self.durable += added.new + added.duplicate + added.suppressed.len() as u64 + invalid_count;
        let room = ERRORS_MAX.saturating_sub(self.errors.len());
        self.errors.extend(invalid.iter().take(room).map(ToString::to_string));
    }
}

/// `POST /api/campaigns/{id}/recipients`: CSV or a JSON object a line, perhaps as gzip.
pub(super) async fn add(
    State(desk): State<Arc<Desk>>,
    Named(id): Named,
    request: Request,
) -> Result<Response, Problem> {
    let opened = desk.open(request, Scope::Campaigns)?;
    let begun = match opened.format() {
        Ok(format) => begin(&desk, &id).await.map(|(campaign, held)| (campaign, format, held)),
        Err(problem) => Err(problem),
    };
    let (campaign, format, _held) = match begun {
        Ok(begun) => begun,
        Err(problem) => return Err(opened.body.refuse(problem)),
    };
    let mut upload = Upload::new(&desk, &campaign, format);
    let mut body = opened.body;
    match upload.run(&mut body).await {
        Ok(()) => Ok(json(StatusCode::OK, &upload.tally)),
        Err(problem) => {
            body.linger();
            Err(problem.with_all(&upload.tally))
        }
    }
}

async fn begin(desk: &Desk, id: &CampaignId) -> Result<(Campaign, OwnedSemaphorePermit), Problem> {
    let held = desk.room.for_stream()?;
    Ok((desk.campaigns()?.get(id).await?, held))
}

/// A list on its way in.
struct Upload<'a> {
    desk: &'a Desk,
    campaign: &'a Campaign,
    reader: Reader,
    /// The columns have been looked at.
    is_checked: bool,
    batch: Batch,
    tally: Tally,
}

impl<'a> Upload<'a> {
    fn new(desk: &'a Desk, campaign: &'a Campaign, format: Format) -> Upload<'a> {
        let (reader, batch, tally) = (Reader::new(format), Batch::default(), Tally::default());
        Upload { desk, campaign, reader, is_checked: false, batch, tally }
    }

    /// Whatever ends it, the records before are durable.
    async fn run(&mut self, body: &mut Incoming) -> Result<(), Problem> {
        let ended = self.read(body).await;
        let flushed = self.flush().await;
        ended.and(flushed)
    }

    async fn read(&mut self, body: &mut Incoming) -> Result<(), Problem> {
        while let Some(piece) = body.next().await? {
            self.take(&piece).await?;
        }
        self.reader.finish(&mut self.batch).map_err(|error| malformed(&error))?;
        self.check_columns()
    }

    async fn take(&mut self, piece: &Bytes) -> Result<(), Problem> {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let used = self.reader.feed(rest, &mut self.batch).map_err(|error| malformed(&error))?;
            rest = &rest[used..];
            self.check_columns()?;
            if self.batch.is_full() {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// A list that lacks what the letter names would send everybody a letter with holes.
    fn check_columns(&mut self) -> Result<(), Problem> {
        let Some(columns) = self.reader.columns().filter(|_| !self.is_checked) else { return Ok(()) };
        self.is_checked = true;
        let has = |field: &str| field == "email" || columns.iter().any(|column| **column == *field);
        match self.campaign.fields.iter().find(|field| !has(field)) {
            None => Ok(()),
            Some(field) => {
                // Records that came with the header row go the same way.
                self.batch = Batch::default();
                Err(Problem::unfit(
                    "record 1 (line 1)",
                    format!(
                        "the letter names {field:?}, has no default for it, and the list has no such column"
                    ),
                ))
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Problem> {
        let mut batch = std::mem::take(&mut self.batch);
        let mut added = Added::default();
        if !batch.recipients.is_empty() {
            added = self.add(&batch.recipients).await?;
        }
        for rejected in &added.rejected {
            // A list has no member of that name: its fields are columns.
            let what = rejected.what.strip_prefix("substitutions: ").unwrap_or(&rejected.what);
            batch.reject(rejected.place as usize, what);
        }
        batch.invalid.sort_by_key(|error| error.record);
        self.tally.note(&added, &batch.invalid);
        Ok(())
    }

    /// Waits while the log is full: meanwhile nothing more is read.
    async fn add(&self, recipients: &[Recipient]) -> Result<Added, Problem> {
        let (campaigns, id) = (self.desk.campaigns()?, &self.campaign.id);
        let mut tries = 1;
        loop {
            match campaigns.add(id, recipients).await {
                Err(Refused::Full) if tries < FULL_TRIES => tokio::time::sleep(FULL_WAIT).await,
                outcome => return outcome.map_err(Problem::from),
            }
            tries += 1;
        }
    }
}

fn malformed(error: &RecordError) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
        .with("record", error.record)
        .with("line", error.line)
}
