//! `malmoi serve`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use malmoi_infer::pipeline::PipelineOptions;
use malmoi_models::Precision;
use malmoi_serve::{Collector, Config, Limits, LogFormat, ModelSource, ServeError};

use crate::arguments::Global;
use crate::failure::{BAD_INPUT, Failure, Result, WORK_FAILED};
use crate::interrupt;
use crate::model;
use crate::progress;

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Log {
    Text,
    Json,
}

/// Arguments of `malmoi serve`.
#[derive(Args, Debug)]
#[command(
    after_help = "Stops on Ctrl-C or SIGTERM, after finishing what is at work. MALMOI_LOG says how much is logged (warn, info, debug).\n\nExamples:\n  malmoi serve --model malmoi-quickstart/bert --model malmoi-quickstart/gpt\n  malmoi serve --model chat=my-gpt --host 0.0.0.0 --api-key-file keys.txt"
)]
pub struct Serve {
    /// Model directory or hub id, perhaps with a name for it; once for each model
    #[arg(long = "model", value_name = "[NAME=]MODEL", required = true)]
    models: Vec<String>,
    /// A small model that drafts for a served one, with the same tokenizer
    #[arg(long = "draft", value_name = "NAME=MODEL")]
    drafts: Vec<String>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on (0: any free one)
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// File with the API keys that clients may show, one a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Listen beyond this machine without API keys
    #[arg(long)]
    allow_open: bool,
    /// Host name that requests may address besides localhost
    #[arg(long = "allow-host", value_name = "HOST")]
    allowed_hosts: Vec<String>,
    /// Run directory, or folder of them, whose curves the web lab shows
    #[arg(long = "runs", value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// Collector of OpenTelemetry that a span of each request is sent to (OTLP over HTTP)
    #[arg(long = "otlp", value_name = "URL")]
    collector: Option<Collector>,
    /// Accept keys in config.json that malmoi does not know
    #[arg(long)]
    accept_unknown_config: bool,
    /// Accept a tokenizer that has fewer tokens than the model
    #[arg(long)]
    accept_smaller_tokenizer: bool,
    /// Arithmetic: f32, or bf16 (faster on processors with a tile unit)
    #[arg(long, value_name = "P", default_value = "f32")]
    precision: Precision,
    /// Requests that may wait for one model
    #[arg(long, value_name = "N", default_value_t = Limits::default().queue, help_heading = "Bounds")]
    max_queue: usize,
    /// Requests of one client at the same time
    #[arg(long, value_name = "N", default_value_t = Limits::default().per_client, help_heading = "Bounds")]
    max_per_client: usize,
    /// Texts that are generated at the same time
    #[arg(long, value_name = "N", default_value_t = Limits::default().rows, help_heading = "Bounds")]
    max_rows: usize,
    /// Texts in one request
    #[arg(long, value_name = "N", default_value_t = Limits::default().batch, help_heading = "Bounds")]
    max_batch: usize,
    /// Tokens of all clients that go through an encoder together
    #[arg(long, value_name = "N", default_value_t = Limits::default().batch_tokens, help_heading = "Bounds")]
    batch_tokens: usize,
    /// Tokens that one request may generate
    #[arg(long, value_name = "N", default_value_t = Limits::default().new_tokens, help_heading = "Bounds")]
    max_new_tokens: usize,
    /// Memory for keys and values of each model, in MiB
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().cache_bytes >> 20, help_heading = "Bounds")]
    cache_mib: usize,
    /// Size of a request, in KiB
    #[arg(long, value_name = "KIB", default_value_t = Limits::default().body_bytes >> 10, help_heading = "Bounds")]
    max_body_kib: usize,
    /// Seconds until an answer (or its stream) begins
    #[arg(long, value_name = "S", default_value_t = Limits::default().request_time.as_secs(), help_heading = "Bounds")]
    timeout: u64,
    /// Seconds for the work at hand after a signal
    #[arg(long, value_name = "S", default_value_t = Limits::default().drain_time.as_secs(), help_heading = "Bounds")]
    drain: u64,
    /// How log lines look: for people, or a JSON object a line
    #[arg(long, value_enum, default_value_t = Log::Text)]
    log: Log,
}

