//! What a checkpoint holds beside the model: the optimiser's vectors and the trainer's numbers.

use std::path::Path;

use malmoi_checkpoint::{NamedTensor, Tensors, read_json, write_json, write_safetensors};
use malmoi_models::ParameterInfo;
use serde::{Deserialize, Serialize};

use super::evaluation::Evaluation;
use crate::error::TrainError;
use crate::optim::{Optimizer, OptimizerState};

/// File of the optimiser's vectors.
const OPTIMIZER: &str = "optimizer.safetensors";
/// File of the trainer's numbers.
const TRAINER: &str = "trainer_state.json";
/// Version of both.
const VERSION: u64 = 2;

/// The trainer's numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainerState {
    pub(super) version: u64,
    /// Steps done.
    pub(crate) step: u64,
    /// Seed of the run.
    pub(crate) seed: u64,
    /// Tokens trained on so far.
    pub(crate) tokens: u64,
    /// Seconds of training so far, over all processes.
    pub(super) seconds: f64,
    /// The best evaluation.
    pub(super) best: Option<Best>,
    /// The last evaluation.
    pub(crate) last_evaluation: Option<SavedEvaluation>,
    /// Evaluations since the best one.
    pub(super) without_improvement: u64,
    /// Identity of the data: (training text, validation text, vocabulary).
    pub(super) data: DataIdentity,
    /// Instruction set of the process that wrote it; equal bits are promised on the same one.
    pub(super) instruction_set: String,
    /// Number of updates of each parameter.
    pub(super) updates: std::collections::BTreeMap<String, u64>,
}

/// The best evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Best {
    pub(crate) step: u64,
    /// The number that makes it the best.
    pub(super) value: f64,
}

/// An evaluation and when it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedEvaluation {
    pub(crate) step: u64,
    pub(crate) found: Evaluation,
}

/// Checksums that tell whether a resumed run sees the data it began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataIdentity {
    pub(crate) train: String,
    pub(crate) valid: Option<String>,
    pub(crate) vocabulary: String,
}

impl DataIdentity {
    /// Refuses data that differs from what the run began with.
    pub(super) fn check(&self, now: &Self) -> Result<(), TrainError> {
        let absent = || "none".to_string();
        let valid = |identity: &Self| identity.valid.clone().unwrap_or_else(absent);
        let parts = [
            ("tokenizer", self.vocabulary.clone(), now.vocabulary.clone()),
            ("training corpus", self.train.clone(), now.train.clone()),
            ("validation corpus", valid(self), valid(now)),
        ];
        match parts.into_iter().find(|(_, before, now)| before != now) {
            Some((what, before, now)) => Err(TrainError::CorpusChanged { what, before, now }),
            None => Ok(()),
        }
    }
}

impl TrainerState {
    /// The state before the first step.
    pub(super) fn new(seed: u64, data: DataIdentity) -> Self {
        Self {
            version: VERSION,
            step: 0,
            seed,
            tokens: 0,
            seconds: 0.0,
            best: None,
            last_evaluation: None,
            without_improvement: 0,
            data,
            instruction_set: malmoi_kernels::cpu::isa().name().to_string(),
            updates: std::collections::BTreeMap::new(),
        }
    }

    /// Writes both files into a checkpoint that is being made.
    pub(super) fn save(&mut self, dir: &Path, optimizer: &Optimizer) -> Result<(), TrainError> {
        let state = optimizer.state();
        self.updates.clone_from(&state.steps);
        self.instruction_set = malmoi_kernels::cpu::isa().name().to_string();
        let tensors: Vec<NamedTensor<'_>> = state
            .vectors
            .iter()
            .map(|(name, vector)| {
                NamedTensor::new(name.as_str(), &[vector.len()], vector.as_slice())
            })
            .collect();
        write_safetensors(
            dir.join(OPTIMIZER),
            &tensors,
            &[("format", "malmoi-optimizer"), ("version", "1")],
        )?;
        let value = serde_json::to_value(&*self).map_err(|e| bad(dir, e))?;
        write_json(&dir.join(TRAINER), &value)?;
        Ok(())
    }

    /// Reads both files of a checkpoint.
    pub(super) fn load(
        dir: &Path,
        parameters: &[ParameterInfo],
        optimizer: &mut Optimizer,
    ) -> Result<Self, TrainError> {
        let value = read_json(&dir.join(TRAINER))?;
        if value["version"] != VERSION {
            return Err(bad(
                dir,
                format!(
                    "`{TRAINER}` has version {}, expected {VERSION}",
                    value["version"]
                ),
            ));
        }
        let this: Self =
            serde_json::from_value(value).map_err(|e| bad(dir, format!("`{TRAINER}`: {e}")))?;
        let tensors = Tensors::open(dir.join(OPTIMIZER))?;
        let mut state = OptimizerState {
            steps: this.updates.clone(),
            ..OptimizerState::default()
        };
        for name in tensors.names() {
            state
                .vectors
                .insert(name.to_string(), tensors.to_f32(name)?.1);
        }
        let shapes = parameters
            .iter()
            .map(|info| (info.name.as_str(), info.shape.as_slice()));
        optimizer.load(state, shapes).map_err(|e| bad(dir, e))?;
        Ok(this)
    }
}

fn bad(path: &Path, problem: impl ToString) -> TrainError {
    TrainError::BadState {
        path: path.to_path_buf(),
        problem: problem.to_string(),
    }
}
