//! Architectures: configuration, forward pass and weight names of each, and one [`Model`] over all of them.
//!
//! A folder an architecture: `config.rs` reads and writes the published configuration, `model.rs` spells out the layers,
//! `weights.rs` is the table of published names. [`Model`] opens, runs, trains and saves any of them with plain vectors
//! in and out.

mod architecture;
pub mod bert;
pub mod config;
mod config_keys;
pub mod error;
pub mod gpt1;
pub mod gpt2;
pub mod gpt_neo;
pub mod head;
pub mod info;
pub mod labels;
mod layers;
pub mod llama;
mod loss;
pub mod model;
pub mod modernbert;
pub mod names;
pub mod precision;
mod registry;
pub mod rope_keys;
mod save;
pub mod shape;
mod states;
pub mod t5;
pub mod vanilla;

pub use config::{Direction, ModelConfig, Sizes, SpecialTokens};
pub use error::ModelError;
pub use head::{Head, ProblemType};
pub use info::ModelInfo;
pub use labels::{ClassTargets, Labels, LossPart, LossReport, SpanTargets, VocabularyTargets};
pub use loss::NamedGradient;
pub use malmoi_nn::parameters::{Mode, ParameterInfo};
pub use malmoi_nn::{BatchError, KeyRows, KvCache, Mask, PackedBatch, Pass};
pub use model::{Model, OpenOptions};
pub use precision::Precision;
pub use save::SaveOptions;
pub use shape::{AttentionShape, LayerShape, ModelShape, StackKind, StackShape, VocabularyShape};
pub use states::StatesRun;
