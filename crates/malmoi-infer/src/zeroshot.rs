//! Tasks without training: the answers of questions, scored by a language model.

use malmoi_tasks::zeroshot::{Item, Kind, Likelihood, Report, report};

use crate::likelihood::{ScoreOptions, Scored};
use crate::{InferError, Pipeline};

/// What a model says about the questions of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The metrics.
    pub report: Report,
    /// What the model says about each answer of each question.
    pub likelihoods: Vec<Vec<Likelihood>>,
    /// Answers whose prompt lost its beginning because it is longer than the model's positions.
    pub truncated: usize,
    /// Answers whose first token is not scored, since nothing stands before it and the tokenizer has no token that starts texts.
    pub without_first: usize,
}

/// The answers of a question behind it.
fn asked(item: &Item) -> impl Iterator<Item = (&str, &str)> {
    (item.choices.iter()).map(|choice| (choice.prompt.as_str(), choice.continuation.as_str()))
}

/// Its answers without it, where they are compared with that.
fn alone(item: &Item) -> impl Iterator<Item = (&str, &str)> {
    let choices = item.choices.iter();
    choices.filter_map(|choice| Some((item.unconditional.as_deref()?, &*choice.continuation)))
}

/// The questions whose answers all fit the model's positions, and how many others there are. (A prompt that does not fit loses its
/// beginning, but what is scored cannot be cut.)
///
/// # Errors
/// Those of [`Pipeline::fitting`].
pub fn fitting(pipeline: &Pipeline, items: Vec<Item>) -> Result<(Vec<Item>, usize), InferError> {
    let texts = |item| asked(item).chain(alone(item));
    let all: Vec<(&str, &str)> = items.iter().flat_map(texts).collect();
    let mut fits = pipeline.fitting(&all)?.into_iter();
    let keep: Vec<bool> = items
        .iter()
        .map(|item| {
            let own: Vec<bool> = fits.by_ref().take(texts(item).count()).collect();
            !own.contains(&false)
        })
        .collect();
    let (kept, left): (Vec<_>, Vec<_>) = items.into_iter().zip(keep).partition(|(_, keep)| *keep);
    Ok((kept.into_iter().map(|(item, _)| item).collect(), left.len()))
}

/// Scores the answers of questions and measures how often the right one wins. `progress` is told how many answers are done.
///
/// # Errors
/// Those of [`Pipeline::likelihoods`].
pub fn run(
    pipeline: &Pipeline,
    kind: Kind,
    items: &[Item],
    options: &ScoreOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Outcome, InferError> {
    let texts: Vec<(&str, &str)> = items.iter().flat_map(asked).collect();
    let scored = pipeline.likelihoods(&texts, options, progress)?;
    // All answers behind the same text, once each way of writing it: the context is shared.
    let alone: Vec<(&str, &str)> = items.iter().flat_map(alone).collect();
    let unconditional = pipeline.likelihoods(&alone, options, &mut |done| {
        progress(texts.len() + done);
    })?;
    let (mut scored, mut unconditional) = (scored.iter(), unconditional.iter());
    let (mut truncated, mut without_first) = (0, 0);
    let mut likelihoods = Vec::with_capacity(items.len());
    for item in items {
        let own: Vec<&Scored> = scored.by_ref().take(item.choices.len()).collect();
        truncated += own.iter().filter(|s| s.truncated).count();
        without_first += own.iter().filter(|s| s.without_first).count();
        let likelihood = |s: &Scored| Likelihood {
            log_likelihood: s.log_likelihood,
            tokens: s.tokens,
            greedy: s.greedy,
            unconditional: (item.unconditional.as_ref())
                .and_then(|_| Some(unconditional.next()?.log_likelihood)),
        };
        likelihoods.push(own.into_iter().map(likelihood).collect::<Vec<_>>());
    }
    Ok(Outcome {
        report: report(kind, items, &likelihoods),
        likelihoods,
        truncated,
        without_first,
    })
}
