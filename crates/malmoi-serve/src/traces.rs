//! A span for each request, sent to a collector of OpenTelemetry (OTLP over HTTP, in JSON:
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>). A request that names a trace (W3C `traceparent`) continues it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::str::FromStr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// Spans sent at once.
const BATCH: usize = 256;
/// Spans that may wait; more are dropped, because requests matter more than what is told of them.
const WAITING: usize = 4096;
/// Time that spans wait for others.
const PAUSE: Duration = Duration::from_secs(2);
/// Time for the collector to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a collector listens: `http://HOST[:PORT][/PATH]`, by default port 4318 and `/v1/traces`. Without TLS: a collector beside
/// the server passes spans on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Name or address with port.
    authority: String,
    /// Where spans go.
    path: String,
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let expected = || format!("{url:?}: expected http://HOST:4318 (spans go to /v1/traces)");
        let rest = url.strip_prefix("http://").ok_or_else(expected)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if host.is_empty() || url.contains(odd) {
            return Err(expected());
        }
        let has_port = |host: &str| {
            let (_, port) = host.rsplit_once(':').unwrap_or_default();
            port.parse::<u16>().is_ok()
        };
        Ok(Self {
            authority: if has_port(host) {
                host.to_owned()
            } else {
                format!("{host}:4318")
            },
            path: match path {
                "" => "/v1/traces".to_owned(),
                path => format!("/{path}"),
            },
        })
    }
}

/// The trace that a request belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    trace: u128,
    parent: Option<u64>,
}

impl Context {
    /// The trace that the headers name, else a new one; `None` when the caller does not want it recorded.
    pub fn new(headers: &HeaderMap) -> Option<Self> {
        let given = headers.get("traceparent").and_then(|h| h.to_str().ok());
        match given.and_then(parse) {
            Some((_, _, false)) => None,
            Some((trace, parent, true)) => Some(Self {
                trace,
                parent: Some(parent),
            }),
            None => Some(Self {
                trace: u128::from(unique()) << 64 | u128::from(unique()),
                parent: None,
            }),
        }
    }
}

/// Trace, span and whether it is recorded: `00-<32 digits>-<16 digits>-<2 digits>`, of which later versions may add more.
fn parse(header: &str) -> Option<(u128, u64, bool)> {
    let mut parts = header.trim().split('-');
    let mut hex = |digits: usize| {
        let part = parts.next()?;
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (part.len() == digits && part.bytes().all(lower)).then_some(part)
    };
    let version = hex(2)?;
    let trace = u128::from_str_radix(hex(32)?, 16).ok()?;
    let span = u64::from_str_radix(hex(16)?, 16).ok()?;
    let flags = u8::from_str_radix(hex(2)?, 16).ok()?;
    let whole = version != "ff" && (version != "00" || parts.next().is_none());
    (whole && trace != 0 && span != 0).then_some((trace, span, flags & 1 == 1))
}

/// A number that no other span has: a keyed hash, with a key of this process, of how many came before.
fn unique() -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    KEY.hash_one(COUNT.fetch_add(1, Ordering::Relaxed)).max(1)
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its trace.
    pub context: Context,
    /// The method.
    pub method: String,
    /// The pattern of the route.
    pub route: String,
    /// The request's id.
    pub id: String,
    /// The status.
    pub status: u16,
    /// When it came.
    pub start: SystemTime,
    /// How long it took until its answer began.
    pub took: Duration,
}

impl Span {
    fn json(&self) -> Value {
        let start = self.start.duration_since(UNIX_EPOCH).unwrap_or_default();
        let attribute = |key: &str, value: Value| json!({"key": key, "value": value});
        let mut span = json!({
            "traceId": format!("{:032x}", self.context.trace),
            "spanId": format!("{:016x}", unique()),
            "name": format!("{} {}", self.method, self.route),
            // SPAN_KIND_SERVER
            "kind": 2,
            "startTimeUnixNano": start.as_nanos().to_string(),
            "endTimeUnixNano": (start + self.took).as_nanos().to_string(),
            "attributes": [
                attribute("http.request.method", json!({"stringValue": self.method})),
                attribute("http.route", json!({"stringValue": self.route})),
                attribute("http.response.status_code", json!({"intValue": self.status.to_string()})),
                attribute("malmoi.request_id", json!({"stringValue": self.id})),
            ],
            // STATUS_CODE_ERROR is for the server's own faults.
            "status": if self.status >= 500 { json!({"code": 2}) } else { json!({}) },
        });
        if let Some(parent) = self.context.parent {
            span["parentSpanId"] = json!(format!("{parent:016x}"));
        }
        span
    }
}

