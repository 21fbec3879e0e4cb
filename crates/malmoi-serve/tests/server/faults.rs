//! What clients do wrong, and what happens to a server: each is answered or dropped as documented, and the next request works.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::SERVER;
use crate::support::{Server, head, read_answer};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// A request for a text, as bytes.
fn completion(body: &serde_json::Value) -> Vec<u8> {
    let body = body.to_string();
    head("POST", "/v1/completions", &JSON, body.as_bytes())
}

fn works(server: &Server) {
    let body = json!({"inputs": "카페", "model": "bert"});
    assert_eq!(server.post("/embed", &body).status, 200);
}

#[test]
fn broken_bodies_are_said_to_be_broken() {
    let post = |body: &[u8]| SERVER.send("POST", "/embed", &JSON, body);
    assert_eq!(post(b"{\"inputs\": ").status, 400);
    let invalid = post(b"{\"inputs\": \"\xff\xfe\"}");
    assert_eq!(invalid.status, 400);
    assert!(
        invalid.text().contains("UTF-8 from byte 12"),
        "{}",
        invalid.text()
    );
    assert_eq!(post(b"{\"input\": \"a\"}").status, 422);
    assert_eq!(post(b"").status, 400);
    let deep = format!("{{\"inputs\": {}", "[".repeat(100_000));
    assert!([400, 422].contains(&post(deep.as_bytes()).status));
    let unknown = SERVER.post("/fill-mask", &json!({"text": "[MASK]", "topk": 3}));
    assert!(unknown.status == 422 && unknown.text().contains("topk"));
    works(&SERVER);
}

