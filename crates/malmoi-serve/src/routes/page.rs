//! The page of the web lab and its parts, which are part of the program.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::error::{ApiError, Kind};

/// Path below `/assets/`, media type, contents.
const ASSETS: &[(&str, &str, &[u8])] = &[];

/// What a page may load: nothing from elsewhere.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The page.
pub async fn index() -> Response {
    let page = include_bytes!("../../assets/index.html");
    send("text/html; charset=utf-8", page)
}

/// A part of the page.
pub async fn asset(Path(path): Path<String>) -> Response {
    let found = ASSETS.iter().find(|(name, ..)| *name == path);
    match found {
        Some((_, kind, bytes)) => send(kind, bytes),
        None => ApiError::new(
            StatusCode::NOT_FOUND,
            Kind::NotFound,
            format!("the lab has no {path:?}"),
        )
        .into_response(),
    }
}

fn send(kind: &'static str, bytes: &'static [u8]) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, bytes).into_response()
}
