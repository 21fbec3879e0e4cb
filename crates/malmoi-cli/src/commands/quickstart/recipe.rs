//! The two training runs of the quickstart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use malmoi_checkpoint::directory::{CARD, CONFIG};
use malmoi_checkpoint::{ExtraContent, ExtraFile, Overwrite};
use malmoi_infer::Pipeline;
use malmoi_models::{Mode, Model, OpenOptions, SaveOptions};
use malmoi_text::Tokenizer;
use malmoi_train::config::PretrainConfig;
use malmoi_train::pretrain::{self, Event, RunOptions, StopReason, Summary};
use serde_json::json;

use crate::arguments::Global;
use crate::failure::{Failure, INTERRUPTED, Result};
use crate::training::Watcher;
use crate::{interrupt, output};

/// Longest times of the two trainings; with tokenizers and use they stay below four minutes. The steps are chosen to need less on
/// two cores; a slower machine is cut here, and told so.
const BERT_LIMIT: Duration = Duration::from_secs(130);
const GPT_LIMIT: Duration = Duration::from_secs(80);
/// Columns of the loss table.
const COLUMNS: usize = 8;
/// Bars of the loss curve.
const BARS: usize = 48;

/// One training run.
pub struct Recipe<'a> {
    name: &'static str,
    text: &'static str,
    time_limit: Duration,
    data: &'a Path,
    out: &'a Path,
}

/// Where the tokenizer of a model lies before its run.
pub fn tokenizer_dir(out: &Path, name: &str) -> PathBuf {
    out.join("runs").join(format!("{name}-tokenizer"))
}

/// Makes the output folder. What an earlier quickstart left there is replaced; anything else is refused.
pub fn prepare_out(out: &Path) -> Result<()> {
    let runs = out.join("runs");
    if out.is_dir() {
        let ours = runs.is_dir()
            || std::fs::read_dir(out)
                .map_err(|error| Failure::io(out, &error))?
                .next()
                .is_none();
        if !ours {
            return Err(Failure::input(format!(
                "{} exists and is not the folder of an earlier quickstart: choose another --out",
                out.display()
            )));
        }
    }
    if runs.is_dir() {
        std::fs::remove_dir_all(&runs).map_err(|error| Failure::io(&runs, &error))?;
    }
    std::fs::create_dir_all(&runs).map_err(|error| Failure::io(&runs, &error))
}

impl<'a> Recipe<'a> {
    pub fn bert(data: &'a Path, out: &'a Path) -> Self {
        Self {
            name: "bert",
            text: include_str!("bert.toml"),
            time_limit: BERT_LIMIT,
            data,
            out,
        }
    }

    pub fn gpt(data: &'a Path, out: &'a Path) -> Self {
        Self {
            name: "gpt",
            text: include_str!("gpt.toml"),
            time_limit: GPT_LIMIT,
            data,
            out,
        }
    }

    /// Trains, shows the loss, writes the model folder and opens it again, so that what is used is what was saved.
    pub fn train(&self, global: &Global) -> Result<Pipeline> {
        let mut config = PretrainConfig::parse(
            self.text,
            &format!("the quickstart's {}.toml", self.name),
            &[],
        )?;
        config.data.dir = Some(self.data.to_path_buf());
        let tokenizer = tokenizer_dir(self.out, self.name);
        config.tokenizer.path = Some(tokenizer.clone());
        let options = RunOptions {
            out: self.out.join("runs").join(self.name),
            resume: false,
            interrupt: Some(interrupt::graceful()),
            time_limit: Some(self.time_limit),
        };
        let mut watcher = Watcher::new(global.quiet);
        let summary = pretrain::run(&config, &options, &mut |event: &Event<'_>| {
            watcher.event(event)
        })?;
        watcher.finish();
        if summary.reason == StopReason::Interrupted {
            return Err(Failure::Said(INTERRUPTED));
        }
        self.report(&summary, &watcher)?;
        let target = self.out.join(self.name);
        save(&summary.last_checkpoint, &target)?;
        Ok(Pipeline::open(&target, &Default::default())?)
    }

    fn report(&self, summary: &Summary, watcher: &Watcher) -> Result<()> {
        output::line(format!(
            "   {} steps, {} tokens, {:.0} s ({:.0} ms a step, {} tokens/s)",
            output::thousands(summary.step as usize),
            output::thousands(summary.tokens as usize),
            summary.seconds,
            summary.milliseconds_per_step,
            output::thousands(
                (summary.tokens as f64
                    / summary.step.max(1) as f64
                    / summary.milliseconds_per_step.max(1e-9)
                    * 1e3) as usize
            )
        ))?;
        if summary.reason == StopReason::TimeLimit {
            output::line(format!(
                "   This machine is slower than expected: training was cut after {} s, {} of {} steps, so the results are weaker and differ from run to run.",
                self.time_limit.as_secs(),
                summary.step,
                summary.steps
            ))?;
        }
        let curve = watcher.curve(COLUMNS);
        let row =
            |head: &str, cells: Vec<String>| [vec![String::new(), head.to_owned()], cells].concat();
        output::table(
            &format!("ll{}", "r".repeat(COLUMNS)),
            &[
                row(
                    "step",
                    curve
                        .iter()
                        .map(|(step, _)| output::thousands(*step as usize))
                        .collect(),
                ),
                row(
                    "loss",
                    curve.iter().map(|(_, loss)| format!("{loss:.3}")).collect(),
                ),
            ],
        )?;
        let bars: Vec<f64> = watcher.curve(BARS).iter().map(|(_, loss)| *loss).collect();
        output::line(format!("  {}", output::sparkline(&bars)))?;
        match &summary.evaluation {
            Some(found) => output::line(format!(
                "   unseen text: loss {:.3}, perplexity {:.1}",
                found.get("token_loss").unwrap_or(found.loss),
                found.get("perplexity").unwrap_or(f64::NAN)
            )),
            None => Ok(()),
        }
    }
}

/// Writes the model of a checkpoint, without the trainer's state, as a model folder.
fn save(checkpoint: &Path, target: &Path) -> Result<()> {
    let model = Model::open(
        checkpoint,
        &OpenOptions {
            mode: Mode::Inference,
            ..OpenOptions::default()
        },
    )?;
    let tokenizer = Tokenizer::load(checkpoint)?;
    let mut files = Vec::new();
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
    ] {
        let path = checkpoint.join(name);
        if path.is_file() {
            files.push((name, path));
        }
    }
    let extra: Vec<ExtraFile<'_>> = files
        .iter()
        .map(|(name, path)| ExtraFile {
            name,
            content: ExtraContent::CopyOf(path),
        })
        .collect();
    let special = tokenizer.special();
    let generation = json!({
        "bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad.or(special.eos), "max_new_tokens": 64,
    });
    let card = std::fs::read_to_string(checkpoint.join(CARD)).ok();
    let options = SaveOptions {
        extra: &extra,
        generation_config: model.config().is_causal().then_some(&generation),
        card: card.as_deref(),
        overwrite: if target.join(CONFIG).exists() {
            Overwrite::Replace
        } else {
            Overwrite::Refuse
        },
        max_shard_bytes: None,
    };
    Ok(model.save(target, &options)?)
}
