//! The page of the web lab and its parts, which are part of the program.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::error::{ApiError, Kind};

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Files of the page, by their path below `/assets/`.
macro_rules! assets {
    ($($kind:expr => $($name:literal),+;)+) => {
        &[$($(($name, $kind, include_bytes!(concat!("../../assets/", $name)))),+),+]
    };
}

/// Path below `/assets/`, media type, contents.
const ASSETS: &[(&str, &str, &[u8])] = assets! {
    SCRIPT => "main.js", "api.js", "attention.js", "charts.js", "diagrams.js", "dom.js", "learn.js", "machine.js", "numbers.js", "playground.js",
        "prediction.js", "states.js", "tasks.js", "texts.js", "training.js";
    STYLE => "base.css", "views.css";
    "image/svg+xml" => "icon.svg";
};

/// What a page may load and do: its own files and this server, nothing inline and nothing from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The page.
pub async fn index(headers: HeaderMap) -> Response {
    let page = include_bytes!("../../assets/index.html");
    send(&headers, "text/html; charset=utf-8", page)
}

/// A part of the page.
pub async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    let found = ASSETS.iter().find(|(name, ..)| *name == path);
    match found {
        Some((_, kind, bytes)) => send(&headers, kind, bytes),
        None => ApiError::new(
            StatusCode::NOT_FOUND,
            Kind::NotFound,
            format!("the lab has no {path:?}"),
        )
        .into_response(),
    }
}

/// Browsers keep what they got and ask whether it is still right: a new program is seen at once, an old one costs no bytes.
fn send(asked: &HeaderMap, kind: &'static str, bytes: &'static [u8]) -> Response {
    let tag = tag(bytes);
    let known = asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::ETAG, tag),
        (header::CONTENT_SECURITY_POLICY, POLICY.to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, bytes).into_response()
}

/// A quoted digest of the contents.
fn tag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/assets");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let served = ASSETS.iter().any(|(path, ..)| *path == name);
            assert!(served || name == "index.html", "{name} is not served");
        }
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let bytes: &'static [u8] = b"body { margin: 0 }";
        let first = send(&HeaderMap::new(), STYLE, bytes);
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[header::CONTENT_TYPE], STYLE);
        let mut asked = HeaderMap::new();
        let tags = format!(
            "\"other\", W/{}",
            first.headers()[header::ETAG].to_str().unwrap()
        );
        asked.insert(header::IF_NONE_MATCH, tags.parse().unwrap());
        assert_eq!(
            send(&asked, STYLE, bytes).status(),
            StatusCode::NOT_MODIFIED
        );
        let changed = send(&asked, STYLE, b"body { margin: 1px }");
        assert_eq!(changed.status(), StatusCode::OK);
    }
}
