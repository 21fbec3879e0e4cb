//! A server with small models on a free port, and the plainest of clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use malmoi_models::{Head, Mode, Model, ModelConfig, SaveOptions};
use malmoi_serve::{Config, ModelSource};
use malmoi_text::{Algorithm, Tokenizer, TrainOptions, train_from_iter};
use serde_json::{Value, json};
use tokio::sync::oneshot;

const LINES: [&str; 8] = [
    "어제 카페 갔었어 거기 사람 많더라",
    "이 영화는 정말 재미있다 배우의 연기가 좋았다",
    "서울은 대한민국의 수도이다 부산은 항구이다",
    "오늘은 날씨가 맑고 바람이 분다",
    "나는 학교에 가고 너는 집에 있다",
    "the quick brown fox jumps over the lazy dog",
    "all that glitters is not gold and 0123456789",
    "{\"name\": \"malmoi\", \"n\": 12, \"ok\": true}",
];

const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

fn tokenizer(algorithm: Algorithm, vocab_size: usize) -> Tokenizer {
    let lines = LINES
        .iter()
        .cycle()
        .take(24)
        .map(|line| Ok(line.to_string()));
    let options = TrainOptions {
        min_frequency: 1,
        limit_alphabet: (algorithm != Algorithm::Bpe).then_some(200),
        ..TrainOptions::new(algorithm, vocab_size)
    };
    train_from_iter(lines, &options, &mut |_| {})
        .expect("a tokenizer")
        .tokenizer
}

fn save(dir: &Path, tokenizer: &Tokenizer, mut config: Value, head: Head) {
    config["vocab_size"] = json!(tokenizer.vocab_size());
    let config = ModelConfig::from_json(&config, false).expect("a configuration");
    let model = Model::initialise(config, head, 7, Mode::Inference);
    model
        .save(dir, &SaveOptions::default())
        .expect("the model is saved");
    tokenizer.save(dir, None).expect("the tokenizer is saved");
}

fn gpt(n_positions: usize, n_embd: usize) -> Value {
    json!({"model_type": "gpt2", "n_embd": n_embd, "n_layer": 2, "n_head": 2, "n_positions": n_positions,
        "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.3})
}

fn bert(labels: &[&str]) -> Value {
    let mut config = json!({"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 48, "initializer_range": 0.3});
    if !labels.is_empty() {
        let by_id: serde_json::Map<String, Value> = (labels.iter().enumerate())
            .map(|(id, label)| (id.to_string(), json!(label)))
            .collect();
        let by_label: serde_json::Map<String, Value> = (labels.iter().enumerate())
            .map(|(id, label)| (label.to_string(), json!(id)))
            .collect();
        config["id2label"] = by_id.into();
        config["label2id"] = by_label.into();
    }
    config
}

/// Small models of every kind that is served, in a folder each.
pub fn models(root: &Path) -> Vec<ModelSource> {
    let bytes = tokenizer(Algorithm::Bpe, 400);
    let words = tokenizer(Algorithm::WordPiece, 400);
    let pieces = tokenizer(Algorithm::Unigram, 300);
    let at = |name: &str| root.join(name);
    save(&at("gpt"), &bytes, gpt(96, 32), Head::CausalLm);
    let path = at("gpt").join("tokenizer_config.json");
    let text = std::fs::read_to_string(&path).expect("written above");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["chat_template"] = json!(TEMPLATE);
    std::fs::write(&path, config.to_string()).expect("written");
    save(&at("draft"), &bytes, gpt(96, 16), Head::CausalLm);
    save(&at("bert"), &words, bert(&[]), Head::MaskedLm);
    let classes = ["entailment", "neutral", "contradiction"];
    let head = Head::SequenceClassification;
    save(&at("nli"), &words, bert(&classes), head);
    save(&at("ranker"), &words, bert(&["relevant"]), head);
    let tags = ["O", "B-PS", "I-PS", "B-LC", "I-LC"];
    save(&at("ner"), &words, bert(&tags), Head::TokenClassification);
    save(&at("qa"), &words, bert(&[]), Head::QuestionAnswering);
    let t5 = json!({"model_type": "t5", "d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 2,
        "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": true});
    save(&at("t5"), &pieces, t5, Head::Seq2SeqLm);
    let names = ["gpt", "bert", "nli", "ranker", "ner", "qa", "t5"];
    let source = |name: &str| ModelSource {
        name: name.to_owned(),
        directory: at(name),
        draft: None,
        options: Default::default(),
    };
    let mut sources: Vec<ModelSource> = names.map(source).into();
    sources.push(ModelSource {
        name: "drafted".into(),
        directory: at("gpt"),
        draft: Some(at("draft")),
        options: Default::default(),
    });
    sources
}

/// A running server.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Result<(), malmoi_serve::ServeError>>>,
    _files: tempfile::TempDir,
}

impl Server {
    /// Starts one with all models.
    pub fn start(change: impl FnOnce(&mut Config, &Path)) -> Self {
        let files = tempfile::tempdir().expect("a folder");
        let sources = models(files.path());
        Self::start_with(files, sources, change)
    }

    /// Starts one with some models.
    pub fn start_with(
        files: tempfile::TempDir,
        sources: Vec<ModelSource>,
        change: impl FnOnce(&mut Config, &Path),
    ) -> Self {
        let mut config = Config {
            port: 0,
            ..Config::default()
        };
        change(&mut config, files.path());
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, address) = channel();
        let thread = std::thread::spawn(move || {
            let stop = async {
                let _dropped_too = stopped.await;
            };
            malmoi_serve::run(
                config,
                sources,
                |at| ready.send(at).expect("the test waits"),
                stop,
            )
        });
        let address = address.recv().expect("it listens");
        let server = Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
            _files: files,
        };
        let start = Instant::now();
        while server.get("/ready").status != 200 {
            assert!(start.elapsed() < Duration::from_secs(60), "not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Asks it to stop.
    pub fn signal(&mut self) {
        drop(self.stop.take());
    }

    /// Waits for its end.
    pub fn wait(&mut self) {
        let thread = self.thread.take().expect("waited once");
        thread.join().expect("no panic").expect("no error");
    }

    /// A connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        let limit = Some(Duration::from_secs(60));
        stream.set_read_timeout(limit).expect("a limit");
        stream
    }

    /// A request as it is.
    pub fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that refuses may close before it has read everything.
        let _refused = stream.write_all(request);
        read_answer(&mut stream)
    }

    /// A request with a body and headers.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.raw(&head(method, path, headers, body))
    }

    /// A JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let kind = [("content-type", "application/json")];
        self.send("POST", path, &kind, body.to_string().as_bytes())
    }

    /// The JSON answer of a request that succeeds.
    pub fn ok(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// A request without a body.
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _already_failing = thread.join();
        }
    }
}

