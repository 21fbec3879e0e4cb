//! Labels for texts by a model that was never trained on them: by entailment (Yin et al. 2019), or by how probable a language model
//! finds each label behind the text.

use malmoi_models::{Direction, Head, Model};
use malmoi_tasks::zeroshot::{Likelihood, Normalization};
use malmoi_text::{EncodeOptions, Truncation, TruncationStrategy};

use crate::embed::by_budget;
use crate::fill_mask::{Sequence, packed};
use crate::likelihood::ScoreOptions;
use crate::{InferError, Pipeline, describe};

/// The labels to choose from and the sentence that names one.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    /// The labels.
    pub labels: Vec<String>,
    /// For entailment: the hypothesis, with `{label}` where the label stands. For a language model: what follows the text, up to
    /// `{label}`, which ends it.
    pub template: String,
    /// Every label is judged for itself: its probability against that of its opposite.
    pub multi_label: bool,
    /// How labels of different lengths are compared by a language model.
    pub normalization: Normalization,
}

/// Probabilities of labels for a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified {
    /// One a label, in their order.
    pub scores: Vec<f64>,
    /// Whether the text was cut.
    pub truncated: bool,
}

/// How a model classifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A classifier of premise and hypothesis: the numbers of its classes for entailment and for contradiction.
    Entailment {
        /// The class that says that the hypothesis follows.
        entailment: usize,
        /// The class that says that it cannot be; the other one of two.
        contradiction: usize,
    },
    /// A language model.
    LanguageModel,
}

const PLACEHOLDER: &str = "{label}";

impl Candidates {
    /// Checks labels and template.
    ///
    /// # Errors
    /// [`InferError::Setting`].
    pub fn check(&self, method: Method) -> Result<(), InferError> {
        let wrong = |name, value: String, expected: &str| {
            Err(InferError::Setting {
                name,
                value,
                expected: expected.to_owned(),
            })
        };
        if self.labels.len() < 2 && !self.multi_label {
            return wrong(
                "labels",
                format!("{:?}", self.labels),
                "two or more, separated by commas (or one with --multi-label)",
            );
        }
        let found = self.template.matches(PLACEHOLDER).count();
        if found != 1 {
            let value = format!("{:?}", self.template);
            return wrong("the template", value, "one {label} in it");
        }
        if method == Method::LanguageModel && !self.template.ends_with(PLACEHOLDER) {
            let value = format!("{:?}", self.template);
            return wrong(
                "the template",
                value,
                "{label} at its end, since a language model scores what comes last",
            );
        }
        if method == Method::LanguageModel && self.multi_label {
            return wrong(
                "multi-label",
                "on".into(),
                "a model of entailment; a language model has no opposite of a label",
            );
        }
        Ok(())
    }

    fn filled(&self, label: &str) -> String {
        self.template.replacen(PLACEHOLDER, label, 1)
    }
}

impl Method {
    /// How a model classifies, by its head and the names of its classes.
    ///
    /// # Errors
    /// [`InferError::WrongModel`].
    pub fn of(model: &Model) -> Result<Self, InferError> {
        if model.head() != Head::SequenceClassification {
            return Ok(Self::LanguageModel);
        }
        let labels: Vec<String> = (model.config().labels().iter())
            .map(|label| label.to_lowercase())
            .collect();
        let place = |start: &str| labels.iter().position(|label| label.starts_with(start));
        let pair = place("entail").and_then(|entailment| {
            let other = (labels.len() == 2).then_some(1 - entailment);
            Some((entailment, place("contra").or(other)?))
        });
        match pair {
            Some((entailment, contradiction))
                if model.config().direction() == Direction::Encoder =>
            {
                Ok(Self::Entailment {
                    entailment,
                    contradiction,
                })
            }
            _ => Err(InferError::WrongModel {
                work: "zero-shot classification",
                expected: "an encoder fine-tuned for inference, with classes called entailment and contradiction, or a language model",
                found: format!("{} with classes {labels:?}", describe(model)),
            }),
        }
    }
}

/// Probabilities of the labels for each text.
///
/// # Errors
/// [`InferError::Setting`], those of the model and the tokenizer.
pub fn classify(
    pipeline: &Pipeline,
    texts: &[&str],
    candidates: &Candidates,
    method: Method,
    options: &ScoreOptions,
) -> Result<Vec<Classified>, InferError> {
    candidates.check(method)?;
    match method {
        Method::Entailment {
            entailment,
            contradiction,
        } => by_entailment(
            pipeline,
            texts,
            candidates,
            (entailment, contradiction),
            options,
        ),
        Method::LanguageModel => by_likelihood(pipeline, texts, candidates, options),
    }
}

