//! Which request goes where.

use super::desk::Desk;
use super::reply::Problem;
use super::{campaigns, inject, suppressions};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::sync::Arc;

/// What the API is, for programs that are told by it. Open to all: it tells no more than the source does.
const OPENAPI: &str = include_str!("openapi.json");

/// All that `api.listen` serves.
pub fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/api/inject/v1", post(inject::inject))
        .route("/api/campaigns", get(campaigns::list))
        .route("/api/campaigns/{id}", get(campaigns::show).put(campaigns::create).delete(campaigns::remove))
        .route("/api/campaigns/{id}/recipients", post(campaigns::add))
        .route("/api/campaigns/{id}/{verb}", post(campaigns::order))
        .route("/api/suppressions", get(suppressions::export).post(suppressions::import))
        .route(
            "/api/suppressions/{address}",
            get(suppressions::find).put(suppressions::put).delete(suppressions::remove),
        )
        .route("/openapi.json", get(openapi))
        .fallback(async || unknown())
        .method_not_allowed_fallback(async || wrong_method())
        .with_state(desk)
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

pub(super) fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing here; GET /openapi.json says what there is")
}

fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this is not done to it; GET /openapi.json says what is")
}
