//! What every request passes: identity, who may ask, bounds, time, and an answer in the right shape whatever happens.

use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::{FutureExt, StreamExt};
use subtle::ConstantTimeEq;
use tracing::Instrument;

use crate::error::{ApiError, Kind};
use crate::listener::Client;
use crate::metrics::{Finished, Route};
use crate::routes;
use crate::state::{App, ClientId};
use crate::traces::{Context, Span};
use crate::worker::panic_text;

/// The header of request ids.
const REQUEST_ID: &str = "x-request-id";

/// Routes that answer without a key and while draining: probes and what describes the server.
const OPEN: [&str; 3] = ["/health", "/ready", "/metrics"];

/// The outermost layer.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(request.headers());
    let path = request.uri().path().to_owned();
    let method = request.method().to_string();
    let route = pattern(&path);
    let traced = match app.traces() {
        Some(_) if !OPEN.contains(&path.as_str()) => Context::new(request.headers()),
        _ => None,
    };
    let arrived = SystemTime::now();
    let span =
        tracing::info_span!("request", id = %id.to_str().unwrap_or_default(), %method, %path);
    let response = inside(&app, request, next, &path)
        .instrument(span.clone())
        .await;
    let mut response = match response.extensions().get::<ApiError>() {
        Some(error) if path.starts_with("/v1") => error.response(&path),
        _ => response,
    };
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.clone());
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let status = response.status().as_u16();
    let elapsed = start.elapsed();
    if let (Some(traces), Some(context)) = (app.traces(), traced) {
        traces.send(Span {
            context,
            method: method.clone(),
            route: route.clone(),
            id: id.to_str().unwrap_or_default().to_owned(),
            status,
            start: arrived,
            took: elapsed,
        });
    }
    let finished = Finished {
        route: route.clone(),
        method,
        status,
    };
    app.metrics().requests.get_or_create(&finished).inc();
    app.metrics().finished.inc();
    let duration = app.metrics().duration.get_or_create(&Route { route });
    duration.observe(elapsed.as_secs_f64());
    let milliseconds = elapsed.as_secs_f64() * 1e3;
    span.in_scope(|| match status {
        500.. => tracing::warn!(status, milliseconds, "answered"),
        _ => tracing::info!(status, milliseconds, "answered"),
    });
    response
}

async fn inside(app: &App, request: Request, next: Next, path: &str) -> Response {
    if let Err(error) = check_host(app, request.headers()) {
        app.metrics().rejected("host");
        return error.into_response();
    }
    let open = OPEN.contains(&path) || is_page(path);
    let client = match check_key(app, &request, open) {
        Ok(client) => client,
        Err(error) => {
            app.metrics().rejected("key");
            return error.into_response();
        }
    };
    if OPEN.contains(&path) {
        return next.run(request).await;
    }
    if app.is_draining() {
        app.metrics().rejected("draining");
        return App::going_away().into_response();
    }
    let at_work = match app.enter(client) {
        Ok(at_work) => at_work,
        Err(error) => return error.into_response(),
    };
    let limit = app.config().limits.request_time;
    let answer = AssertUnwindSafe(tokio::time::timeout(limit, next.run(request))).catch_unwind();
    let response = match answer.await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            let message = format!(
                "no answer within {} seconds: ask for less at once",
                limit.as_secs()
            );
            return ApiError::new(StatusCode::GATEWAY_TIMEOUT, Kind::Timeout, message)
                .into_response();
        }
        Err(panic) => {
            tracing::error!(panic = panic_text(&*panic), "a route panicked");
            return ApiError::internal().into_response();
        }
    };
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| kind != "text/event-stream") {
        return response;
    }
    // A stream counts as at work until its end.
    response.map(|body| {
        let stream = body.into_data_stream();
        Body::from_stream(stream.inspect(move |_| {
            let _until_the_end = &at_work;
        }))
    })
}

/// The client's id where it can be repeated in a header and a log, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let given = headers.get(REQUEST_ID).filter(|id| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        (1..=128).contains(&id.len()) && id.as_bytes().iter().all(plain)
    });
    given.cloned().unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanoseconds = now.map_or(0, |now| now.as_nanos() as u64);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let text = format!("{nanoseconds:016x}-{number:x}");
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0"))
    })
}

/// The pattern of the route that a path belongs to, as the OpenAPI document has it.
fn pattern(path: &str) -> String {
    static PATTERNS: OnceLock<Vec<String>> = OnceLock::new();
    let patterns = PATTERNS.get_or_init(|| {
        let mut all: Vec<String> = routes::openapi().paths.paths.into_keys().collect();
        all.extend([
            "/".to_owned(),
            "/openapi.json".to_owned(),
            "/assets/{path}".to_owned(),
        ]);
        all
    });
    let fits = |pattern: &&String| match pattern.split_once('{') {
        Some((before, _)) => path.len() > before.len() && path.starts_with(before),
        None => *pattern == path,
    };
    patterns
        .iter()
        .find(fits)
        .cloned()
        .unwrap_or_else(|| "other".to_owned())
}

