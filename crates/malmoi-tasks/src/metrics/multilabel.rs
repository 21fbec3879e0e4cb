//! Multi-label classification: each example has a set of labels, given as flags.

use super::{PrecisionRecall, mean, ratio};

fn agreement(
    y_true: impl Iterator<Item = bool>,
    y_pred: impl Iterator<Item = bool>,
) -> (f64, f64, f64) {
    let (mut right, mut predicted, mut actual) = (0.0, 0.0, 0.0);
    for (t, p) in y_true.zip(y_pred) {
        right += f64::from(t && p);
        predicted += f64::from(p);
        actual += f64::from(t);
    }
    (right, predicted, actual)
}

fn f1((right, predicted, actual): (f64, f64, f64)) -> f64 {
    PrecisionRecall::from_counts(right, predicted, actual).f1
}

/// Share of the examples whose whole set is right.
pub fn subset_accuracy(y_true: &[Vec<bool>], y_pred: &[Vec<bool>]) -> f64 {
    mean(y_true.iter().zip(y_pred).map(|(t, p)| f64::from(t == p)))
}

/// Share of the single flags that are wrong.
pub fn hamming_loss(y_true: &[Vec<bool>], y_pred: &[Vec<bool>]) -> f64 {
    let wrong: usize = y_true
        .iter()
        .zip(y_pred)
        .map(|(t, p)| t.iter().zip(p).filter(|(t, p)| t != p).count())
        .sum();
    ratio(
        wrong as f64,
        y_true.iter().map(Vec::len).sum::<usize>() as f64,
    )
}

/// F1 over all flags.
pub fn micro_f1(y_true: &[Vec<bool>], y_pred: &[Vec<bool>]) -> f64 {
    f1(agreement(
        y_true.iter().flatten().copied(),
        y_pred.iter().flatten().copied(),
    ))
}

/// Mean F1 of the labels.
pub fn macro_f1(y_true: &[Vec<bool>], y_pred: &[Vec<bool>]) -> f64 {
    let labels = y_true.iter().chain(y_pred).map(Vec::len).min().unwrap_or(0);
    mean((0..labels).map(|l| {
        f1(agreement(
            y_true.iter().map(|row| row[l]),
            y_pred.iter().map(|row| row[l]),
        ))
    }))
}

/// Mean F1 of the examples.
pub fn samples_f1(y_true: &[Vec<bool>], y_pred: &[Vec<bool>]) -> f64 {
    mean(
        y_true
            .iter()
            .zip(y_pred)
            .map(|(t, p)| f1(agreement(t.iter().copied(), p.iter().copied()))),
    )
}
