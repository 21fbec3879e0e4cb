//! `cargo xtask bench-compare`: this program and others on the same workloads, in turn, as a table of ratios.
//!
//! The others are timed by a script that prints one JSON line a measurement with the keys of `malmoi bench --json`; it is
//! called as `PYTHON SCRIPT WORKLOAD --peer P --precision X --threads N --runs R`. Every round runs each program once, so that
//! a machine that slows down slows all of them; the median of the rounds counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::shell;

#[cfg(test)]
mod tests;

/// Options of `cargo xtask bench-compare`.
#[derive(Args)]
pub struct Options {
    /// Script that times the other programs (default: bench/peers.py).
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// Python interpreter that has them.
    #[arg(long, value_name = "FILE", default_value = "python3")]
    python: PathBuf,
    /// Only these workloads.
    #[arg(long, value_delimiter = ',', value_name = "W")]
    workloads: Vec<String>,
    /// Only these precisions.
    #[arg(long, value_delimiter = ',', value_name = "P", default_values = ["f32", "bf16"])]
    precision: Vec<String>,
    /// Only these peers.
    #[arg(long = "peer", value_delimiter = ',', value_name = "P")]
    only: Vec<String>,
    /// Rounds; each runs every program once.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Timed repetitions inside a round.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Threads of every program.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Seconds that one program may take for a workload in a round; what takes longer is ended and not timed.
    #[arg(long, value_name = "S", default_value_t = 1200)]
    limit: u64,
    /// Lengths of encode-ragged (default: each program's own copy).
    #[arg(long, value_name = "FILE")]
    lengths: Option<PathBuf>,
    /// File that every measurement is appended to as a JSON line.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What is asked of a workload at a precision.
#[derive(Clone, Copy)]
struct Floor {
    workload: &'static str,
    precision: &'static str,
    /// The best of these counts.
    peers: &'static [&'static str],
    /// Precision of the peers.
    peer_precision: &'static str,
    /// Least ratio of speeds.
    least: f64,
}

const TORCH: &[&str] = &["torch", "torch-compile"];
const ENCODERS: &[&str] = &["torch", "torch-compile", "ort", "ct2"];
const GENERATORS: &[&str] = &["torch", "ct2", "llama.cpp"];
const PREFILLS: &[&str] = &["torch", "torch-compile", "ort", "llama.cpp"];

const fn floor(
    workload: &'static str,
    precision: &'static str,
    peers: &'static [&'static str],
    least: f64,
) -> Floor {
    Floor {
        workload,
        precision,
        peers,
        peer_precision: precision,
        least,
    }
}

/// What the project has promised, in bf16 of a machine with a tile unit. Peers that do not cover a precision are left out of its
/// race.
const FLOORS: &[Floor] = &[
    floor("gemm", "f32", &["torch"], 0.9),
    floor("gemm", "bf16", &["torch"], 1.4),
    floor("encode-fixed", "f32", ENCODERS, 1.15),
    floor("encode-fixed", "bf16", ENCODERS, 3.0),
    floor("encode-latency", "f32", ENCODERS, 1.5),
    floor("encode-latency", "bf16", ENCODERS, 2.5),
    floor("encode-ragged", "f32", &["torch"], 2.5),
    floor("encode-ragged", "f32", &["ct2"], 1.5),
    floor("encode-ragged", "bf16", &["torch"], 5.0),
    floor("mlm-train", "f32", TORCH, 1.4),
    floor("mlm-train", "bf16", TORCH, 3.0),
    floor("clm-train", "f32", TORCH, 1.3),
    floor("clm-train", "bf16", TORCH, 3.0),
    floor("prefill", "f32", PREFILLS, 1.3),
    floor("prefill", "bf16", PREFILLS, 3.0),
    floor("decode", "f32", GENERATORS, 1.0),
    floor("decode", "bf16", GENERATORS, 1.35),
    floor("decode-batch", "f32", &["torch", "ct2"], 1.5),
    // No peer is faster in bf16 than PyTorch is in f32.
    Floor {
        peer_precision: "f32",
        ..floor("decode-batch", "bf16", &["torch", "ct2"], 2.5)
    },
    floor("seq2seq", "f32", &["torch"], 1.0),
    floor("seq2seq", "bf16", &["torch"], 1.0),
];

/// The same in bf16 where there is no tile unit.
const LEAST_WITHOUT_TILES: f64 = 1.0;

/// Most of PyTorch's peak memory that a training workload may take.
const MEMORY: f64 = 0.7;

/// Whether the script times a peer at a precision on a workload.
fn covers(peer: &str, precision: &str) -> bool {
    match peer {
        "ort" => precision == "f32",
        _ => matches!(precision, "f32" | "bf16"),
    }
}

/// A program that is timed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Racer {
    peer: String,
    precision: String,
}

/// Values of a racer on a workload, a round each.
#[derive(Clone, Debug, Default, PartialEq)]
struct Found {
    values: Vec<f64>,
    memory: Vec<f64>,
    unit: String,
    failure: Option<String>,
}