fn by_entailment(
    pipeline: &Pipeline,
    texts: &[&str],
    candidates: &Candidates,
    (entailment, contradiction): (usize, usize),
    options: &ScoreOptions,
) -> Result<Vec<Classified>, InferError> {
    let (model, tokenizer) = (&pipeline.model, &pipeline.tokenizer);
    let hypotheses: Vec<String> = (candidates.labels.iter())
        .map(|label| candidates.filled(label))
        .collect();
    let pairs: Vec<(&str, Option<&str>)> = texts
        .iter()
        .flat_map(|text| hypotheses.iter().map(|h| (*text, Some(h.as_str()))))
        .collect();
    let encode = EncodeOptions {
        truncation: Some(Truncation {
            strategy: TruncationStrategy::OnlyFirst,
            ..Truncation::to(model.config().max_len())
        }),
        ..EncodeOptions::default()
    };
    let encodings = tokenizer.encode_batch(&pairs, &encode)?;
    let segments = model.config().n_segments() > 1;
    let truncated: Vec<bool> = encodings
        .iter()
        .map(|e| !e.overflowing.is_empty())
        .collect();
    let sequences: Vec<Sequence> = encodings
        .into_iter()
        .map(|e| Sequence {
            segments: if segments { e.type_ids } else { Vec::new() },
            ids: e.ids,
        })
        .collect();
    let n_classes = model.config().labels().len();
    let mut logits = Vec::with_capacity(sequences.len());
    for range in by_budget(
        sequences.iter().map(|s| s.ids.len()),
        options.tokens_per_batch,
    ) {
        let outputs = model.outputs(&packed(&sequences[range]))?;
        logits.extend(
            outputs
                .chunks_exact(n_classes)
                .map(|row| [f64::from(row[entailment]), f64::from(row[contradiction])]),
        );
    }
    let n = candidates.labels.len();
    let rows = logits.chunks_exact(n).zip(truncated.chunks_exact(n));
    Ok(rows
        .map(|(logits, truncated)| Classified {
            scores: match candidates.multi_label {
                true => logits.iter().map(|pair| softmax(pair)[0]).collect(),
                false => softmax(&logits.iter().map(|pair| pair[0]).collect::<Vec<_>>()),
            },
            truncated: truncated.contains(&true),
        })
        .collect())
}

fn by_likelihood(
    pipeline: &Pipeline,
    texts: &[&str],
    candidates: &Candidates,
    options: &ScoreOptions,
) -> Result<Vec<Classified>, InferError> {
    let before = candidates.filled("");
    // A space in front of the label belongs to it, as tokenizers have it.
    let trimmed = before.trim_end();
    let labels: Vec<String> = (candidates.labels.iter())
        .map(|label| [&before[trimmed.len()..], label].concat())
        .collect();
    let prompts: Vec<String> = texts.iter().map(|text| [text, trimmed].concat()).collect();
    let pairs: Vec<(&str, &str)> = prompts
        .iter()
        .flat_map(|prompt| labels.iter().map(|label| (prompt.as_str(), label.as_str())))
        .collect();
    let scored = pipeline.likelihoods(&pairs, options, &mut |_| ())?;
    let alone: Vec<(&str, &str)> = match candidates.normalization {
        Normalization::Unconditional => {
            let before = trimmed.trim_start();
            labels
                .iter()
                .map(|label| (before, label.as_str()))
                .collect()
        }
        _ => Vec::new(),
    };
    let alone = pipeline.likelihoods(&alone, options, &mut |_| ())?;
    let rows = scored.chunks_exact(labels.len());
    Ok(rows
        .map(|row| {
            let score = |(i, scored): (usize, &crate::likelihood::Scored)| {
                let likelihood = Likelihood {
                    log_likelihood: scored.log_likelihood,
                    tokens: scored.tokens,
                    greedy: scored.greedy,
                    unconditional: alone.get(i).map(|scored| scored.log_likelihood),
                };
                let label = &candidates.labels[i];
                (candidates.normalization)
                    .score(&likelihood, label)
                    .unwrap_or(f64::NEG_INFINITY)
            };
            Classified {
                scores: softmax(&row.iter().enumerate().map(score).collect::<Vec<_>>()),
                truncated: row.iter().any(|scored| scored.truncated),
            }
        })
        .collect())
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponents: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = exponents.iter().sum();
    exponents.into_iter().map(|e| e / sum).collect()
}
