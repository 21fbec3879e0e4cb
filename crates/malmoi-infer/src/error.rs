//! Why a model cannot be used as asked.

use malmoi_models::{BatchError, ModelError};
use malmoi_text::TextError;

use crate::sampling::SamplingError;

/// Everything that can go wrong while a model is used. Messages say what was expected, what was found and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// A batch that the model refuses.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The model refused the work.
    #[error(transparent)]
    Model(ModelError),
    /// A sampling setting out of range, or logits that are no numbers.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The tokenizer refused a text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Constrained output that cannot be.
    #[error("constrained output: {0}")]
    Constraint(String),
    /// A text that needs more cache than there is.
    #[error(
        "{tokens} tokens need {need} bytes of keys and values, but all texts together may have {limit}: ask for fewer tokens, or \
         raise the bound"
    )]
    CacheTooSmall {
        /// Tokens of prompt and text.
        tokens: usize,
        /// Bytes they need.
        need: usize,
        /// Bytes there are.
        limit: usize,
    },
    /// The model has another head or direction than the work needs.
    #[error("{work} needs {expected}, but this is a {found} model: choose another model")]
    WrongModel {
        /// The work, such as "generation".
        work: &'static str,
        /// The kind of model that can do it.
        expected: &'static str,
        /// `model_type` and head of the model given.
        found: String,
    },
    /// A prompt that leaves no position for a new token.
    #[error(
        "prompt {row} has {tokens} tokens, but the model has {max_len} positions and generation needs one more than the prompt: \
         shorten the prompt"
    )]
    PromptTooLong {
        /// Which prompt, counted from 1.
        row: usize,
        /// Its tokens.
        tokens: usize,
        /// Positions of the model.
        max_len: usize,
    },
    /// A prompt without tokens and no token that could start it.
    #[error(
        "prompt {row} is empty and the tokenizer has no token that starts a text: write at least one word"
    )]
    EmptyPrompt {
        /// Which prompt, counted from 1.
        row: usize,
    },
    /// Settings that contradict each other or are out of range.
    #[error("{name} is {value}: expected {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// Tokenizer and model do not have the same vocabulary.
    #[error(
        "the tokenizer has {tokenizer} tokens (largest id {largest}), but the model's vocabulary has {model}: use the tokenizer \
         that belongs to the model"
    )]
    Vocabulary {
        /// Number of tokens of the tokenizer.
        tokenizer: usize,
        /// Its largest id.
        largest: u32,
        /// Size of the model's vocabulary.
        model: usize,
    },
    /// The tokenizer lacks a token that the work needs.
    #[error(
        "{work} needs a {token} token, but the tokenizer has none: name it in tokenizer_config.json or special_tokens_map.json"
    )]
    NoSpecialToken {
        /// The work.
        work: &'static str,
        /// The kind of token, such as "mask".
        token: &'static str,
    },
    /// A text without the blank that should be filled.
    #[error("text {row} has no {mask} to fill: put {mask} where a word is missing")]
    NoBlank {
        /// Which text, counted from 1.
        row: usize,
        /// How the mask token is written.
        mask: String,
    },
    /// A text longer than the model's positions, where nothing may be cut.
    #[error("text {row} has {tokens} tokens, but the model has {max_len} positions: shorten it")]
    TextTooLong {
        /// Which text, counted from 1.
        row: usize,
        /// Its tokens.
        tokens: usize,
        /// Positions of the model.
        max_len: usize,
    },
    /// A text too short to be scored.
    #[error("nothing to score: {found} token(s) found, expected at least {expected}")]
    TooShort {
        /// Tokens found.
        found: usize,
        /// Tokens needed.
        expected: usize,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl From<ModelError> for InferError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Batch(error) => Self::Batch(error),
            error => Self::Model(error),
        }
    }
}