fn export(spans: &[Span]) -> Value {
    let about = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    json!({"resourceSpans": [{
        "resource": {"attributes": [about("service.name", "malmoi"), about("service.version", env!("CARGO_PKG_VERSION"))]},
        "scopeSpans": [{"scope": {"name": "malmoi-serve"}, "spans": spans.iter().map(Span::json).collect::<Vec<_>>()}],
    }]})
}

enum Message {
    Span(Box<Span>),
    Flush(oneshot::Sender<()>),
}

/// The way to a collector.
#[derive(Clone, Debug)]
pub struct Traces(mpsc::Sender<Message>);

impl Traces {
    /// Starts sending; needs a running runtime.
    pub fn start(collector: Collector) -> Self {
        let (sender, messages) = mpsc::channel(WAITING);
        tokio::spawn(run(collector, messages));
        Self(sender)
    }

    /// Takes a span; drops it when too many wait.
    pub fn send(&self, span: Span) {
        let _full = self.0.try_send(Message::Span(Box::new(span)));
    }

    /// Waits until what was taken has been sent.
    pub async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        if self.0.send(Message::Flush(done)).await.is_ok() {
            let _ended = sent.await;
        }
    }
}

async fn run(collector: Collector, mut messages: mpsc::Receiver<Message>) {
    let mut spans = Vec::new();
    let mut failed = false;
    loop {
        let next = match spans.is_empty() {
            true => messages.recv().await,
            false => match tokio::time::timeout(PAUSE, messages.recv()).await {
                Ok(next) => next,
                Err(_) => {
                    send(&collector, &mut spans, &mut failed).await;
                    continue;
                }
            },
        };
        match next {
            Some(Message::Span(span)) => spans.push(*span),
            Some(Message::Flush(done)) => {
                send(&collector, &mut spans, &mut failed).await;
                let _gone = done.send(());
            }
            None => return send(&collector, &mut spans, &mut failed).await,
        }
        if spans.len() >= BATCH {
            send(&collector, &mut spans, &mut failed).await;
        }
    }
}

/// Sends spans; those that a collector does not take are lost, which is said when it begins and when it ends.
async fn send(collector: &Collector, spans: &mut Vec<Span>, failed: &mut bool) {
    if spans.is_empty() {
        return;
    }
    let body = export(spans).to_string();
    spans.clear();
    let (to, lost) = (collector.clone(), *failed);
    let posted = tokio::task::spawn_blocking(move || post(&to, &body));
    let problem = match tokio::time::timeout(PATIENCE, posted).await {
        Ok(Ok(Ok(200..=299))) => None,
        Ok(Ok(Ok(status))) => Some(format!("it answered with status {status}")),
        Ok(Ok(Err(error))) => Some(error.to_string()),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} seconds", PATIENCE.as_secs())),
    };
    *failed = problem.is_some();
    match problem {
        Some(problem) if !lost => {
            tracing::warn!(collector = collector.authority, problem, "spans are lost");
        }
        None if lost => {
            tracing::info!(collector = collector.authority, "spans arrive again");
        }
        _ => {}
    }
}

/// Posts JSON; the status of the answer.
fn post(collector: &Collector, body: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(&collector.authority)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        collector.path,
        collector.authority,
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    // `HTTP/1.1 200`
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    let status = std::str::from_utf8(&start[9..])
        .ok()
        .and_then(|s| s.parse().ok());
    status.ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_have_a_host_and_defaults() {
        let read = |url: &str| url.parse::<Collector>();
        let collector = read("http://localhost").unwrap();
        assert_eq!(collector.authority, "localhost:4318");
        assert_eq!(collector.path, "/v1/traces");
        let own = read("http://[::1]:4000/in/traces").unwrap();
        assert_eq!(
            (own.authority.as_str(), own.path.as_str()),
            ("[::1]:4000", "/in/traces")
        );
        assert_eq!(read("http://[::1]").unwrap().authority, "[::1]:4318");
        for wrong in [
            "localhost:4318",
            "https://a",
            "http://",
            "http://a b",
            "http://a\r\nb",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_trace_is_continued_or_begun() {
        let context = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", value.parse().unwrap());
            Context::new(&headers)
        };
        // The example of the W3C's recommendation.
        let given = context("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert_eq!(given.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(given.parent, Some(0xb7ad_6b71_6920_3331));
        let unwanted = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        assert_eq!(context(unwanted), None);
        for wrong in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "nonsense",
        ] {
            let begun = context(wrong).unwrap();
            assert!(begun.parent.is_none() && begun.trace != 0, "{wrong}");
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert!(context(later).unwrap().parent.is_some());
    }
}
