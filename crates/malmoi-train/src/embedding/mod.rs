//! Training vectors of sentences: a pretrained model and pairs of texts become a model whose cosines mean something.
//!
//! Pairs either belong together (contrastive: each first text finds its second one among those of the batch) or have a score
//! (similarity). Checkpoints are model directories in the layout of sentence-transformers. The loop is that of fine-tuning.

mod config;
mod pairs;
mod prepare;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use config::{
    Columns, DataSection, EmbeddingConfig, EmbeddingSection, EvaluateSection, LossKind,
};
pub use pairs::{PairTexts, evaluate, read_pairs};

use crate::error::TrainError;
use crate::training::{Job, Observer, RunOptions, Sections, Summary, Work};

/// Trains a model as the configuration says. Everything that happens is told to `observer`.
///
/// # Errors
/// [`TrainError`]; what was complete before stays. A new run that fails before its first step leaves no directory behind.
pub fn run(
    config: &EmbeddingConfig,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Summary, TrainError> {
    config.validate()?;
    crate::training::run(config, options, observer)
}

impl Job for EmbeddingConfig {
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
        crate::config::load::written(self)
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
