//! Architectures: configuration, forward pass and weight names of each, and one [`Model`] over all of them.
//!
//! A folder an architecture: `config.rs` reads and writes the published configuration, `model.rs` spells out the layers,
//! `weights.rs` is the table of published names. [`Model`] opens, runs, trains and saves any of them with plain vectors
//! in and out.

mod albert;
mod architecture;
pub mod bart;
mod bert;
mod both_sides;
pub mod common;
pub mod config;
mod config_keys;
pub mod decoder;
mod distilbert;
mod electra;
pub mod encoder;
pub mod error;
mod family;
mod gpt1;
mod gpt2;
mod gpt_neo;
pub mod head;
pub mod info;
pub mod labels;
mod layers;
mod llama;
mod loss;
pub mod model;
pub mod modernbert;
pub mod names;
pub mod precision;
pub mod published;
pub mod reaches;
mod registry;
mod roberta;
pub mod rope_keys;
mod save;
mod sentence;
pub mod shape;
mod side;
mod states;
pub mod t5;
pub mod vanilla;
mod xlm;

pub use config::{Direction, ModelConfig, Sizes, SpecialTokens};
pub use decoder::DecoderConfig;
pub use electra::files::GENERATOR_FOLDER;
pub use encoder::EncoderConfig;
pub use error::ModelError;
pub use head::{Head, ProblemType};
pub use info::ModelInfo;
pub use labels::{
    BinaryTargets, ClassTargets, DETECTION_FACTOR, Labels, LossPart, LossReport, ReplacedTokens,
    SpanTargets, VocabularyTargets,
};
pub use loss::NamedGradient;
pub use malmoi_nn::buffers::{kept_bytes, release_idle};
pub use malmoi_nn::parameters::{Mode, ParameterInfo};
pub use malmoi_nn::{BatchError, KeyRows, KvCache, Mask, NormPlace, PackedBatch, Pass, Sharing};
pub use model::{Model, OpenOptions, is_dense};
pub use precision::Precision;
pub use save::SaveOptions;
pub use sentence::{Pooling, SentenceLayout, SentenceLoss, SentenceTargets};
pub use shape::{AttentionShape, LayerShape, ModelShape, StackKind, StackShape, VocabularyShape};
pub use states::StatesRun;
