//! What an evaluation found, for any objective or task.

use serde::{Deserialize, Serialize};

/// A number with its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// `perplexity`, `accuracy`, `bleu`, ….
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// What an evaluation found. Means are over targets, so they do not depend on how examples were batched.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// What training minimises.
    pub loss: f64,
    /// Everything else, in the order in which it is shown.
    pub metrics: Vec<Metric>,
    /// How many targets (tokens, or rows of a data set) were counted.
    pub targets: u64,
}

impl Evaluation {
    /// An evaluation with these metrics.
    pub fn new(loss: f64, targets: u64, metrics: &[(&str, f64)]) -> Self {
        let metrics = metrics.iter().map(|&(name, value)| Metric {
            name: name.to_string(),
            value,
        });
        Self {
            loss,
            targets,
            metrics: metrics.collect(),
        }
    }

    /// A metric by name; `loss` is one of them.
    pub fn get(&self, name: &str) -> Option<f64> {
        if name == "loss" {
            return Some(self.loss);
        }
        let found = self.metrics.iter().find(|metric| metric.name == name);
        found.map(|metric| metric.value)
    }

    /// The loss and all metrics.
    pub fn all(&self) -> impl Iterator<Item = (&str, f64)> {
        let metrics = self.metrics.iter();
        std::iter::once(("loss", self.loss))
            .chain(metrics.map(|metric| (metric.name.as_str(), metric.value)))
    }
}

/// Which number decides which checkpoint is the best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judge {
    /// Name of the metric, or `loss`.
    pub metric: String,
    /// Whether more is better.
    pub higher: bool,
}

impl Judge {
    /// The lowest loss is best.
    pub fn loss() -> Self {
        Self {
            metric: "loss".into(),
            higher: false,
        }
    }

    /// Whether `value` is better than `best`. What is no number never is.
    pub fn prefers(&self, value: f64, best: f64) -> bool {
        if self.higher {
            value > best
        } else {
            value < best
        }
    }
}
