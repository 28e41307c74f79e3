//! Leaving a list: what the URL of a List-Unsubscribe field leads to (RFC 8058), for programs and for people.
//!
//! A POST of `List-Unsubscribe=One-Click` is a mailbox provider's: it is done and answered in a word. A GET changes
//! nothing, since links are followed by scanners of all kinds: it shows a page with one button, and the button POSTs. Neither needs
//! a login, a script, a cookie or a redirect. Who leaves twice is told the same twice. The token says who leaves what; it is
//! checked before anything else is done. The addresses that this is served at serve nothing else.
//!
//! Trusts no one. Bounds: [`BODY_MAX`] octets of a body, those of a listener.

use super::body::{Incoming, Room};
use super::reply::Problem;
use super::{Promise, Refused};
use crate::events::Way;
use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use message::Mailbox;
use message::unsubscribe::{UnsubscribeKey, Unsubscribed};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Octets of a body: a form with one field.
const BODY_MAX: usize = 4 << 10;

/// A client that takes longer for its form is gone.
const PATIENCE: Duration = Duration::from_secs(15);

/// Octets that all forms under way hold.
const ROOM: usize = 4 << 20;

/// What the form of the page says besides what a one-click POST says.
const FROM_PAGE: &[u8] = b"way=page";

/// When a client may try again whose wish could not be written down.
const RETRY_SECS: u16 = 10;

/// Where it is kept who left what.
pub trait Leaving: Send + Sync {
    /// Answered when it is durable: true if it was not so before.
    fn leave<'a>(
        &'a self,
        list: &'a str,
        address: &'a Mailbox,
        way: Way,
    ) -> Promise<'a, Result<bool, Refused>>;
}

/// What the handlers work with.
struct Door {
    key: UnsubscribeKey,
    leaving: Arc<dyn Leaving>,
    room: Room,
}

/// All that `unsubscribe.listen` serves. `secret` is the queue's.
pub fn router(secret: &[u8; 32], leaving: Arc<dyn Leaving>) -> Router {
    let door = Door { key: UnsubscribeKey::new(secret), leaving, room: Room::new(ROOM) };
    Router::new()
        .route("/u/{token}", get(ask).post(leave))
        .fallback(async || unknown())
        .method_not_allowed_fallback(async || {
            page(StatusCode::METHOD_NOT_ALLOWED, "Not possible", NOT_POSSIBLE)
        })
        .with_state(Arc::new(door))
}

/// An error is a path that is not UTF-8.
type Places = Result<RawPathParams, RawPathParamsRejection>;

const UNKNOWN: &str = "<p>This link is not complete, or it is not one of ours. Please copy the whole link from the \
                       message, or answer the message and ask to be taken off the list.</p>";
const NOT_POSSIBLE: &str = "<p>This is not how to leave a list. Please open the link from the message.</p>";
const LATER: &str = "<p>Your wish could not be written down just now. Please try again in a minute.</p>";

async fn ask(State(door): State<Arc<Door>>, token: Places) -> Response {
    match door.open(&token) {
        None => unknown(),
        Some(Unsubscribed { list, address }) => {
            let body = format!(
                "<p>Stop all mail from the list <strong>{}</strong> to <strong>{}</strong>?</p>\
                 <form method=\"post\"><input type=\"hidden\" name=\"List-Unsubscribe\" value=\"One-Click\">\
                 <input type=\"hidden\" name=\"way\" value=\"page\">\
                 <button type=\"submit\">Unsubscribe</button></form>",
                escaped(&list),
                escaped(address.as_str())
            );
            page(StatusCode::OK, "Unsubscribe", &body)
        }
    }
}

async fn leave(State(door): State<Arc<Door>>, token: Places, request: Request) -> Response {
    let Some(Unsubscribed { list, address }) = door.open(&token) else { return unknown() };
    let (parts, body) = request.into_parts();
    let way = match door.read(&parts.headers, body).await {
        Ok(way) => way,
        Err(problem) => return page(problem.status, "Not possible", NOT_POSSIBLE),
    };
    match door.leaving.leave(&list, &address, way).await {
        Ok(is_new) => {
            tracing::info!(list = &*list, way = way.name(), is_new, "a recipient left a list");
            let body = format!(
                "<p role=\"status\">Done: the list <strong>{}</strong> sends no more mail to <strong>{}</strong>. \
                 A message that is on its way already may still arrive.</p>",
                escaped(&list),
                escaped(address.as_str())
            );
            page(StatusCode::OK, "Unsubscribed", &body)
        }
        Err(error) => {
            tracing::warn!(%error, "a recipient's leaving could not be written down");
            let mut response = page(StatusCode::SERVICE_UNAVAILABLE, "Please try again", LATER);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_SECS));
            response
        }
    }
}

impl Door {
    fn open(&self, places: &Places) -> Option<Unsubscribed> {
        let (_, token) = places.as_ref().ok()?.iter().find(|(name, _)| *name == "token")?;
        self.key.open(token)
    }

    /// RFC 8058 §3.2: the body is `List-Unsubscribe=One-Click`, as a form of either kind. What else it may say
    /// is passed over, and so is a body that says nothing: the wish is in the URL. The form of our page says whose it is.
    async fn read(&self, headers: &HeaderMap, body: axum::body::Body) -> Result<Way, Problem> {
        let whole = Incoming::new(headers, body, PATIENCE)?.whole(BODY_MAX, &self.room).await?;
        let is_ours = whole.octets.split(|octet| *octet == b'&').any(|pair| pair == FROM_PAGE);
        Ok(if is_ours { Way::Page } else { Way::OneClick })
    }
}

fn unknown() -> Response {
    page(StatusCode::NOT_FOUND, "Not found", UNKNOWN)
}

/// Text as it stands in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(char),
        }
    }
    out
}

/// Readable on a phone and by a screen reader, in light and dark; loads nothing.
const STYLE: &str = ":root{color-scheme:light dark}\
    body{font:1.125rem/1.5 system-ui,sans-serif;max-width:34rem;margin:0 auto;padding:2rem 1.25rem;overflow-wrap:anywhere}\
    h1{font-size:1.5rem;line-height:1.25}\
    button{font:inherit;font-weight:600;width:100%;max-width:20rem;min-height:3rem;padding:.75rem 1.5rem;\
    border:2px solid #0b4f9e;border-radius:.5rem;background:#0b4f9e;color:#fff;cursor:pointer}\
    button:focus-visible{outline:3px solid #f5a800;outline-offset:3px}";

/// Nothing is loaded, nothing runs, nobody frames it, no cache keeps it, and no link out tells where it was.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; \
                      base-uri 'none'";

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let mut html = String::with_capacity(2048);
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><main><h1>{title}</h1>{body}</main></body></html>"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, html).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_token_becomes_markup() {
        assert_eq!(escaped("<b>&\"'"), "&lt;b&gt;&amp;&quot;&#39;");
    }
}
