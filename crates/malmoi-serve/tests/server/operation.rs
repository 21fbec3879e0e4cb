//! Probes, metrics, the OpenAPI document, keys and hosts.

use serde_json::{Value, json};

use crate::SERVER;
use crate::support::Server;

#[test]
fn probes_metrics_and_the_page_answer() {
    assert_eq!(SERVER.get("/health").json()["status"], "ok");
    assert_eq!(SERVER.get("/ready").json()["status"], "ready");
    SERVER.ok("/embed", &json!({"inputs": "카페", "model": "bert"}));
    let metrics = SERVER.get("/metrics").text();
    for name in [
        "malmoi_requests_total{route=\"/embed\",method=\"POST\",status=\"200\"}",
        "malmoi_request_duration_seconds_bucket",
        "malmoi_phase_duration_seconds_bucket",
        // How many wait depends on the other tests.
        "malmoi_queue_size{model=\"bert\"}",
        "malmoi_batch_tokens_count{model=\"bert\"}",
        "malmoi_tokens_in_total{model=\"bert\"}",
    ] {
        assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
    }
    let page = SERVER.get("/");
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("default-src 'none'; script-src 'self'")
    );
    assert_eq!(SERVER.get("/assets/../Cargo.toml").status, 404);
    let nothing = SERVER.get("/nothing");
    assert_eq!(
        (nothing.status, nothing.json()["error_type"].as_str()),
        (404, Some("not_found"))
    );
    assert_eq!(SERVER.get("/embed").status, 405);
}

#[test]
fn a_collector_is_told_of_requests_and_may_be_gone() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let collector = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let length = text
                .split_once("content-length: ")
                .and_then(|(_, rest)| rest.lines().next()?.parse::<usize>().ok());
            if let (Some(length), Some((head, body))) = (length, text.split_once("\r\n\r\n"))
                && body.len() == length
            {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                    .unwrap();
                return (head.to_owned(), body.to_owned());
            }
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "broke off: {text}");
            bytes.extend_from_slice(&buffer[..count]);
        }
    });
    let mut server = Server::start(|config, _| config.collector = Some(url.parse().unwrap()));
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("traceparent", parent),
        ("x-request-id", "abc-1"),
        ("content-type", "application/json"),
    ];
    server.send("POST", "/embed", &headers, b"{\"inputs\": \"a\"}");
    server.get("/health");
    assert_eq!(server.get("/v1/models/none").status, 404);
    // What was seen is sent before the end; the collector, gone by then, does not hold it up.
    server.signal();
    server.wait();
    let (head, body) = collector.join().unwrap();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    let sent: Value = serde_json::from_str(&body).unwrap();
    let spans = &sent["resourceSpans"][0]["scopeSpans"][0]["spans"];
    let span = &spans[0];
    assert_eq!(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(
        (&span["name"], &span["kind"]),
        (&json!("POST /embed"), &json!(2))
    );
    let attributes = span["attributes"].as_array().unwrap();
    let has = |key: &str, value: Value| attributes.contains(&json!({"key": key, "value": value}));
    assert!(
        has("malmoi.request_id", json!({"stringValue": "abc-1"})),
        "{span}"
    );
    assert!(
        has("http.response.status_code", json!({"intValue": "200"})),
        "{span}"
    );
    let time = |key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
    assert!(time("endTimeUnixNano") > time("startTimeUnixNano"));
    // Probes leave no spans.
    let names: Vec<&Value> = (spans.as_array().unwrap().iter())
        .map(|s| &s["name"])
        .collect();
    assert!(
        names
            .iter()
            .all(|name| !name.as_str().unwrap().contains("health")),
        "{names:?}"
    );
}

/// A file of `deploy/`.
fn deployed(path: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_dashboard_and_the_autoscaler_ask_for_metrics_that_exist() {
    // A request of each kind, and a refused one: families appear with their first label.
    SERVER.ok("/embed", &json!({"inputs": "카페", "model": "bert"}));
    SERVER.ok(
        "/v1/completions",
        &json!({"model": "gpt", "prompt": "a", "max_tokens": 3, "logit_bias": {"0": -100}}),
    );
    SERVER.send("GET", "/v1/models", &[("host", "evil.example")], b"");
    let metrics = SERVER.get("/metrics").text();
    let exposed: std::collections::HashSet<&str> = (metrics.lines())
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap_or_default())
        .collect();
    let files = ["compose/grafana/malmoi.json", "kubernetes/malmoi.yaml"];
    let mut asked = 0;
    for file in files {
        let text = deployed(file);
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for name in text
            .split(|c| !word(c))
            .filter(|w| w.starts_with("malmoi_"))
        {
            assert!(
                exposed.contains(name),
                "{file} asks for {name}, but there are {exposed:?}"
            );
            asked += 1;
        }
    }
    assert!(asked > 10, "{asked} names");
    // Labels as well: `sum by (…)` of a label that no sample has gives one line without a name.
    let board = deployed("compose/grafana/malmoi.json");
    for grouped in board.split("by (").skip(1) {
        let labels = grouped.split(')').next().unwrap_or_default();
        for label in labels.split(',').map(str::trim) {
            let with = format!("{label}=\"");
            assert!(metrics.contains(&with), "no sample has the label {label}");
        }
    }
}