type Results = BTreeMap<(String, Racer), Found>;

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Reads the measurement in what a program printed: its last line that is a JSON object.
fn read(printed: &str, found: &mut Found) -> Result<(), String> {
    let line = printed.lines().rev().find(|line| line.starts_with('{'));
    let line = line.ok_or("it printed no JSON line")?;
    let row: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let value = row["value"].as_f64().filter(|value| *value > 0.0);
    let value = value.ok_or("expected a positive number `value`")?;
    found.values.push(value);
    found
        .memory
        .extend(row["peak_rss_mib"].as_f64().filter(|mib| *mib > 0.0));
    found.unit = row["unit"].as_str().unwrap_or_default().to_owned();
    Ok(())
}

/// How many times faster than `peer` we are: times are better when smaller, everything else is a rate.
fn speed_ratio(ours: f64, peer: f64, unit: &str) -> f64 {
    if unit == "ms" || unit == "s" {
        peer / ours
    } else {
        ours / peer
    }
}

/// The table, header first, and whether every floor that could be judged is held.
fn table(results: &Results, floors: &[Floor]) -> (Vec<[String; 7]>, bool) {
    let header = [
        "workload",
        "precision",
        "malmoi",
        "best peer",
        "ratio",
        "floor",
        "",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    let mut held = true;
    let get = |workload: &str, peer: &str, precision: &str| {
        results.get(&(
            workload.to_owned(),
            Racer {
                peer: peer.to_owned(),
                precision: precision.to_owned(),
            },
        ))
    };
    for floor in floors {
        let ours = get(floor.workload, OURS, floor.precision);
        let value = ours.and_then(|found| median(&found.values));
        let unit = ours.map_or("", |found| found.unit.as_str());
        let peers = floor.peers.iter().filter_map(|peer| {
            let found = get(floor.workload, peer, floor.peer_precision)?;
            Some((*peer, median(&found.values)?, found.unit.as_str()))
        });
        // The best peer is the one that leaves us the smallest ratio.
        let best = peers.max_by(|a, b| speed_ratio(a.1, b.1, a.2).total_cmp(&1.0));
        let (shown, ratio) = match (value, best) {
            (Some(ours), Some((peer, theirs, unit))) => (
                format!("{peer} {theirs:.1}"),
                Some(speed_ratio(ours, theirs, unit)),
            ),
            (_, Some((peer, theirs, _))) => (format!("{peer} {theirs:.1}"), None),
            (_, None) => ("-".into(), None),
        };
        held &= ratio.is_none_or(|ratio| ratio >= floor.least);
        rows.push([
            floor.workload.to_owned(),
            floor.precision.to_owned(),
            value.map_or("-".into(), |value| format!("{value:.1} {unit}")),
            shown,
            ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")),
            format!("≥ {:.2}", floor.least),
            verdict(ratio.map(|ratio| ratio >= floor.least)),
        ]);
    }
    for floor in floors
        .iter()
        .filter(|floor| floor.workload.ends_with("-train"))
    {
        let memory =
            |peer| get(floor.workload, peer, floor.precision).and_then(|f| median(&f.memory));
        let (ours, theirs) = (memory(OURS), memory("torch"));
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
        held &= ratio.is_none_or(|ratio| ratio <= MEMORY);
        let mib = |found: Option<f64>| found.map_or("-".into(), |mib| format!("{mib:.0} MiB"));
        rows.push([
            format!("{} memory", floor.workload),
            floor.precision.to_owned(),
            mib(ours),
            format!("torch {}", mib(theirs)),
            ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")),
            format!("≤ {MEMORY:.2}"),
            verdict(ratio.map(|ratio| ratio <= MEMORY)),
        ]);
    }
    (rows, held)
}

fn verdict(held: Option<bool>) -> String {
    match held {
        Some(true) => "ok".into(),
        Some(false) => "BELOW".into(),
        None => "not judged".into(),
    }
}

fn print(rows: &[[String; 7]]) {
    let widths: Vec<usize> = (0..7)
        .map(|c| {
            rows.iter()
                .map(|row| row[c].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(c, (cell, width))| {
                let space = " ".repeat(width - cell.chars().count());
                // Numbers are flush right.
                if (2..6).contains(&c) {
                    space + cell
                } else {
                    cell.clone() + &space
                }
            });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

const OURS: &str = "malmoi";

/// Runs the comparison; says whether every floor that could be judged is held.
pub fn run(root: &Path, options: &Options) -> bool {
    let script = options.peers.clone();
    let script = script.unwrap_or_else(|| root.join("bench/peers.py"));
    if !script.is_file() {
        eprintln!(
            "{}: expected the script that times the other programs (--peers FILE)",
            script.display()
        );
        return false;
    }
    let known: Vec<&str> = FLOORS.iter().map(|floor| floor.workload).collect();
    if let Some(unknown) = options
        .workloads
        .iter()
        .find(|w| !known.contains(&w.as_str()))
    {
        eprintln!(
            "there is no workload `{unknown}`; expected one of {}",
            known.join(", ")
        );
        return false;
    }
    let found = shell::malmoi(root).and_then(|program| {
        let tile_unit = has_tile_unit(&shell::doctor(&program)?)?;
        Ok((program, tile_unit))
    });
    let (program, tile_unit) = match found {
        Ok(found) => found,
        Err(message) => {
            eprintln!("{message}");
            return false;
        }
    };
    let floors: Vec<Floor> = asked(tile_unit)
        .into_iter()
        .filter(|floor| {
            options.workloads.is_empty() || options.workloads.iter().any(|w| w == floor.workload)
        })
        .filter(|floor| options.precision.iter().any(|p| p == floor.precision))
        .collect();
    let mut results = Results::new();
    for (workload, racers) in races(&floors, &options.only) {
        for round in 0..options.rounds.max(1) {
            for racer in &racers {
                let key = (workload.to_owned(), racer.clone());
                let found = results.entry(key).or_default();
                // What cannot run does not run in the next round either.
                if found.failure.is_some() {
                    continue;
                }
                let mut command = command(&program, &script, options, workload, racer);
                let limit = Duration::from_secs(options.limit);
                let outcome = shell::output_within(&mut command, limit).and_then(|printed| {
                    record(options.out.as_deref(), &printed)?;
                    read(&printed, found)
                });
                match outcome {
                    Ok(()) => eprintln!(
                        "{workload} {} {} round {}: {:.2} {}",
                        racer.peer,
                        racer.precision,
                        round + 1,
                        found.values.last().copied().unwrap_or_default(),
                        found.unit
                    ),
                    Err(message) => {
                        let last = message.lines().last().unwrap_or_default().to_owned();
                        eprintln!("{workload} {} {}: {last}", racer.peer, racer.precision);
                        found.failure = Some(last);
                    }
                }
            }
        }
    }
    let (rows, held) = table(&results, &floors);
    print(&rows);
    for ((workload, racer), found) in &results {
        if let Some(failure) = &found.failure {
            println!(
                "not timed: {workload} {} {}: {failure}",
                racer.peer, racer.precision
            );
        }
    }
    held
}

/// What is asked on a machine with a tile unit or without one.
fn asked(tile_unit: bool) -> Vec<Floor> {
    let floors = FLOORS.iter().map(|&floor| match floor.precision {
        "bf16" if !tile_unit => Floor {
            least: LEAST_WITHOUT_TILES,
            ..floor
        },
        _ => floor,
    });
    floors.collect()
}

/// Whether what `malmoi doctor --json` says names the tile unit among the instruction sets.
fn has_tile_unit(report: &Value) -> Result<bool, String> {
    let sets = report["instruction_sets"].as_array();
    let sets = sets.ok_or("expected a list `instruction_sets` from `malmoi doctor --json`")?;
    Ok(sets.iter().any(|set| set == "amx"))
}

/// Everyone who has to run on each workload.
fn races(floors: &[Floor], only: &[String]) -> Vec<(&'static str, Vec<Racer>)> {
    let mut races: Vec<(&str, Vec<Racer>)> = Vec::new();
    for floor in floors {
        let at = races
            .iter()
            .position(|(workload, _)| *workload == floor.workload);
        let at = at.unwrap_or_else(|| {
            races.push((floor.workload, Vec::new()));
            races.len() - 1
        });
        let racers = &mut races[at].1;
        let mut add = |peer: &str, precision: &str| {
            let racer = Racer {
                peer: peer.to_owned(),
                precision: precision.to_owned(),
            };
            if !racers.contains(&racer) {
                racers.push(racer);
            }
        };
        add(OURS, floor.precision);
        for peer in floor.peers {
            let wanted = only.is_empty() || only.iter().any(|name| name == peer);
            if wanted && covers(peer, floor.peer_precision) {
                add(peer, floor.peer_precision);
            }
        }
    }
    races
}

fn command(
    program: &Path,
    script: &Path,
    options: &Options,
    workload: &str,
    racer: &Racer,
) -> Command {
    let mut command = if racer.peer == OURS {
        let mut command = Command::new(program);
        command.args(["bench", workload, "--json", "--quiet"]);
        command
    } else {
        let mut command = Command::new(&options.python);
        command.arg(script).args([workload, "--peer", &racer.peer]);
        command
    };
    command.args(["--precision", &racer.precision]);
    command.arg("--threads").arg(options.threads.to_string());
    command.arg("--runs").arg(options.runs.to_string());
    if let (Some(lengths), "encode-ragged") = (&options.lengths, workload) {
        command.arg("--lengths").arg(lengths);
    }
    command
}

/// Appends the JSON lines of what was printed to a file.
fn record(file: Option<&Path>, printed: &str) -> Result<(), String> {
    use std::io::Write;
    let Some(file) = file else { return Ok(()) };
    let lines = printed.lines().filter(|line| line.starts_with('{'));
    let opened = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file);
    let written = opened.and_then(|mut file| {
        lines
            .into_iter()
            .try_for_each(|line| writeln!(file, "{line}"))
    });
    written.map_err(|error| format!("{}: {error}", file.display()))
}
