//! `[tune.lora]`: low-rank adapters in place of the weights of a model that training goes on from.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::validate::{at_least_one, positive};
use crate::error::ConfigProblem;
use crate::training::AdapterOptions;

/// `[tune.lora]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSection {
    /// Width of the factors.
    pub rank: usize,
    /// The adapter's weight is `alpha / rank` times the product of its factors.
    pub alpha: f64,
    /// Last parts of the published names of the layers that get one; query and value of every attention when empty.
    pub targets: Vec<String>,
}

impl Default for LoraSection {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            targets: Vec::new(),
        }
    }
}

impl LoraSection {
    /// Checks values.
    pub(crate) fn validate(&self) -> Result<(), ConfigProblem> {
        at_least_one("tune.lora.rank", self.rank as u64)?;
        positive("tune.lora.alpha", self.alpha)
    }

    /// The adapters of a run that starts from the model in `base`. `task_type` is `peft`'s name of what is learned, where it has one.
    pub(crate) fn options(
        &self,
        seed: u64,
        base: &Path,
        task_type: Option<&'static str>,
    ) -> AdapterOptions {
        AdapterOptions {
            rank: self.rank,
            alpha: self.alpha,
            targets: self.targets.clone(),
            seed,
            base: base.display().to_string(),
            task_type,
        }
    }
}

/// `[tune]` of pretraining that goes on from a model: what of it is trained.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContinueSection {
    /// Train low-rank adapters in place of the weights; parts that the model's files lack are trained whole.
    pub lora: Option<LoraSection>,
}

impl ContinueSection {
    /// Whether nothing is asked for, so that a new model's configuration need not have the section.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
