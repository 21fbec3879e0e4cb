//! What a fine-tuned model says about the cases of a task.

use malmoi_models::{Model, PackedBatch};
use malmoi_tasks::{Case, OutputKind, Prediction, Task};
use malmoi_text::Tokenizer;

use crate::InferError;
use crate::generate::{Flow, GenerateOptions, generate};

/// Tokens that go through the model together.
const TOKENS_PER_BATCH: usize = 4096;
/// Texts that are written together.
const TEXTS_PER_BATCH: usize = 32;

/// The sequences of some cases as one batch. Segments are left out where all are 0, which every model accepts.
pub fn pack(cases: &[Case]) -> PackedBatch {
    let ids: Vec<&[u32]> = cases.iter().map(|case| case.input.ids.as_slice()).collect();
    let batch = PackedBatch::from_sequences(&ids);
    let segments: Vec<u32> = cases
        .iter()
        .flat_map(|case| case.input.segments.iter().copied())
        .collect();
    if segments.iter().all(|&segment| segment == 0) {
        batch
    } else {
        batch.with_segments(segments)
    }
}

/// Predictions for cases, in their order. Text is written greedily, at most `max_new_tokens` tokens each. `progress` is told how
/// many cases are done.
///
/// # Errors
/// A model without the head that the task needs, or a case that does not fit it.
pub fn predict(
    model: &Model,
    tokenizer: &Tokenizer,
    task: &dyn Task,
    cases: &[Case],
    max_new_tokens: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Prediction>, InferError> {
    let mut predictions = Vec::with_capacity(cases.len());
    while predictions.len() < cases.len() {
        let rest = &cases[predictions.len()..];
        if task.output() == OutputKind::Text {
            let some = &rest[..rest.len().min(TEXTS_PER_BATCH)];
            let texts = write(model, tokenizer, some, max_new_tokens)?;
            predictions.extend(texts.into_iter().map(Prediction::Text));
        } else {
            let some = &rest[..fitting(rest)];
            let outputs = model.outputs(&pack(some))?;
            let width = outputs.len() / some.len();
            predictions.extend(outputs.chunks(width.max(1)).map(|row| task.decode(row)));
        }
        progress(predictions.len());
    }
    Ok(predictions)
}

/// How many of the first cases make a batch; at least one.
fn fitting(cases: &[Case]) -> usize {
    let mut tokens = 0;
    let full = cases.iter().position(|case| {
        tokens += case.input.ids.len();
        tokens > TOKENS_PER_BATCH
    });
    full.unwrap_or(cases.len()).max(1)
}

/// The texts that follow some sources.
fn write(
    model: &Model,
    tokenizer: &Tokenizer,
    cases: &[Case],
    max_new_tokens: usize,
) -> Result<Vec<String>, InferError> {
    let options = GenerateOptions {
        max_new_tokens,
        end_ids: tokenizer.special().eos.into_iter().collect(),
        ..GenerateOptions::default()
    };
    let sources: Vec<&[u32]> = cases.iter().map(|case| case.input.ids.as_slice()).collect();
    let written = generate(model, &sources, &options, &mut |_| Flow::Continue)?;
    written
        .iter()
        .map(|text| Ok(tokenizer.decode(&text.ids, true)?))
        .collect()
}
