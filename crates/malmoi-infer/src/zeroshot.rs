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
    let texts: Vec<(&str, &str)> = items
        .iter()
        .flat_map(|item| &item.choices)
        .map(|choice| (choice.prompt.as_str(), choice.continuation.as_str()))
        .collect();
    let scored = pipeline.likelihoods(&texts, options, progress);
    let scored = scored.map_err(|error| named(error, items, |item| item.choices.len()))?;
    // All answers behind the same text, once each way of writing it: the context is shared.
    let alone: Vec<(&str, &str)> = items
        .iter()
        .filter_map(|item| Some((item.unconditional.as_deref()?, item)))
        .flat_map(|(before, item)| item.choices.iter().map(move |c| (before, &*c.continuation)))
        .collect();
    let unconditional = pipeline.likelihoods(&alone, options, &mut |done| {
        progress(texts.len() + done);
    });
    let unconditional = unconditional.map_err(|error| {
        let with = |item: &Item| {
            item.unconditional
                .as_ref()
                .map_or(0, |_| item.choices.len())
        };
        named(error, items, with)
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

/// The error of a text with the place of its question; each question has so many texts.
fn named(error: InferError, items: &[Item], texts: impl Fn(&Item) -> usize) -> InferError {
    let InferError::TextTooLong {
        row,
        tokens,
        max_len,
    } = error
    else {
        return error;
    };
    let mut behind = 0;
    let item = items.iter().find(|item| {
        behind += texts(item);
        row <= behind
    });
    match item {
        Some(item) => InferError::AnswerTooLong {
            place: item.place.clone(),
            tokens,
            max_len,
        },
        None => error,
    }
}
