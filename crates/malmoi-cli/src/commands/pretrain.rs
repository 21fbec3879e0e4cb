//! `malmoi pretrain`.

use std::path::{Path, PathBuf};

use clap::Args;
use malmoi_train::config::PretrainConfig;
use malmoi_train::pretrain::{self, Event, Silent, StopReason};

use crate::arguments::Global;
use crate::failure::Result;
use crate::output;
use crate::profile::ProfileArguments;
use crate::training::{Watcher, describe, run_options};

/// Pretrain a model as a configuration file says
#[derive(Args, Debug)]
#[command(
    after_help = "Ctrl-C writes a checkpoint and ends; --resume continues it bit for bit.\nThe run folder holds config.toml, metrics.jsonl, tensorboard/ and checkpoints/; `best` and `last` are model directories.\n\nExamples:\n  \
                  malmoi pretrain configs/shakespeare-char.toml --out malmoi-shakespeare\n  \
                  malmoi pretrain configs/bert-korean-small.toml --out malmoi-bert --set train.steps=20000"
)]
pub struct Pretrain {
    /// Configuration file (TOML)
    config: PathBuf,
    /// Folder of the run (default: malmoi- and the name of the configuration)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Continue the run in --out from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// Print N training examples as the model sees them, and do not train
    #[arg(long, value_name = "N")]
    show: Option<u64>,
    /// Override a key of the configuration; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of the text files, in place of data.dir
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    profile: ProfileArguments,
}

impl Pretrain {
    pub fn run(self, global: &Global) -> Result<()> {
        let mut config = PretrainConfig::load(&self.config, &self.set)?;
        if let Some(dir) = &self.data_dir {
            config.data.dir = Some(dir.clone());
        }
        let stem = self
            .config
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("malmoi-{stem}")));
        if let Some(n) = self.show {
            for (number, example) in pretrain::show(&config, Some(&out), n, &mut Silent)?
                .into_iter()
                .enumerate()
            {
                output::line(format!("{}\t{example}", number + 1))?;
            }
            return Ok(());
        }
        train(&config, &out, self.resume, &self.profile, global)
    }
}

/// Trains as a configuration says, and says what came of it.
pub fn train(
    config: &PretrainConfig,
    out: &Path,
    resume: bool,
    profile: &ProfileArguments,
    global: &Global,
) -> Result<()> {
    let options = run_options(out, resume)?;
    profile.start();
    let mut watcher = Watcher::new(global.quiet);
    let summary = pretrain::run(config, &options, &mut |event: &Event<'_>| {
        watcher.event(event)
    })?;
    watcher.finish();
    profile.finish(&config.train.precision)?;
    output::line(format!(
        "{}: {} of {} steps, {} tokens in {:.0} s ({:.1} ms a step)",
        summary.reason.describe(),
        output::thousands(summary.step as usize),
        output::thousands(summary.steps as usize),
        output::thousands(summary.tokens as usize),
        summary.seconds,
        summary.milliseconds_per_step
    ))?;
    if let Some(found) = &summary.evaluation {
        output::line(format!("validation: {}", describe(found)))?;
    }
    let model = summary
        .best_checkpoint
        .as_ref()
        .unwrap_or(&summary.last_checkpoint);
    if summary.reason != StopReason::Interrupted {
        output::line(format!("model: {}", model.display()))?;
    }
    Ok(())
}
