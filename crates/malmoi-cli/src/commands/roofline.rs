//! `malmoi roofline`.

use std::path::PathBuf;

use clap::Args;
use malmoi_kernels::probe::Arithmetic;
use malmoi_models::{Direction, ModelConfig, Precision};
use malmoi_roofline::chart;
use malmoi_roofline::cost::{Phase, Work};
use malmoi_roofline::machine::Machine;
use malmoi_roofline::memory;
use malmoi_roofline::report::Entry;
use malmoi_roofline::runs;
use serde_json::json;

use crate::arguments::Global;
use crate::failure::{Failure, Result, WORK_FAILED};
use crate::{model, output, progress};

/// Measure the machine's roofs and place models under them
#[derive(Args, Debug)]
#[command(
    after_help = "Without MODEL: BERT-base, GPT-2 and T5-base encoding and generating, alone and 32 at once.\nA model's weights are random here: its shape decides the speed.\n\nExamples:\n  \
                  malmoi roofline --svg roofline.svg\n  malmoi roofline gpt2 --phase decode --batch 1,8 --tokens 512 --ops\n  malmoi roofline gpt3-175b --phase prefill --predict"
)]
pub struct Roofline {
    /// Model directory, preset or hub id
    model: Option<String>,
    /// Only this phase (default: every phase of the model but training)
    #[arg(long, value_parser = Phase::NAMES)]
    phase: Option<String>,
    /// Sequences at once; several numbers give several points
    #[arg(long, value_name = "B", value_delimiter = ',', default_values_t = [1, 32])]
    batch: Vec<usize>,
    /// Tokens of a sequence; when decoding, those before the new one
    #[arg(long, value_name = "T", default_value_t = 128)]
    tokens: usize,
    /// Arithmetic
    #[arg(long, value_name = "P", default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// Timed repetitions
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Predict and do not run
    #[arg(long)]
    predict: bool,
    /// Show every operation
    #[arg(long)]
    ops: bool,
    /// Write a chart
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Accept keys in config.json that malmoi does not know
    #[arg(long)]
    accept_unknown_config: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the classic picture shows: an encoder, a decoder, and one behind the other.
const CLASSIC: &[(&str, &[Phase])] = &[
    ("bert-base", &[Phase::Encode]),
    ("gpt2", &[Phase::Prefill, Phase::Decode]),
    ("t5-base", &[Phase::Encode, Phase::Decode]),
];

impl Roofline {
    pub fn run(self, global: &Global) -> Result<()> {
        let arithmetic = Arithmetic::named(&self.precision).unwrap_or(Arithmetic::F32);
        let precision: Precision = self.precision.parse().map_err(Failure::input)?;
        let work = self.work(global)?;
        let spinner = progress::spinner(global.quiet, "measuring the machine");
        let machine = Machine::measure();
        spinner.finish_and_clear();
        let mut entries = Vec::new();
        for (name, config, work) in &work {
            entries.push(
                Entry::new(name, config, work, arithmetic, &machine)
                    .map_err(|error| Failure::input(error.to_string()))?,
            );
        }
        for (entry, (name, config, work)) in entries.iter_mut().zip(&work) {
            if self.predict {
                continue;
            }
            if let Some(problem) = memory::too_large(config, work) {
                progress::remark(global.quiet, format!("note: {name} was not run: {problem}"));
                continue;
            }
            let what = format!("{name}: {} of {}", work.phase.name(), work.batch);
            let spinner = progress::spinner(global.quiet, &what);
            let measured = runs::measure(config, work, precision, self.runs as usize);
            spinner.finish_and_clear();
            let seconds = measured.map_err(|error| Failure::from_error(WORK_FAILED, &error))?;
            entry.measured(seconds);
        }
        if let Some(path) = &self.svg {
            std::fs::write(path, chart::svg(&machine, &entries))
                .map_err(|error| Failure::io(path, &error))?;
        }
        if self.json {
            return output::json(&json!({ "machine": machine, "phases": entries }));
        }
        print_machine(&machine)?;
        print_entries(&entries)?;
        if self.ops {
            entries.iter().try_for_each(print_ops)?;
        }
        Ok(())
    }

