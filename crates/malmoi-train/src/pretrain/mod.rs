//! Pretraining: from a configuration and text to a model directory.
//!
//! [`run`] does it all. A run directory holds the resolved configuration, the tokenizer, metrics, event files and checkpoints;
//! every checkpoint is a complete model directory with the state that [`RunOptions::resume`] continues from, bit for bit.

mod card;
mod corpus;
mod evaluate;
mod objective;
mod prepare;
pub(crate) mod setup;
mod show;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::path::Path;

pub use crate::config::PretrainConfig;
use crate::error::TrainError;
pub use crate::training::{
    Accumulated, Evaluation, Event, Judge, Metric, Observer, RunOptions, Silent, Started,
    StepEvent, StepOptions, StepReport, StopReason, Summary, Trainer,
};
use crate::training::{Job, Sections, Work};
pub use evaluate::evaluate;
pub use setup::model_config;
pub use show::show;

/// Trains a model as the configuration says. Everything that happens is told to `observer`.
///
/// # Errors
/// [`TrainError`]; what was complete before stays. A new run that fails before its first step leaves no directory behind.
pub fn run(
    config: &PretrainConfig,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Summary, TrainError> {
    config.validate()?;
    crate::training::run(config, options, observer)
}

impl Job for PretrainConfig {
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