/// Whether a path is part of the lab's page, which a browser loads without a key.
fn is_page(path: &str) -> bool {
    path == "/" || path.starts_with("/assets/") || path == "/favicon.ico"
}

/// A page from elsewhere must not speak to a server on this machine through the browser, also not by giving its own name this
/// machine's address (DNS rebinding): on loopback the names that the request addresses and comes from must be loopback's.
fn check_host(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let config = app.config();
    if !config.host.is_loopback() && config.allowed_hosts.is_empty() {
        return Ok(());
    }
    let allowed = |host: &str| {
        let name = without_port(host);
        is_loopback_name(name)
            || (config.allowed_hosts.iter()).any(|known| known.eq_ignore_ascii_case(name))
    };
    let refuse = |what: &str, found: &str| {
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            Kind::Permission,
            format!(
                "the {what} {found:?} is not this server's: expected localhost or 127.0.0.1, or a name given with --allow-host"
            ),
        ))
    };
    let host = headers.get(header::HOST).map(|host| host.to_str());
    match host {
        Some(Ok(host)) if allowed(host) => {}
        Some(Ok(host)) => return refuse("host", host),
        Some(Err(_)) => return refuse("host", "?"),
        None => return refuse("host", ""),
    }
    match headers.get(header::ORIGIN).map(|origin| origin.to_str()) {
        None => Ok(()),
        Some(Ok(origin)) => {
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            match allowed(host) {
                true => Ok(()),
                false => refuse("origin", origin),
            }
        }
        Some(Err(_)) => refuse("origin", "?"),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // An IPv6 address without port has colons, but ends with a bracket.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_loopback_name(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Who asks; an error for a missing or wrong key.
fn check_key(app: &App, request: &Request, open: bool) -> Result<ClientId, ApiError> {
    let address = request.extensions().get::<ConnectInfo<Client>>();
    let address = address.map_or(Ipv4Addr::UNSPECIFIED.into(), |info| info.0.0.ip());
    let keys = &app.config().api_keys;
    if keys.is_empty() || open {
        return Ok(ClientId::Address(address));
    }
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given
        .and_then(|value| value.to_str().ok())
        .and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
    // Every key is compared whole, so that time tells nothing but their lengths.
    let mut found = None;
    for (at, key) in keys.iter().enumerate() {
        let given = given.unwrap_or_default().as_bytes();
        if bool::from(key.as_bytes().ct_eq(given)) {
            found = Some(ClientId::Key(at));
        }
    }
    found.ok_or_else(|| {
        let message = match given {
            None => "no API key: send the header `authorization: Bearer KEY`",
            Some(_) => "the API key is not known",
        };
        ApiError::new(StatusCode::UNAUTHORIZED, Kind::Authentication, message)
            .with_code("invalid_api_key")
    })
}

/// No route has this path.
pub async fn not_found(request: Request) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        Kind::NotFound,
        format!(
            "there is nothing at {}: /openapi.json lists the routes",
            request.uri().path()
        ),
    )
}

/// The path has a route, but not for this method.
pub async fn wrong_method(request: Request) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Kind::Validation,
        format!(
            "{} does not work at {}: /openapi.json lists the methods",
            request.method(),
            request.uri().path()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_loopback_names_reach_a_loopback_server() {
        let app = App::new(Config::default());
        let ok = |host, origin| check_host(&app, &headers(host, origin)).is_ok();
        assert!(ok("localhost:8080", None) && ok("127.0.0.1:1", None) && ok("[::1]:8080", None));
        assert!(ok("localhost", Some("http://localhost:3000")));
        assert!(!ok("evil.example:8080", None) && !ok("localhost.evil.example", None));
        assert!(!ok("localhost:8080", Some("https://evil.example")));
        assert!(!ok("localhost:8080", Some("null")));
        assert!(check_host(&app, &HeaderMap::new()).is_err());
    }

    #[test]
    fn named_hosts_are_allowed_and_public_addresses_are_not_checked() {
        let named = App::new(Config {
            allowed_hosts: vec!["lab.example".into()],
            ..Config::default()
        });
        let ok = |app, host| check_host(app, &headers(host, None)).is_ok();
        assert!(ok(&named, "Lab.Example:8080") && !ok(&named, "other.example"));
        let public = App::new(Config {
            host: [0, 0, 0, 0].into(),
            ..Config::default()
        });
        assert!(ok(&public, "anything.example"));
    }

    #[test]
    fn paths_belong_to_patterns() {
        assert_eq!(pattern("/v1/models"), "/v1/models");
        assert_eq!(pattern("/v1/models/a"), "/v1/models/{model}");
        assert_eq!(pattern("/wp-login.php"), "other");
    }

    #[test]
    fn odd_request_ids_are_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, "abc-1".parse().unwrap());
        assert_eq!(request_id(&headers), "abc-1");
        headers.insert(
            REQUEST_ID,
            "a b\u{7f}".replace('\u{7f}', "").parse().unwrap(),
        );
        assert_ne!(request_id(&headers), "a b");
    }
}