impl Serve {
    pub fn run(self, global: &Global) -> Result<()> {
        let format = match self.log {
            Log::Text => LogFormat::Text,
            Log::Json => LogFormat::Json,
        };
        malmoi_serve::init_logging(format, global.quiet);
        let config = self.config()?;
        let models = self.sources(global)?;
        let quiet = global.quiet;
        let requested = interrupt::graceful();
        let stop = async move {
            // The handler of signals is the program's; looking ten times a second costs nothing.
            while !requested.load(std::sync::atomic::Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let ready = |address| progress::remark(quiet, format!("listening on http://{address}"));
        malmoi_serve::run(config, models, ready, stop).map_err(failure)
    }

    fn config(&self) -> Result<Config> {
        let api_keys = match &self.api_key_file {
            None => Vec::new(),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|error| Failure::io(path, &error))?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let keys: Vec<String> = lines.map(str::to_owned).collect();
                if keys.is_empty() {
                    return Err(Failure::input(format!(
                        "{} has no key: expected one a line",
                        path.display()
                    )));
                }
                keys
            }
        };
        let defaults = Limits::default();
        Ok(Config {
            host: self.host,
            port: self.port,
            api_keys,
            allow_open: self.allow_open,
            allowed_hosts: self.allowed_hosts.clone(),
            runs: self.runs.clone(),
            collector: self.collector.clone(),
            limits: Limits {
                queue: self.max_queue,
                per_client: self.max_per_client,
                rows: self.max_rows,
                batch: self.max_batch,
                batch_tokens: self.batch_tokens,
                new_tokens: self.max_new_tokens,
                cache_bytes: self.cache_mib << 20,
                body_bytes: self.max_body_kib << 10,
                request_time: Duration::from_secs(self.timeout),
                drain_time: Duration::from_secs(self.drain),
                ..defaults
            },
        })
    }

    fn sources(&self, global: &Global) -> Result<Vec<ModelSource>> {
        let mut drafts = Vec::with_capacity(self.drafts.len());
        for draft in &self.drafts {
            let (name, place) = draft.split_once('=').ok_or_else(|| {
                Failure::input(format!(
                    "--draft {draft}: expected NAME=MODEL, with the name of a served model"
                ))
            })?;
            drafts.push((name.to_owned(), model::directory(place, global)?));
        }
        let mut sources = Vec::with_capacity(self.models.len());
        for argument in &self.models {
            let (name, place) = match argument.split_once('=') {
                Some((name, place)) => (name.to_owned(), place),
                None => (default_name(argument), argument.as_str()),
            };
            let draft = drafts.iter().position(|(of, _)| *of == name);
            sources.push(ModelSource {
                directory: model::directory(place, global)?,
                draft: draft.map(|at| drafts.remove(at).1),
                options: PipelineOptions {
                    head: None,
                    accept_unknown_config: self.accept_unknown_config,
                    accept_smaller_tokenizer: self.accept_smaller_tokenizer,
                    precision: self.precision,
                },
                name,
            });
        }
        match drafts.first() {
            None => Ok(sources),
            Some((name, _)) => Err(Failure::input(format!(
                "--draft {name}=…: no served model is called {name}"
            ))),
        }
    }
}

/// The last part of a directory or hub id.
fn default_name(place: &str) -> String {
    let trimmed = place.trim_end_matches('/');
    let last = trimmed.rsplit('/').next().unwrap_or(trimmed);
    match last {
        // The directory of a run's checkpoint says nothing; its parent does.
        "best" | "last" => trimmed.rsplit('/').nth(1).unwrap_or(last).to_owned(),
        other => other.to_owned(),
    }
}

fn failure(error: ServeError) -> Failure {
    let code = match &error {
        ServeError::Config(_) | ServeError::Load(_) | ServeError::Bind { .. } => BAD_INPUT,
        _ => WORK_FAILED,
    };
    Failure::from_error(code, &error)
}

#[cfg(test)]
mod tests {
    use super::default_name;

    #[test]
    fn a_model_is_called_like_its_folder() {
        assert_eq!(default_name("malmoi-quickstart/bert/"), "bert");
        assert_eq!(default_name("org/name"), "name");
        assert_eq!(default_name("my-run/best"), "my-run");
    }
}