    /// Every phase to look at.
    fn work(&self, global: &Global) -> Result<Vec<(String, ModelConfig, Work)>> {
        let mut models: Vec<(String, ModelConfig, Vec<Phase>)> = Vec::new();
        match &self.model {
            Some(name) => {
                let (config, _) = model::shape(name, self.accept_unknown_config, global)?;
                let phases = match &self.phase {
                    Some(phase) => Phase::named(phase).into_iter().collect(),
                    None => match config.direction() {
                        Direction::Encoder => vec![Phase::Encode],
                        Direction::Decoder => vec![Phase::Prefill, Phase::Decode],
                        Direction::EncoderDecoder => {
                            vec![Phase::Encode, Phase::Prefill, Phase::Decode]
                        }
                    },
                };
                models.push((name.clone(), config, phases));
            }
            None => {
                let asked = self.phase.as_deref().and_then(Phase::named);
                for (name, phases) in CLASSIC {
                    let config = ModelConfig::preset(name)
                        .ok_or_else(|| Failure::work(format!("the preset {name} is missing")))?;
                    let fits = |phase: &Phase| asked.is_none_or(|asked| asked == *phase);
                    let phases: Vec<Phase> = match asked {
                        Some(Phase::Train) => vec![Phase::Train],
                        _ => phases.iter().copied().filter(fits).collect(),
                    };
                    models.push(((*name).to_owned(), config, phases));
                }
            }
        }
        let mut work = Vec::new();
        for (name, config, phases) in models {
            for phase in phases {
                for &batch in &self.batch {
                    let one = Work::new(phase, batch, self.tokens);
                    work.push((name.clone(), config.clone(), one));
                }
            }
        }
        Ok(work)
    }
}

fn cells(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn print_machine(machine: &Machine) -> Result<()> {
    if let Some(processor) = &machine.processor {
        output::line(processor)?;
    }
    let threads = format!("{} threads", machine.threads);
    let mut rows = vec![cells(&["", "holds", "one thread", &threads, "unit"])];
    for peak in &machine.peaks {
        rows.push(cells(&[
            peak.arithmetic,
            "",
            &output::decimal(peak.one, "OP/s"),
            &output::decimal(peak.all, "OP/s"),
            peak.unit,
        ]));
    }
    for level in &machine.levels {
        let holds = level
            .capacity
            .map_or(String::new(), |bytes| output::bytes(bytes as f64));
        rows.push(cells(&[
            &level.name,
            &holds,
            &output::decimal(level.one, "B/s"),
            &output::decimal(level.all, "B/s"),
        ]));
    }
    output::table("lrrrl", &rows)?;
    output::line("")
}

fn print_entries(entries: &[Entry]) -> Result<()> {
    let mut rows = vec![cells(&[
        "model",
        "phase",
        "batch",
        "tokens",
        "work",
        "memory",
        "FLOP/B",
        "least",
        "measured",
        "of the roof",
        "bound and what would help",
    ])];
    for entry in entries {
        rows.push(vec![
            entry.model.clone(),
            entry.work.phase.name().to_owned(),
            entry.work.batch.to_string(),
            entry.work.tokens.to_string(),
            output::decimal(entry.flops as f64, "FLOP"),
            output::bytes(entry.memory_bytes as f64),
            format!("{:.1}", entry.intensity),
            milliseconds(entry.predicted_s),
            entry.measured_s.map_or("-".into(), milliseconds),
            entry
                .share
                .map_or("-".into(), |share| format!("{:.0} %", 100.0 * share)),
            entry.sentence(),
        ]);
    }
    output::table("llrrrrrrrrl", &rows)
}

fn print_ops(entry: &Entry) -> Result<()> {
    output::line(format!(
        "\n{} {}, {} x {}",
        entry.model,
        entry.work.phase.name(),
        entry.work.batch,
        entry.work.tokens
    ))?;
    let mut rows = vec![cells(&[
        "operation",
        "direction",
        "times",
        "work",
        "far",
        "near",
        "FLOP/B",
        "least",
        "bound",
    ])];
    for time in &entry.ops {
        let (op, times) = (&time.op, time.op.times as f64);
        let flops = (op.flops + op.vector_flops) as f64;
        rows.push(vec![
            op.name.to_owned(),
            op.direction.name().to_owned(),
            op.times.to_string(),
            output::decimal(times * flops, "FLOP"),
            output::bytes(times * op.far_bytes as f64),
            output::bytes(times * op.near_bytes as f64),
            format!("{:.1}", flops / op.bytes().max(1) as f64),
            milliseconds(time.seconds),
            time.bound.name().to_owned(),
        ]);
    }
    output::table("llrrrrrrl", &rows)
}

fn milliseconds(seconds: f64) -> String {
    let ms = 1e3 * seconds;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 10_000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{seconds:.1} s")
    }
}
