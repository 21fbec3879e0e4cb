//! The configuration of a pretraining run: a TOML file, every key of which is known, checked once.
//!
//! ```toml
//! seed = 1
//!
//! [model]
//! preset = "gpt2"            # or architecture = "bert" | "gpt1" | "gpt2"; the other keys override it
//! d_model = 128
//!
//! [tokenizer]
//! train = { kind = "bpe", vocab_size = 8000 }
//!
//! [data]
//! dir = "data/en_corpus_shakespeare"
//! train = "train.txt"
//! valid = "valid.txt"
//!
//! [objective]
//! kind = "clm"
//! context = 128
//!
//! [train]
//! steps = 2000
//! ```
//!
//! [`PretrainConfig::load`] reads a file, applies `--set a.b=c` overrides and validates; what it returns holds every default,
//! and [`PretrainConfig::to_toml`] writes it the way the run saves it.

pub(crate) mod load;
mod lora;
mod objective;
mod optimizer;
mod schedule;
mod sections;
#[cfg(test)]
mod tests;
pub(crate) mod validate;

use serde::{Deserialize, Serialize};

pub use lora::{ContinueSection, LoraSection};
pub use objective::{
    Clm, ClmSampling, Denoising, Mlm, Objective, Rtd, SpanCorruption, Text2text, TextTask, Tlm,
};
pub use optimizer::OptimizerSection;
pub use schedule::{ScheduleKind, ScheduleSection};
pub use sections::{
    CheckpointSection, DataSection, Documents, EvaluateSection, LogSection, ModelSection,
    OneOrMany, TokenizerKind, TokenizerSection, TrainSection, TrainTokenizer,
};

/// The configuration of a pretraining run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Every random draw of the run derives from it.
    #[serde(default = "sections::default_seed")]
    pub seed: u64,
    /// What is trained.
    pub model: ModelSection,
    /// How text becomes tokens.
    #[serde(default)]
    pub tokenizer: TokenizerSection,
    /// The text.
    pub data: DataSection,
    /// What the model learns to predict.
    pub objective: Objective,
    /// How parameters move.
    #[serde(default)]
    pub optimizer: OptimizerSection,
    /// The learning rate over time.
    #[serde(default)]
    pub schedule: ScheduleSection,
    /// How long, in which batches.
    pub train: TrainSection,
    /// What of a model that training continues is trained.
    #[serde(default, skip_serializing_if = "ContinueSection::is_default")]
    pub tune: ContinueSection,
    /// Measuring on the validation text.
    #[serde(default)]
    pub evaluate: EvaluateSection,
    /// Saving.
    #[serde(default)]
    pub checkpoint: CheckpointSection,
    /// Reporting.
    #[serde(default)]
    pub log: LogSection,
}
