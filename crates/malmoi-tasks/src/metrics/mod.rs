//! Metrics. Every value is a plain number in double precision; shares are from 0 to 1, except BLEU, chrF, TER and the corpus values of
//! question answering, which are published on a scale of 100.

pub mod answers;
pub mod bleu;
pub mod chrf;
pub mod classification;
pub mod correlation;
pub mod edit;
pub mod entities;
pub mod language;
pub mod multilabel;
pub mod ranking;
pub mod rouge;
pub mod ter;

use serde::{Deserialize, Serialize};

/// Precision, recall and their harmonic mean. What is undefined (a division by zero) counts as 0.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PrecisionRecall {
    /// Share of the predicted that is right.
    pub precision: f64,
    /// Share of the true that was found.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

impl PrecisionRecall {
    /// From the number of right predictions, of all predictions, and of all true items.
    pub fn from_counts(right: f64, predicted: f64, actual: f64) -> Self {
        let precision = ratio(right, predicted);
        let recall = ratio(right, actual);
        Self {
            precision,
            recall,
            f1: ratio(2.0 * precision * recall, precision + recall),
        }
    }
}

/// `a / b`, 0 when `b` is 0.
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

/// Standard error of a mean: the sample's standard deviation over the root of its size; 0 for fewer than two values.
pub fn standard_error(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if n < 2.0 {
        return 0.0;
    }
    let center = mean(values.iter().copied());
    let squares: f64 = values.iter().map(|v| (v - center) * (v - center)).sum();
    (squares / (n - 1.0) / n).sqrt()
}

/// Arithmetic mean, 0 of nothing.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values {
        sum += value;
        count += 1.0;
    }
    ratio(sum, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_of_a_share_is_that_of_its_rows() {
        // p = 1/2 of 4 rows: deviation sqrt(1/3), over sqrt(4).
        assert!((standard_error(&[0.0, 1.0, 1.0, 0.0]) - (1.0f64 / 12.0).sqrt()).abs() < 1e-12);
        assert_eq!(standard_error(&[1.0]), 0.0);
    }
}
