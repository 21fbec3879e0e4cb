//! Using trained models: generation, blanks, embeddings, perplexity.
//!
//! The functions of the modules take and return ids and plain numbers; [`Pipeline`] puts a tokenizer in front of them.

pub mod beam;
pub mod constraint;
pub mod embed;
pub mod engine;
mod error;
pub mod fill_mask;
pub mod generate;
pub mod likelihood;
pub mod masked_accuracy;
pub mod perplexity;
pub mod pipeline;
pub mod predict;
pub mod retrieval;
pub mod sampling;
mod stop;
#[cfg(test)]
mod tests;
pub mod text_stream;
pub mod zeroshot;
pub mod zeroshot_classify;

pub use error::InferError;
pub use pipeline::Pipeline;

use malmoi_models::{Direction, Head, Model};

fn describe(model: &Model) -> String {
    let config = model.config();
    format!(
        "{} ({})",
        config.model_type(),
        config.architecture_name(model.head())
    )
}

/// Checks that a model predicts the next token.
fn needs_decoder(model: &Model, work: &'static str) -> Result<(), InferError> {
    if model.config().direction() == Direction::Decoder
        && matches!(model.head(), Head::CausalLm | Head::DoubleHeads)
    {
        return Ok(());
    }
    Err(InferError::WrongModel {
        work,
        expected: "a decoder with a language-model head (such as GPT-2)",
        found: describe(model),
    })
}

/// Checks that a model can write: it predicts the next token, of a text or of what belongs to a source.
fn needs_writer(model: &Model, work: &'static str) -> Result<(), InferError> {
    if model.head() == Head::Seq2SeqLm {
        return Ok(());
    }
    needs_decoder(model, work).map_err(|_| InferError::WrongModel {
        work,
        expected: "a decoder (such as GPT-2) or an encoder-decoder (such as T5) with a language-model head",
        found: describe(model),
    })
}

/// Checks that a model predicts hidden tokens.
fn needs_masked_lm(model: &Model, work: &'static str) -> Result<(), InferError> {
    if matches!(model.head(), Head::MaskedLm | Head::Pretraining) {
        return Ok(());
    }
    Err(InferError::WrongModel {
        work,
        expected: "an encoder with a masked-language-model head (such as BERT)",
        found: describe(model),
    })
}
