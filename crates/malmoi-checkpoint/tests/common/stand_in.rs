//! A hub on the loopback interface: answers as a model hub does, misbehaves on request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the stand-in serves and how.
#[derive(Default, Clone)]
pub struct Content {
    /// Name of the only model.
    pub model: String,
    /// Commit of every branch.
    pub commit: String,
    /// Files of the model.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Files served from another address after a redirect, as large files are.
    pub large: Vec<String>,
    /// Token without which the model's page answers 401.
    pub page_token: Option<String>,
    /// Token without which the files answer 403.
    pub file_token: Option<String>,
    /// The body of this file breaks off after so many bytes, so many times.
    pub broken: Option<(String, usize, usize)>,
    /// Answers whole files to requests for a range (but for the first byte).
    pub no_ranges: bool,
    /// Answers this status to everything.
    pub status: Option<u16>,
    /// The entity tag sent for every file instead of the right one.
    pub etag: Option<String>,
}

pub struct StandIn {
    pub endpoint: String,
    pub content: Arc<Mutex<Content>>,
    log: Arc<Mutex<Vec<String>>>,
}

struct Request {
    path: String,
    range: Option<(usize, Option<usize>)>,
    token: Option<String>,
}

impl StandIn {
    pub fn start(content: Content) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let content = Arc::new(Mutex::new(content));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (shared, requests, address) = (content.clone(), log.clone(), endpoint.clone());
        // Ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, requests, address) =
                    (shared.clone(), requests.clone(), address.clone());
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    let Some(request) = read(&stream) else { return };
                    requests.lock().unwrap().push(request.path.clone());
                    // A client that went away is its own business.
                    let _ = answer(&stream, &request, &shared, &address);
                });
            }
        });
        Self {
            endpoint,
            content,
            log,
        }
    }

    /// Paths asked for since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let path = first.split(' ').nth(1)?.to_string();
    assert!(first.starts_with("GET "), "{first}");
    let mut request = Request {
        path,
        range: None,
        token: None,
    };
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let (begin, end) = value.strip_prefix("bytes=")?.split_once('-')?;
                request.range = Some((begin.parse().ok()?, end.parse().ok()));
            }
            "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_string),
            _ => {}
        }
    }
    Some(request)
}

fn answer(
    mut out: &TcpStream,
    request: &Request,
    shared: &Mutex<Content>,
    address: &str,
) -> std::io::Result<()> {
    let content = shared.lock().unwrap().clone();
    let mut send = |status: u16, headers: &str, body: &[u8]| -> std::io::Result<()> {
        write!(
            out,
            "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        )?;
        out.write_all(body)
    };
    if let Some(status) = content.status {
        return send(status, "", b"");
    }
    let resolve = format!("/{}/resolve/", content.model);
    if request
        .path
        .starts_with(&format!("/api/models/{}/revision/", content.model))
    {
        if content.page_token.is_some() && content.page_token != request.token {
            return send(401, "", b"{}");
        }
        let siblings: Vec<_> = content
            .files
            .keys()
            .map(|f| serde_json::json!({ "rfilename": f }))
            .collect();
        let body = serde_json::json!({ "sha": content.commit, "siblings": siblings }).to_string();
        return send(200, "Content-Type: application/json\r\n", body.as_bytes());
    }
    let (name, redirected) = match request.path.strip_prefix(&resolve) {
        Some(rest) => (rest.split_once('/').map_or("", |(_, name)| name), false),
        None => (request.path.strip_prefix("/large/").unwrap_or(""), true),
    };
    let Some(body) = content.files.get(name) else {
        return send(404, "", b"");
    };
    if !redirected && content.file_token.is_some() && content.file_token != request.token {
        return send(403, "", b"");
    }
    let etag = content.etag.clone().unwrap_or_else(|| {
        format!(
            "{:x}",
            body.iter()
                .fold(7u64, |h, &b| h.wrapping_mul(31) + u64::from(b))
        )
    });
    let identity = format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {}\r\n", content.commit);
    if !redirected && content.large.iter().any(|large| large == name) {
        let headers =
            format!("{identity}X-Linked-ETag: \"{etag}\"\r\nLocation: {address}/large/{name}\r\n");
        return send(302, &headers, b"");
    }
    let (begin, end) = match request.range {
        Some((begin, end)) if !content.no_ranges || end == Some(0) => (
            begin.min(body.len()),
            end.map_or(body.len(), |e| (e + 1).min(body.len())),
        ),
        _ => (0, body.len()),
    };
    let range = format!(
        "{identity}Content-Range: bytes {begin}-{}/{}\r\n",
        end.max(1) - 1,
        body.len()
    );
    if let Some((broken, after, times)) = &content.broken
        && broken == name
        && *times > 0
        && end - begin > 1
    {
        shared.lock().unwrap().broken = Some((broken.clone(), *after, times - 1));
        let cut = (begin + after).min(end);
        write!(
            out,
            "HTTP/1.1 206 X\r\nConnection: close\r\nContent-Length: {}\r\n{range}\r\n",
            end - begin
        )?;
        return out.write_all(&body[begin..cut]);
    }
    send(206, &range, &body[begin..end])
}
