//! The sections of a run configuration, with their defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(super) fn default_seed() -> u64 {
    1
}

/// `[model]`: a preset, an architecture and its sizes, or the directory of a model that training continues. Keys given here override the preset; what
/// neither gives is the architecture's published default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Name of a published model shape ("bert-base", "gpt2").
    pub preset: Option<String>,
    /// The architecture, when there is no preset: a `model_type` of published configurations (`bert`, `gpt2`, `t5`, …), or `gpt1`.
    pub architecture: Option<String>,
    /// A model directory whose weights and tokenizer training starts from.
    pub path: Option<PathBuf>,
    /// Rows of the embedding; by default as many as the tokenizer has tokens.
    pub vocab_size: Option<usize>,
    /// Width of the residual stream.
    pub d_model: Option<usize>,
    /// Number of blocks.
    pub n_layers: Option<usize>,
    /// Attention heads of a block.
    pub n_heads: Option<usize>,
    /// Width inside the feed-forward layer.
    pub d_ff: Option<usize>,
    /// Number of positions.
    pub max_len: Option<usize>,
    /// Standard deviation of the initial weights.
    pub init_std: Option<f64>,
    /// Keys of the published configuration (`config.json`) that the ones above do not reach, over those of the preset or architecture:
    /// `published = { feed_forward_proj = "gated-gelu" }`.
    pub published: Option<toml::Table>,
}

/// `[tokenizer]`: the directory of one, or how to train one into the run. Exactly one of the two; neither where `model.path` brings its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSection {
    /// A tokenizer directory.
    pub path: Option<PathBuf>,
    /// Train one on the training text.
    pub train: Option<TrainTokenizer>,
}

/// How a tokenizer is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainTokenizer {
    /// The algorithm.
    pub kind: TokenizerKind,
    /// Tokens, special ones included. `char` takes every character of the text when this is absent.
    pub vocab_size: Option<usize>,
    /// Lower-case the text first.
    #[serde(default)]
    pub lowercase: bool,
    /// Least count of a pair or a character; by default 2, and 1 for `char`.
    pub min_frequency: Option<u64>,
}

/// The algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// WordPiece with BERT's special tokens.
    Wordpiece,
    /// Byte-level BPE.
    Bpe,
    /// Unigram.
    Unigram,
    /// One token a character of the training text, no special tokens.
    Char,
}

/// One path or a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One path.
    One(PathBuf),
    /// Several paths, read in order.
    Many(Vec<PathBuf>),
}

impl OneOrMany {
    /// The paths.
    pub fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::One(path) => vec![path.clone()],
            Self::Many(paths) => paths.clone(),
        }
    }
}

/// `[data]`: the text. Relative paths start at `dir`, and `dir` at the working directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// Where the files are.
    pub dir: Option<PathBuf>,
    /// Training files.
    pub train: OneOrMany,
    /// Validation files.
    pub valid: Option<OneOrMany>,
    /// How documents are told apart in plain text.
    #[serde(default)]
    pub documents: Documents,
    /// Cut lines into sentences at their punctuation. Objectives over pairs want sentences.
    #[serde(default)]
    pub split_sentences: bool,
    /// Field or column of the text in `.jsonl`, `.tsv` and `.csv` files, whose rows are documents; by default "text".
    pub column: Option<String>,
    /// Encoding of the files.
    #[serde(default = "default_encoding")]
    pub encoding: String,
}

fn default_encoding() -> String {
    "utf-8".into()
}

/// What a document is in plain text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Documents {
    /// Empty lines separate documents where there are any, else every line is one.
    #[default]
    Auto,
    /// Every line is one.
    Line,
    /// An empty line ends one; the lines are its sentences.
    BlankLine,
    /// A file is one; line ends stay in the text.
    File,
}

/// `[train]`: how long and in which batches. Exactly one of `steps`, `epochs` and `tokens`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Optimiser steps.
    pub steps: Option<u64>,
    /// Passes over the training text.
    pub epochs: Option<f64>,
    /// Tokens to train on, repetitions counted.
    pub tokens: Option<u64>,
    /// Sequences of a forward pass.
    pub batch_size: usize,
    /// Forward passes of a step.
    #[serde(default = "default_accumulation")]
    pub accumulation: usize,
    /// Largest global norm of the gradient; 0 for no clipping.
    #[serde(default = "default_clip_norm")]
    pub clip_norm: f64,
    /// Dropout everywhere in the model; by default what the preset says.
    pub dropout: Option<f64>,
    /// Arithmetic: "f32" or "bf16".
    #[serde(default = "default_precision")]
    pub precision: String,
    /// Compute the activations of blocks again in the backward pass instead of keeping them: the same numbers for less memory and
    /// more time.
    #[serde(default)]
    pub recompute: bool,
    /// Stop after this many evaluations without a lower validation loss.
    pub early_stop: Option<u64>,
}

fn default_accumulation() -> usize {
    1
}

fn default_clip_norm() -> f64 {
    1.0
}

fn default_precision() -> String {
    "f32".into()
}

/// `[evaluate]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateSection {
    /// Evaluate every so many steps, and at the end; 0 for the end alone.
    pub every: u64,
    /// Batches of an evaluation; absent for the whole validation text.
    pub batches: Option<usize>,
}

impl Default for EvaluateSection {
    fn default() -> Self {
        Self {
            every: 500,
            batches: None,
        }
    }
}

/// `[checkpoint]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSection {
    /// Save every so many steps, and at the end; 0 for the end alone.
    pub every: u64,
    /// How many of the latest to keep; the best is kept besides.
    pub keep: usize,
}

impl Default for CheckpointSection {
    fn default() -> Self {
        Self {
            every: 500,
            keep: 2,
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Write a line of metrics every so many steps.
    pub every: u64,
    /// Write TensorBoard event files as well.
    pub tensorboard: bool,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            every: 10,
            tensorboard: true,
        }
    }
}
