//! What the handlers of requests have in common: the interfaces behind them, who is heard, and how a body is read.

use super::body::{Incoming, Room, Whole};
use super::gate::{Gate, Peer, Who};
use super::letter::Limits;
use super::recipients::Format;
use super::reply::Problem;
use super::request::read_json;
use super::{CampaignId, Campaigns, Injector};
use crate::auth::{Authenticator, Scope, Tokens};
use crate::config;
use crate::suppression::Suppression;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// What stands behind the requests.
#[derive(Clone)]
pub struct Interfaces {
    pub injector: Arc<dyn Injector>,
    /// `None`: no campaign is kept here.
    pub campaigns: Option<Arc<dyn Campaigns>>,
    /// `None`: there is no such list here.
    pub suppression: Option<Arc<Suppression>>,
}

/// What a reload replaces.
#[derive(Debug)]
pub struct Rules {
    pub api: config::Api,
    /// `None`: none is needed.
    pub tokens: Option<Tokens>,
    pub recipients_max: u32,
    pub message_size_max: u64,
    pub can_unsubscribe: bool,
}

impl Rules {
    /// Reads the file of tokens.
    pub fn load(config: &config::Config) -> Result<Rules, config::ConfigError> {
        let tokens = config.api.tokens_file.as_deref().map(Tokens::load).transpose()?;
        Ok(Rules { tokens, ..Rules::without_tokens(config) })
    }

    /// Opens no file: whoever needs a token is not heard.
    pub fn without_tokens(config: &config::Config) -> Rules {
        Rules {
            tokens: config.api.tokens_file.as_ref().map(|_| Tokens::default()),
            api: config.api.clone(),
            recipients_max: config.intake.recipients_max,
            message_size_max: config.intake.message_size_max,
            can_unsubscribe: config.unsubscribe.base_url.is_some(),
        }
    }
}

/// See the module.
pub struct Desk {
    pub(super) interfaces: Interfaces,
    rules: RwLock<Arc<Rules>>,
    guesses: Option<Authenticator>,
    pub(super) room: Room,
}

impl Desk {
    /// `guesses`: where wrong tokens are counted.
    pub fn new(interfaces: Interfaces, rules: Arc<Rules>, guesses: Option<Authenticator>) -> Desk {
        let room = Room::new(rules.api.memory_max);
        Desk { interfaces, rules: RwLock::new(rules), guesses, room }
    }

    /// After a reload. The bound on memory stays what it was at the start.
    pub fn configure(&self, rules: Arc<Rules>) {
        *self.rules.write() = rules;
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    pub(super) fn campaigns(&self) -> Result<&dyn Campaigns, Problem> {
        let campaigns = self.interfaces.campaigns.as_deref();
        campaigns.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no campaigns are kept here"))
    }

    pub(super) fn suppression(&self) -> Result<&Arc<Suppression>, Problem> {
        let suppression = self.interfaces.suppression.as_ref();
        suppression.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no suppression list is kept here"))
    }

    pub(super) fn limits(&self) -> Limits {
        let rules = self.rules();
        let Rules { recipients_max, message_size_max, can_unsubscribe, .. } = *rules;
        Limits { recipients_max, message_size_max, can_unsubscribe }
    }

    fn admit(&self, headers: &HeaderMap, peer: Option<Peer>, scope: Scope) -> Result<Who, Problem> {
        let rules = self.rules();
        let gate = Gate { tokens: rules.tokens.as_ref(), guesses: self.guesses.as_ref() };
        // Each connection is given its peer; without one nobody is trusted.
        let peer =
            peer.ok_or_else(|| Problem::new(StatusCode::FORBIDDEN, "where this comes from is not known"))?;
        gate.admit(peer, headers, scope)
    }

    /// Lets a request in, or refuses it with a while for its body.
    pub(super) fn open(&self, request: Request, scope: Scope) -> Result<Opened, Problem> {
        let (parts, body) = request.into_parts();
        let patience = Duration::from_secs(self.rules().api.idle_timeout_secs);
        let body = Incoming::new(&parts.headers, body, patience)?;
        match self.admit(&parts.headers, parts.extensions.get().copied(), scope) {
            Ok(who) => Ok(Opened { who, headers: parts.headers, body }),
            Err(problem) => Err(body.refuse(problem)),
        }
    }

    /// The whole body as JSON. What was read of it counts as held until the answer.
    pub(super) async fn json<T: DeserializeOwned>(&self, opened: Opened) -> Result<(T, Whole), Problem> {
        let Opened { headers, body, .. } = opened;
        if media_type(&headers) != Some("application/json") {
            let problem =
                Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json");
            return Err(body.refuse(problem));
        }
        let mut whole = body.whole(self.rules().api.body_max, &self.room).await?;
        let value = read_json(&whole.octets)?;
        whole.octets = Vec::new();
        Ok((value, whole))
    }
}

/// A request whose sender is heard.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) who: Who,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
}

impl Opened {
    /// What its list is written in.
    pub(super) fn format(&self) -> Result<Format, Problem> {
        match media_type(&self.headers) {
            Some("text/csv") => Ok(Format::Csv),
            Some("application/x-ndjson" | "application/jsonl" | "application/x-jsonlines") => {
                Ok(Format::Ndjson)
            }
            _ => {
                let what = "Content-Type must be text/csv or application/x-ndjson";
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what))
            }
        }
    }
}

/// Without parameters. `None`: none, or one that is written in another way than everybody does.
fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim())
}

/// The campaign that a request's path names.
#[derive(Debug)]
pub(super) struct Named(pub(super) CampaignId);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named, Problem> {
        let id = place(parts, state, "id").await?;
        let wrong = |error| Problem::new(StatusCode::NOT_FOUND, format!("the campaign's name: {error}"));
        CampaignId::try_from(id).map(Named).map_err(wrong)
    }
}

/// The address that a request's path names, whatever it is.
#[derive(Debug)]
pub(super) struct AddressOf(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for AddressOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<AddressOf, Problem> {
        place(parts, state, "address").await.map(AddressOf)
    }
}

/// What stands in the path at that name.
async fn place<S: Send + Sync>(parts: &mut Parts, state: &S, wanted: &str) -> Result<String, Problem> {
    let places = RawPathParams::from_request_parts(parts, state).await;
    let places = places.map_err(|error| Problem::new(StatusCode::NOT_FOUND, format!("the path: {error}")))?;
    let found = places.iter().find(|(name, _)| *name == wanted);
    Ok(found.map(|(_, value)| value.to_owned()).unwrap_or_default())
}
