//! Fine-tuning: a pretrained model, a data set and a task become a model for the task.
//!
//! [`run`] makes a run directory like that of pretraining: resolved configuration, metrics, checkpoints that are complete model
//! directories, `best` and `last`, resume bit for bit. What a task is, `malmoi-tasks` knows; here are its examples, its loss and the
//! recipe (Devlin et al. 2019, appendix A.3: 3 epochs, batches of 32, a rate of 5e-5 that falls in a line after a warm-up of a tenth).

mod config;
mod data;
mod model;
mod prepare;
mod sweep;
#[cfg(test)]
mod tests;
mod tune;

use std::path::Path;

pub(crate) use config::resolved;
pub use config::{DataSection, EvaluateSection, FinetuneConfig, StartSection};
pub use data::{ExampleOptions, examples};
pub use model::{SavedTask, encoder, evaluate, read_cases, score, task_tokens};
pub(crate) use model::{open_with, with_dropout};
pub use sweep::{SweepRow, SweepSection, SweepSummary, sweep};
pub use tune::{ClassWeights, TuneSection};

use crate::error::TrainError;
use crate::training::{Job, Observer, RunOptions, Sections, Summary, Work};

/// Fine-tunes a model as the configuration says. Everything that happens is told to `observer`.
///
/// # Errors
/// [`TrainError`]; what was complete before stays. A new run that fails before its first step leaves no directory behind.
pub fn run(
    config: &FinetuneConfig,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Summary, TrainError> {
    config.validate()?;
    crate::training::run(config, options, observer)
}

impl Job for FinetuneConfig {
    fn sections(&self) -> Sections<'_> {
        Sections {
            seed: self.seed,
            optimizer: &self.optimizer,
            schedule: &self.schedule,
            train: &self.train,
            keep: self.checkpoint.keep,
            log: &self.log,
        }
    }

    fn to_toml(&self) -> Result<String, TrainError> {
        Self::to_toml(self)
    }

    fn changed_keys(&self, saved: &Path) -> Result<Vec<String>, TrainError> {
        Ok(Self::load(saved, &[])?.changes(self))
    }

    fn prepare(
        &self,
        out: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Box<dyn Work>, TrainError> {
        Ok(Box::new(prepare::prepare(self, out, observer)?))
    }
}