/// Head and body of a request.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        text.push_str("host: localhost\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    [text.as_bytes(), body].concat()
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status; 0 for a connection closed without one.
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The data of server-sent events.
    pub fn events(&self) -> Vec<String> {
        let text = self.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(str::to_owned).collect()
    }
}

/// Reads to the end of the connection.
pub fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    // A reset after the answer is no matter.
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let Some(end) = end else {
        return Answer {
            status: 0,
            headers: Vec::new(),
            body: bytes,
        };
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let chunked = headers
        .iter()
        .any(|(n, v)| n == "transfer-encoding" && v == "chunked");
    let body = bytes[end + 4..].to_vec();
    Answer {
        status: status.unwrap_or(0),
        headers,
        body: if chunked { unchunked(&body) } else { body },
    }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap_or("0");
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let from = end + 2;
        if size == 0 || bytes.len() < from + size {
            body.extend_from_slice(bytes.get(from..).filter(|_| size > 0).unwrap_or_default());
            break;
        }
        body.extend_from_slice(&bytes[from..from + size]);
        bytes = bytes.get(from + size + 2..).unwrap_or_default();
    }
    body
}

/// A folder of training runs.
pub fn runs(root: &Path) -> PathBuf {
    let run = root.join("runs/first");
    std::fs::create_dir_all(&run).expect("a folder");
    let mut lines = String::new();
    for step in 1..=20 {
        lines.push_str(&format!(
            "{{\"step\":{step},\"kind\":\"train\",\"loss\":{},\"lr\":0.001,\"tokens_per_second\":100}}\n",
            9.0 - step as f64 / 10.0
        ));
    }
    lines.push_str("{\"step\":20,\"kind\":\"valid\",\"loss\":7.5,\"perplexity\":1808.0}\n");
    lines.push_str("{\"step\":20,\"kind\":\"sample\",\"text\":\"이 영화는\"}\n");
    std::fs::write(run.join("metrics.jsonl"), lines).expect("written");
    std::fs::write(run.join("config.toml"), "seed = 1\n").expect("written");
    root.join("runs")
}