#[test]
fn the_openapi_document_describes_every_route() {
    let document = SERVER.get("/openapi.json").json();
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/v1/models",
        "/v1/models/{model}",
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/embed",
        "/embed_all",
        "/predict",
        "/rerank",
        "/similarity",
        "/tokenize",
        "/decode",
        "/info",
        "/fill-mask",
        "/ner",
        "/qa",
        "/zero-shot",
        "/attention",
        "/next-token",
        "/health",
        "/ready",
        "/metrics",
        "/lab/models",
        "/lab/learn",
        "/lab/runs",
        "/lab/runs/{name}",
        "/lab/machine",
        "/lab/roofline",
        "/lab/live",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    // Every reference leads somewhere.
    fn check(value: &Value, document: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    let found = document.pointer(reference.trim_start_matches('#'));
                    assert!(found.is_some(), "{reference}");
                }
                map.values().for_each(|value| check(value, document));
            }
            Value::Array(list) => list.iter().for_each(|value| check(value, document)),
            _ => {}
        }
    }
    check(&document, &document);
}

#[test]
fn request_ids_come_back() {
    let answer = SERVER.send("GET", "/health", &[("x-request-id", "abc-123")], b"");
    assert_eq!(answer.header("x-request-id"), Some("abc-123"));
    assert!(SERVER.get("/nothing").header("x-request-id").is_some());
}

#[test]
fn pages_from_elsewhere_cannot_ask_a_server_on_loopback() {
    let rebound = SERVER.send("GET", "/v1/models", &[("host", "evil.example:80")], b"");
    assert_eq!(rebound.status, 403);
    assert_eq!(rebound.json()["error"]["type"], "permission_error");
    let origin = [("origin", "https://evil.example")];
    assert_eq!(SERVER.send("GET", "/health", &origin, b"").status, 403);
    // Without a JSON content type a page could post without asking first.
    let form = SERVER.send(
        "POST",
        "/embed",
        &[("content-type", "text/plain")],
        b"{\"inputs\":\"a\"}",
    );
    assert_eq!(form.status, 415);
}

#[test]
fn keys_are_asked_for_where_there_are_some() {
    let server = Server::start(|config, _| {
        config.api_keys = vec!["secret-one".into(), "secret-two".into()];
        config.limits.per_client = 1;
    });
    assert_eq!(server.get("/ready").status, 200);
    let none = server.get("/v1/models");
    assert_eq!(
        (none.status, none.json()["error"]["code"].as_str()),
        (401, Some("invalid_api_key"))
    );
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    let with = |key: &str| {
        let value = format!("Bearer {key}");
        server
            .send("GET", "/v1/models", &[("authorization", &value)], b"")
            .status
    };
    assert_eq!(
        [with("secret-two"), with("secret-tw"), with("")],
        [200, 401, 401]
    );
    assert_eq!(
        server
            .send(
                "GET",
                "/info",
                &[("authorization", "Basic secret-one")],
                b""
            )
            .status,
        401
    );
    // One at a time for each key.
    let body =
        json!({"model": "gpt", "prompt": "a", "max_tokens": 80, "temperature": 0, "stream": true});
    let headers = [
        ("authorization", "Bearer secret-one"),
        ("content-type", "application/json"),
    ];
    let request = crate::support::head(
        "POST",
        "/v1/completions",
        &headers,
        body.to_string().as_bytes(),
    );
    let mut stream = server.connect();
    std::io::Write::write_all(&mut stream, &request).unwrap();
    let mut first = [0; 16];
    std::io::Read::read_exact(&mut stream, &mut first).unwrap();
    let busy = server.send("GET", "/v1/models", &headers[..1], b"");
    // The stream may have ended already on a fast machine.
    assert!(busy.status == 429 && busy.header("retry-after").is_some() || busy.status == 200);
    assert_eq!(with("secret-two"), 200);
}
