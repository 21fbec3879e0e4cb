//! `malmoi doctor`: what the machine offers, what is missing.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use malmoi_checkpoint::hub::Hub;
use malmoi_kernels::{cpu, threads};
use serde::Serialize;

use crate::arguments::Global;
use crate::commands::quickstart;
use crate::failure::Result;
use crate::output;

/// Show what this machine offers and what is missing
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  malmoi doctor --json")]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    target: String,
    processor: Option<String>,
    cores: usize,
    threads: usize,
    instruction_set: &'static str,
    instruction_sets: Vec<&'static str>,
    features: Vec<Feature>,
    caches: Vec<Cache>,
    memory_bytes: Option<u64>,
    memory_available_bytes: Option<u64>,
    data: Option<PathBuf>,
    vocabularies: Vec<Vocabulary>,
    hub: Option<HubReport>,
    missing: Vec<String>,
}

#[derive(Serialize)]
struct Feature {
    name: &'static str,
    present: bool,
}

#[derive(Serialize)]
struct Cache {
    level: u8,
    kind: String,
    bytes: usize,
}

#[derive(Serialize)]
struct Vocabulary {
    name: &'static str,
    present: bool,
}

#[derive(Serialize)]
struct HubReport {
    endpoint: String,
    cache: PathBuf,
    cache_exists: bool,
    token: bool,
    offline: bool,
}

/// A line of `/proc/meminfo`, in bytes.
fn memory(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

impl Doctor {
    pub fn run(self, _global: &Global) -> Result<()> {
        let report = examine();
        if self.json {
            output::json(&report)
        } else {
            print(&report)
        }
    }
}

fn examine() -> Report {
    let description = cpu::describe();
    let mut missing = Vec::new();
    let data = quickstart::find_data(None);
    if data.is_none() {
        missing.push("the bundled texts: run inside a clone of the repository, or pass --data DIR to `malmoi quickstart`".into());
    }
    let vocabularies: Vec<Vocabulary> = ["gpt2", "bert-base-uncased", "koelectra", "t5"]
        .into_iter()
        .map(|name| Vocabulary {
            name,
            present: data
                .as_ref()
                .is_some_and(|dir| dir.join("vocab").join(name).is_dir()),
        })
        .collect();
    if data.is_some() && vocabularies.iter().any(|v| !v.present) {
        missing.push("published vocabularies in data/vocab: `malmoi verify` needs --vocab DIR for the tokenizers of those".into());
    }
    let hub = match Hub::from_env() {
        Ok(hub) => Some(HubReport {
            cache_exists: hub.cache.is_dir(),
            endpoint: hub.endpoint,
            cache: hub.cache,
            token: hub.token.is_some(),
            offline: hub.offline,
        }),
        Err(error) => {
            missing.push(format!("a place for downloaded models: {error}"));
            None
        }
    };
    if let Some(hub) = hub.as_ref().filter(|hub| hub.offline && !hub.cache_exists) {
        missing.push(format!(
            "downloaded models: HF_HUB_OFFLINE is set, but {} does not exist",
            hub.cache.display()
        ));
    }
    Report {
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        processor: description.model,
        cores: description.cores,
        threads: threads::count(),
        instruction_set: cpu::isa().name(),
        instruction_sets: description.available.iter().map(|isa| isa.name()).collect(),
        features: description
            .features
            .into_iter()
            .map(|(name, present)| Feature { name, present })
            .collect(),
        caches: description
            .caches
            .into_iter()
            .map(|c| Cache {
                level: c.level,
                kind: c.kind,
                bytes: c.size,
            })
            .collect(),
        memory_bytes: memory("MemTotal"),
        memory_available_bytes: memory("MemAvailable"),
        data,
        vocabularies,
        hub,
        missing,
    }
}

fn print(report: &Report) -> Result<()> {
    let row = |key: &str, value: String| vec![key.to_owned(), value];
    let yes = |present: bool| if present { "yes" } else { "no" };
    let with = |present: bool| {
        report
            .features
            .iter()
            .filter(|f| f.present == present)
            .map(|f| f.name)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let size =
        |bytes: Option<u64>| bytes.map_or("unknown".into(), |bytes| output::bytes(bytes as f64));
    let mut rows = vec![
        row("malmoi", format!("{} ({})", report.version, report.target)),
        row(
            "processor",
            report.processor.clone().unwrap_or_else(|| "unknown".into()),
        ),
        row("cores", report.cores.to_string()),
        row("threads", format!("{} (--threads N)", report.threads)),
        row(
            "instruction set",
            format!(
                "{} (usable: {})",
                report.instruction_set,
                report.instruction_sets.join(", ")
            ),
        ),
        row("features", with(true)),
    ];
    if report.features.iter().any(|f| !f.present) {
        rows.push(row("not there", with(false)));
    }
    for cache in &report.caches {
        rows.push(row(
            &format!("L{} {}", cache.level, cache.kind.to_lowercase()),
            output::bytes(cache.bytes as f64),
        ));
    }
    rows.push(row(
        "memory",
        format!(
            "{} ({} available)",
            size(report.memory_bytes),
            size(report.memory_available_bytes)
        ),
    ));
    rows.push(row(
        "bundled texts",
        report
            .data
            .as_ref()
            .map_or("not found".into(), |dir| dir.display().to_string()),
    ));
    for vocabulary in &report.vocabularies {
        rows.push(row(
            &format!("vocabulary {}", vocabulary.name),
            yes(vocabulary.present).into(),
        ));
    }
    if let Some(hub) = &report.hub {
        let offline = if hub.offline {
            " (offline: HF_HUB_OFFLINE is set)"
        } else {
            ""
        };
        rows.push(row("hub", format!("{}{offline}", hub.endpoint)));
        rows.push(row(
            "hub cache",
            format!(
                "{}{}",
                hub.cache.display(),
                if hub.cache_exists { "" } else { " (empty)" }
            ),
        ));
        rows.push(row("hub token", yes(hub.token).into()));
    }
    output::table("ll", &rows)?;
    if report.missing.is_empty() {
        return output::line("nothing is missing");
    }
    report
        .missing
        .iter()
        .try_for_each(|what| output::line(format!("missing: {what}")))
}
