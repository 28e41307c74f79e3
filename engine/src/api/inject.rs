//! `POST /api/inject/v1`: one message to the recipients of the request, as KumoMTA's clients send it.
//!
//! 200 only when the message is durable for all that `success_count` counts. Who cannot be written to is one of
//! `failed_recipients`, and `errors` says why; a request that is wrong as a whole is 4xx, and nothing of it is kept.

use super::Rejected;
use super::desk::Desk;
use super::letter::{Failed, Read};
use super::reply::{Problem, json};
use super::request::InjectRequest;
use crate::auth::Scope;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;

/// KumoMTA's words; `message` is ours.
#[derive(Debug, Default, Serialize)]
struct Reply {
    success_count: usize,
    fail_count: usize,
    failed_recipients: Vec<String>,
    errors: Vec<String>,
    /// As the delivery log and `ringpost queue` name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Of those who succeeded: how many had the message before, by its campaign.
    duplicate_count: u32,
}

pub(super) async fn inject(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Problem> {
    let opened = desk.open(request, Scope::Inject)?;
    // Before a long body is read.
    if let Err(refused) = desk.interfaces.injector.gate() {
        return Err(opened.body.refuse(refused.into()));
    }
    let client = opened.who.address;
    let (request, _held) = desk.json::<InjectRequest>(opened).await?;
    let Read { injection, places, failed } = request.read(desk.limits(), client)?;
    let count = injection.recipients.len();
    if count == 0 {
        return Ok(json(StatusCode::OK, &Reply::default().with_failed(failed)));
    }
    let injected = desk.interfaces.injector.inject(injection).await?;
    let reply = Reply {
        success_count: count - injected.rejected.len(),
        message: injected.message.map(|id| id.to_string()),
        duplicate_count: injected.duplicate,
        ..Reply::default()
    };
    let rejected = injected.rejected.into_iter().map(|Rejected { place, mailbox, what }| {
        let place = places.get(place as usize).copied().unwrap_or(place);
        Failed::new(place, mailbox.to_string(), &what)
    });
    Ok(json(StatusCode::OK, &reply.with_failed(failed.into_iter().chain(rejected))))
}

impl Reply {
    fn with_failed(mut self, failed: impl IntoIterator<Item = Failed>) -> Reply {
        for Failed { email, error } in failed {
            self.fail_count += 1;
            self.failed_recipients.push(email);
            self.errors.push(error);
        }
        self
    }
}
