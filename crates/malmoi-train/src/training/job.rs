//! What a run is given: the sections of its configuration, and the work itself.

use std::path::{Path, PathBuf};

use malmoi_models::{Head, Model};

use super::evaluation::{Evaluation, Judge};
use super::event::Observer;
use super::state::{DataIdentity, TrainerState};
use super::tuning::Tuning;
use crate::config::{LogSection, OptimizerSection, ScheduleSection, TrainSection};
use crate::data::Examples;
use crate::error::TrainError;

/// The sections that every kind of run has.
#[derive(Clone, Copy)]
pub(crate) struct Sections<'a> {
    pub(crate) seed: u64,
    pub(crate) optimizer: &'a OptimizerSection,
    pub(crate) schedule: &'a ScheduleSection,
    pub(crate) train: &'a TrainSection,
    /// How many of the latest checkpoints are kept.
    pub(crate) keep: usize,
    pub(crate) log: &'a LogSection,
}

/// A configuration that a run can be made of.
pub(crate) trait Job {
    /// The common sections.
    fn sections(&self) -> Sections<'_>;

    /// The resolved configuration, as the run keeps it.
    fn to_toml(&self) -> Result<String, TrainError>;

    /// Keys in which this configuration differs from the one a run was started with.
    fn changed_keys(&self, saved: &Path) -> Result<Vec<String>, TrainError>;

    /// Makes everything ready in the run directory `out`.
    fn prepare(&self, out: &Path, observer: &mut dyn Observer)
    -> Result<Box<dyn Work>, TrainError>;
}

/// What a run trains and measures.
pub(crate) trait Work: Sync {
    /// Training examples.
    fn examples(&self) -> &dyn Examples;

    /// Tokens of the training data, and of the validation data.
    fn tokens(&self) -> (u64, Option<u64>);

    /// What the data is known by.
    fn identity(&self) -> DataIdentity;

    /// The model before the first step.
    fn start(&self) -> Result<Model, TrainError>;

    /// Which parameters are trained, and how fast. `checkpoint` is what the run goes on from.
    fn tuning(&self, _model: &Model, _checkpoint: Option<&Path>) -> Result<Tuning, TrainError> {
        Ok(Tuning::default())
    }

    /// The head that is trained, with which a checkpoint is opened again.
    fn head(&self) -> Head;

    /// Parts of the names of parameters that the loss does not depend on; every other one must get a gradient.
    fn untrained(&self) -> &'static [&'static str] {
        &[]
    }

    /// Measures the model on the validation data; asked only where there is some.
    fn evaluate(&self, model: &Model) -> Result<Evaluation, TrainError>;

    /// Steps between evaluations, and between checkpoints; 0 for the end alone.
    fn intervals(&self) -> (u64, u64);

    /// Which number makes a checkpoint the best.
    fn judge(&self) -> Judge;

    /// Files that go into every checkpoint beside the model: name and where it is copied from.
    fn files(&self) -> Result<Vec<(String, PathBuf)>, TrainError>;

    /// The model card of a checkpoint.
    fn card(&self, model: &Model, state: &TrainerState) -> String;
}

/// Steps of the whole run.
pub(crate) fn total_steps(train: &TrainSection, examples: &dyn Examples) -> u64 {
    let per_step = (train.batch_size * train.accumulation) as f64;
    let steps = match (train.steps, train.epochs, train.tokens) {
        (Some(steps), ..) => return steps,
        (None, Some(epochs), _) => epochs * examples.per_epoch() as f64 / per_step,
        (None, None, tokens) => tokens.unwrap_or(0) as f64 / (examples.mean_tokens() * per_step),
    };
    (steps.ceil() as u64).max(1)
}
