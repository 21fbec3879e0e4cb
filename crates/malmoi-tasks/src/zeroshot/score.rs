//! From log-likelihoods of answers to metrics.

use serde::Serialize;

use super::rows::Item;
use super::template::Kind;
use crate::metrics::classification::Confusion;
use crate::metrics::{mean, standard_error};

/// What a model says about one possible answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Likelihood {
    /// Natural logarithm of the probability of its tokens, given what stands before them.
    pub log_likelihood: f64,
    /// Tokens scored.
    pub tokens: usize,
    /// Whether each of its tokens was the most probable one.
    pub greedy: bool,
    /// The same logarithm behind the template's `unconditional` text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unconditional: Option<f64>,
}

/// How log-likelihoods of different lengths are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalization {
    /// As they are.
    Sum,
    /// Divided by the tokens.
    Tokens,
    /// Divided by the UTF-8 bytes of the answer.
    Bytes,
    /// Less the log-likelihood of the answer by itself (Brown et al. 2020, section 2.4).
    Unconditional,
}

impl Normalization {
    /// The comparable score of an answer; `None` where it has none of this kind.
    pub fn score(self, likelihood: &Likelihood, text: &str) -> Option<f64> {
        let sum = likelihood.log_likelihood;
        match self {
            Self::Sum => Some(sum),
            Self::Tokens => Some(sum / likelihood.tokens.max(1) as f64),
            Self::Bytes => Some(sum / text.len().max(1) as f64),
            Self::Unconditional => Some(sum - likelihood.unconditional?),
        }
    }
}

/// A number with its standard error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measure {
    /// `accuracy`, `acc_norm`, `perplexity`, ….
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// Standard error over the rows; absent where rows do not have a value of their own.
    pub error: Option<f64>,
}

/// Results of a part of a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Name of the part.
    pub name: String,
    /// Its rows.
    pub rows: usize,
    /// Accuracy.
    pub accuracy: f64,
}

/// Results of a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Rows.
    pub rows: usize,
    /// Metrics, the first of which is the task's own.
    pub measures: Vec<Measure>,
    /// Parts, where the template names a column for them.
    pub groups: Vec<Group>,
}

/// The choice that scores highest; of equal ones the first.
pub fn best(item: &Item, likelihoods: &[Likelihood], how: Normalization) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, (choice, likelihood)) in item.choices.iter().zip(likelihoods).enumerate() {
        let score = how.score(likelihood, &choice.text)?;
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((i, score));
        }
    }
    best.map(|(i, _)| i)
}

fn measure(name: &'static str, values: &[f64]) -> Measure {
    Measure {
        name,
        value: mean(values.iter().copied()),
        error: Some(standard_error(values)),
    }
}

/// The metrics of questions and what a model says about their answers.
///
/// Of choices: `accuracy` of the largest sum, `acc_per_token`, `acc_norm` (by bytes, as published), `acc_pmi` where the template has an
/// `unconditional` text, `f1_macro` where the right choice is not always the same one. Of words: `accuracy` (every token is the
/// most probable one), `perplexity` of a target, and of a token.
pub fn report(kind: Kind, items: &[Item], likelihoods: &[Vec<Likelihood>]) -> Report {
    let measures = match kind {
        Kind::Choice => choice_measures(items, likelihoods),
        Kind::Word => word_measures(likelihoods),
    };
    Report {
        rows: items.len(),
        measures,
        groups: groups(kind, items, likelihoods),
    }
}

fn right(item: &Item, likelihoods: &[Likelihood], kind: Kind, how: Normalization) -> Option<f64> {
    Some(f64::from(match kind {
        Kind::Word => likelihoods.iter().all(|l| l.greedy),
        Kind::Choice => best(item, likelihoods, how)? == item.answer,
    }))
}

fn choice_measures(items: &[Item], likelihoods: &[Vec<Likelihood>]) -> Vec<Measure> {
    let kinds = [
        ("accuracy", Normalization::Sum),
        ("acc_norm", Normalization::Bytes),
        ("acc_per_token", Normalization::Tokens),
        ("acc_pmi", Normalization::Unconditional),
    ];
    let mut measures: Vec<Measure> = kinds
        .into_iter()
        .filter_map(|(name, how)| {
            let rows = items.iter().zip(likelihoods);
            let values: Option<Vec<f64>> = rows
                .map(|(item, likelihoods)| right(item, likelihoods, Kind::Choice, how))
                .collect();
            values.map(|values| measure(name, &values))
        })
        .collect();
    let truths: Vec<i64> = items.iter().map(|item| item.answer as i64).collect();
    if truths.iter().any(|truth| *truth != truths[0]) {
        let rows = items.iter().zip(likelihoods);
        let chosen: Vec<i64> = rows
            .filter_map(|(item, l)| best(item, l, Normalization::Sum))
            .map(|choice| choice as i64)
            .collect();
        measures.push(Measure {
            name: "f1_macro",
            value: Confusion::new(&truths, &chosen).macro_average().f1,
            error: None,
        });
    }
    measures
}

fn word_measures(likelihoods: &[Vec<Likelihood>]) -> Vec<Measure> {
    let all = || likelihoods.iter().flatten();
    let nats: Vec<f64> = all().map(|l| -l.log_likelihood).collect();
    let greedy: Vec<f64> = all().map(|l| f64::from(l.greedy)).collect();
    let loss = measure("loss", &nats);
    let tokens: usize = all().map(|l| l.tokens).sum();
    let perplexity = loss.value.exp();
    vec![
        measure("accuracy", &greedy),
        Measure {
            name: "perplexity",
            value: perplexity,
            // The delta method: the slope of exp is its value.
            error: loss.error.map(|error| perplexity * error),
        },
        Measure {
            name: "perplexity_per_token",
            value: (nats.iter().sum::<f64>() / tokens.max(1) as f64).exp(),
            error: None,
        },
    ]
}

fn groups(kind: Kind, items: &[Item], likelihoods: &[Vec<Likelihood>]) -> Vec<Group> {
    let mut groups: std::collections::BTreeMap<&str, Vec<f64>> = Default::default();
    for (item, likelihoods) in items.iter().zip(likelihoods) {
        if let Some(name) = &item.group
            && let Some(right) = right(item, likelihoods, kind, Normalization::Sum)
        {
            groups.entry(name).or_default().push(right);
        }
    }
    let group = |(name, values): (&str, Vec<f64>)| Group {
        name: name.to_owned(),
        rows: values.len(),
        accuracy: mean(values),
    };
    groups.into_iter().map(group).collect()
}
