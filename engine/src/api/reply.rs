//! What a client is told: JSON, with a status that says whose turn it is.
//!
//! An error is `{"error": "recipients[17].email: …"}`, with further members where they help to go on. Nothing of a body
//! and no token is ever said back but the address, field or line that is wrong.

use super::Refused;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

/// When a client whose mail was not taken may come again: a commit has been made by then, or a second look at the disk.
const RETRY_SECS: u32 = 10;

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    what: String,
    retry_after_secs: Option<u32>,
    more: Map<String, Value>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, what: impl Into<String>) -> Problem {
        Problem { status, what: what.into(), retry_after_secs: None, more: Map::new() }
    }

    /// 422: `place` is where it stands in the request.
    pub(super) fn unfit(place: &str, what: impl std::fmt::Display) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{place}: {what}"))
    }

    #[must_use]
    pub(super) fn retry_after(self, secs: u32) -> Problem {
        Problem { retry_after_secs: Some(secs), ..self }
    }

    /// Another member beside `error`.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// All members of an object beside `error`.
    #[must_use]
    pub(super) fn with_all(mut self, object: &impl Serialize) -> Problem {
        if let Ok(Value::Object(members)) = serde_json::to_value(object) {
            self.more.extend(members);
        }
        self
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        let what = refused.to_string();
        match refused {
            Refused::Full => Problem::new(StatusCode::TOO_MANY_REQUESTS, what).retry_after(RETRY_SECS),
            Refused::Broken => Problem::new(StatusCode::SERVICE_UNAVAILABLE, what).retry_after(RETRY_SECS),
            Refused::Unknown(_) => Problem::new(StatusCode::NOT_FOUND, what),
            Refused::Conflict(_) => Problem::new(StatusCode::CONFLICT, what),
            Refused::Unfit { .. } => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, what),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem { status, what, retry_after_secs, more } = self;
        let mut object = Map::from_iter([("error".to_owned(), Value::from(what))]);
        object.extend(more);
        let mut response = json(status, &object);
        let headers = response.headers_mut();
        if let Some(secs) = retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"ringpost\""));
        }
        response
    }
}

/// A JSON document as a reply.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a reply cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