#[test]
fn large_bodies_and_long_texts_are_refused() {
    let length = 50 << 20;
    let announced = format!(
        "POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut stream = SERVER.connect();
    stream.write_all(announced.as_bytes()).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    // The same without saying so beforehand.
    let mut stream = SERVER.connect();
    stream
        .write_all(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    let piece = format!("10000\r\n{}\r\n", "a".repeat(65_536));
    for _ in 0..(length >> 16) {
        if stream.write_all(piece.as_bytes()).is_err() {
            break;
        }
    }
    let answer = read_answer(&mut stream);
    assert!(answer.status == 413 || answer.status == 0, "{answer:?}");
    let text = "가 ".repeat(50_000);
    let long = SERVER.post("/embed", &json!({"inputs": text, "model": "bert"}));
    assert_eq!(long.status, 422);
    let cut = SERVER.post(
        "/embed",
        &json!({"inputs": text, "model": "bert", "truncate": true}),
    );
    assert_eq!(cut.status, 200);
    let longer = SERVER.post(
        "/embed",
        &json!({"inputs": "a".repeat(300_000), "model": "bert", "truncate": true}),
    );
    assert!(
        longer.status == 422 && longer.text().contains("characters"),
        "{}",
        longer.text()
    );
    let many = SERVER.post(
        "/embed",
        &json!({"inputs": vec!["a"; 300], "model": "bert"}),
    );
    assert_eq!(many.status, 422);
    works(&SERVER);
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    // A busy time that would last for long.
    let body = json!({"model": "gpt", "prompt": "a", "max_tokens": 90, "n": 30, "stream": true, "seed": 1, "logit_bias": {"0": -100}});
    let request = completion(&body);
    let mut stream = SERVER.connect();
    stream.write_all(&request).unwrap();
    let mut first = [0; 64];
    stream.read_exact(&mut first).unwrap();
    drop(stream);
    let start = Instant::now();
    loop {
        let live = SERVER.get("/lab/live").json();
        let gpt = live["models"][0].clone();
        if gpt["active"] == 0 && gpt["queued"] == 0 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{gpt}");
        std::thread::sleep(Duration::from_millis(20));
    }
    works(&SERVER);
}

#[test]
fn a_client_that_leaves_before_its_answer_frees_its_place() {
    let server = Server::start(|_, _| {});
    let idle = || {
        let live = server.get("/lab/live").json();
        live["models"][0]["active"] == 0 && live["models"][0]["queued"] == 0
    };
    let until = |wanted: bool| {
        let start = Instant::now();
        while idle() != wanted {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "idle: {}",
                idle()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    // Long enough to be seen at work: 30 texts of 90 tokens, and texts that wait behind them.
    let body = json!({"model": "gpt", "prompt": "a", "max_tokens": 90, "n": 60, "seed": 1, "logit_bias": {"0": -100}});
    let request = completion(&body);
    let mut stream = server.connect();
    stream.write_all(&request).unwrap();
    until(false);
    drop(stream);
    let start = Instant::now();
    until(true);
    // Given up, not written to its end.
    let alone = Instant::now();
    let freed = start.elapsed();
    server.ok("/v1/completions", &body);
    assert!(freed < alone.elapsed(), "{freed:?} to be given up");
    works(&server);
}

#[test]
fn unknown_models_and_wrong_keys_are_refused() {
    let server = Server::start(|config, _| config.api_keys = vec!["secret".into()]);
    let ask = |key: &str, path: &str, body: serde_json::Value| {
        let key = format!("Bearer {key}");
        let headers = [JSON[0], ("authorization", &key)];
        server.send("POST", path, &headers, body.to_string().as_bytes())
    };
    let body = |model: &str| json!({"model": model, "prompt": "a", "max_tokens": 2});
    let unknown = ask("secret", "/v1/completions", body("gtp"));
    assert_eq!(
        (unknown.status, unknown.json()["error"]["code"].as_str()),
        (404, Some("model_not_found"))
    );
    assert!(unknown.text().contains("gpt"), "the served ones are named");
    let unknown = ask(
        "secret",
        "/embed",
        json!({"model": "brt", "inputs": "카페"}),
    );
    assert_eq!(
        (unknown.status, unknown.json()["error_type"].as_str()),
        (404, Some("not_found"))
    );
    let wrong = ask("secre", "/v1/completions", body("gpt"));
    assert_eq!(
        (wrong.status, wrong.json()["error"]["code"].as_str()),
        (401, Some("invalid_api_key"))
    );
    let wrong = ask(
        "secret2",
        "/embed",
        json!({"model": "bert", "inputs": "카페"}),
    );
    assert_eq!(
        (wrong.status, wrong.json()["error_type"].as_str()),
        (401, Some("authentication"))
    );
    assert_eq!(ask("secret", "/v1/completions", body("gpt")).status, 200);
}

#[test]
fn slow_heads_and_slow_bodies_are_cut_off() {
    let server = Server::start(|config, _| {
        config.limits.head_time = Duration::from_millis(600);
        config.limits.body_time = Duration::from_millis(600);
    });
    // A head that trickles.
    let mut stream = server.connect();
    stream.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
    let start = Instant::now();
    let mut closed = false;
    while !closed && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(150));
        closed = stream.write_all(b"x-a: b\r\n").is_err();
    }
    assert!(closed, "a slow head was waited for");
    // A body that does not come.
    let mut stream = server.connect();
    stream
        .write_all(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{\"in")
        .unwrap();
    assert_eq!(read_answer(&mut stream).status, 408);
    // A connection that says nothing.
    let mut stream = server.connect();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    works(&server);
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let server = Server::start(|config, _| {
        config.limits.queue = 2;
        config.limits.rows = 1;
    });
    let body = json!({"model": "gpt", "prompt": "a", "max_tokens": 90, "temperature": 0, "logit_bias": {"0": -100}});
    let statuses: Vec<(u16, bool)> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..24)
            .map(|_| {
                scope.spawn(|| {
                    let answer = server.post("/v1/completions", &body);
                    (answer.status, answer.header("retry-after").is_some())
                })
            })
            .collect();
        asked
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        statuses
            .iter()
            .all(|&(status, later)| status == 200 || status == 429 && later),
        "{statuses:?}"
    );
    assert!(statuses.iter().any(|&(status, _)| status == 200));
    assert!(
        statuses.iter().any(|&(status, _)| status == 429),
        "{statuses:?}"
    );
    works(&server);
}

#[test]
fn a_signal_lets_streams_end_and_takes_nothing_new() {
    let mut server = Server::start(|_, _| {});
    let body = json!({"model": "gpt", "prompt": "a", "max_tokens": 90, "stream": true, "seed": 1, "logit_bias": {"0": -100}});
    let request = completion(&body);
    let mut stream = server.connect();
    stream.write_all(&request).unwrap();
    let mut first = [0; 64];
    stream.read_exact(&mut first).unwrap();
    server.signal();
    let rest = read_to_end(&mut stream);
    assert!(rest.contains("[DONE]"), "{rest}");
    server.wait();
    assert!(std::net::TcpStream::connect(server.address).is_err());
}

#[test]
fn a_signal_under_load_ends_what_has_begun_and_refuses_the_rest() {
    let mut server = Server::start(|config, _| config.limits.rows = 4);
    let address = server.address;
    let body = json!({"model": "gpt", "prompt": "a", "max_tokens": 60, "seed": 1, "logit_bias": {"0": -100}});
    let request = completion(&body);
    let vectors = json!({"inputs": "카페", "model": "bert"}).to_string();
    let vectors = head("POST", "/embed", &JSON, vectors.as_bytes());
    let send = |request: &[u8]| -> std::io::Result<u16> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(request)?;
        Ok(read_answer(&mut stream).status)
    };
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..12)
            .map(|client| {
                let request = if client % 2 == 0 { &request } else { &vectors };
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    // Until connections are accepted no more.
                    while let Ok(status) = send(request) {
                        seen.push(status);
                        if status == 0 {
                            break;
                        }
                    }
                    seen
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        server.signal();
        server.wait();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    let count = |wanted: u16| statuses.iter().filter(|&&status| status == wanted).count();
    assert!(count(200) >= 12, "{statuses:?}");
    // 503 while it ends, 0 for a connection that waited in the system's queue: each client sees one of them at most.
    assert_eq!(
        count(200) + count(503) + count(0),
        statuses.len(),
        "{statuses:?}"
    );
    assert!(count(0) <= 12, "{statuses:?}");
    // The next one at this place works.
    let next = Server::start(|config, _| config.port = address.port());
    works(&next);
}

fn read_to_end(stream: &mut std::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn work_that_takes_too_long_is_given_up() {
    let server = Server::start(|config, _| {
        config.limits.request_time = Duration::from_millis(1);
    });
    let body = json!({"model": "gpt", "prompt": "a", "max_tokens": 90, "n": 8, "temperature": 0});
    let answer = server.post("/v1/completions", &body);
    assert_eq!(
        (answer.status, answer.json()["error"]["type"].as_str()),
        (504, Some("server_error"))
    );
}
