//! What a fine-tuned model says about the cases of a task.

use malmoi_models::{Model, PackedBatch, release_idle};
use malmoi_tasks::{Case, OutputKind, Prediction, Task};
use malmoi_text::Tokenizer;

use crate::InferError;
use crate::generate::{Flow, GenerateOptions, generate};

/// How predictions are made; nothing here changes what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PredictOptions {
    /// Tokens that go through the model together; at least one case does.
    pub tokens_per_batch: usize,
    /// Texts that are written together.
    pub texts_per_batch: usize,
    /// Tokens that are written at most for a case.
    pub max_new_tokens: usize,
}

impl Default for PredictOptions {
    fn default() -> Self {
        Self {
            tokens_per_batch: 4096,
            texts_per_batch: 32,
            max_new_tokens: 64,
        }
    }
}

/// The sequences of some cases as one batch. Segments are left out where all are 0, which every model accepts.
pub fn pack(cases: &[Case]) -> PackedBatch {
    let inputs = || cases.iter().flat_map(|case| &case.inputs);
    let ids: Vec<&[u32]> = inputs().map(|input| input.ids.as_slice()).collect();
    let batch = PackedBatch::from_sequences(&ids);
    let segments: Vec<u32> = inputs()
        .flat_map(|input| input.segments.iter().copied())
        .collect();
    if segments.iter().all(|&segment| segment == 0) {
        batch
    } else {
        batch.with_segments(segments)
    }
}

/// Predictions for cases, in their order. Text is written greedily. `progress` is told how many cases are done.
///
/// Memory that lay idle since the call before is given back at the end, so that windows of a stream need no more of it the longer the stream is.
///
/// # Errors
/// A model without the head that the task needs, or a case that does not fit it.
pub fn predict(
    model: &Model,
    tokenizer: &Tokenizer,
    task: &dyn Task,
    cases: &[Case],
    options: &PredictOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Prediction>, InferError> {
    let mut predictions = Vec::with_capacity(cases.len());
    while predictions.len() < cases.len() {
        let rest = &cases[predictions.len()..];
        if task.output() == OutputKind::Text {
            let some = &rest[..rest.len().min(options.texts_per_batch.max(1))];
            let texts = write(model, tokenizer, some, options.max_new_tokens)?;
            predictions.extend(texts.into_iter().map(Prediction::Text));
        } else {
            let some = &rest[..fitting(rest, options.tokens_per_batch)];
            predictions.extend(read(model, task, some)?);
        }
        progress(predictions.len());
    }
    release_idle();
    Ok(predictions)
}

/// What the model says about cases that go through it together.
fn read(model: &Model, task: &dyn Task, cases: &[Case]) -> Result<Vec<Prediction>, InferError> {
    let batch = pack(cases);
    let outputs = model.outputs(&batch)?;
    let by_token = matches!(task.output(), OutputKind::Tags | OutputKind::Spans);
    let rows = |case: &Case| match by_token {
        true => case.tokens(),
        false => case.inputs.len(),
    };
    let all: usize = cases.iter().map(rows).sum();
    let width = outputs.len() / all.max(1);
    let mut from = 0;
    let decoded = cases.iter().map(|case| {
        let own = &outputs[from..from + width * rows(case)];
        from += own.len();
        task.decode(case, own, model.config().labels())
    });
    Ok(decoded.collect())
}

/// How many of the first cases make a batch; at least one.
fn fitting(cases: &[Case], tokens_per_batch: usize) -> usize {
    let mut tokens = 0;
    let full = cases.iter().position(|case| {
        tokens += case.tokens();
        tokens > tokens_per_batch
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
    let inputs = cases.iter().flat_map(|case| &case.inputs);
    let sources: Vec<&[u32]> = inputs.map(|input| input.ids.as_slice()).collect();
    let written = generate(model, &sources, &options, &mut |_| Flow::Continue)?;
    written
        .iter()
        .map(|text| Ok(tokenizer.decode(&text.ids, true)?))
        .collect()
}
