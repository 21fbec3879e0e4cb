//! Single-label classification.

use serde::{Deserialize, Serialize};

use super::{PrecisionRecall, mean, ratio};

/// Precision, recall and F1 of every class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerClass {
    /// Share of the predictions of the class that are right.
    pub precision: Vec<f64>,
    /// Share of the class that was found.
    pub recall: Vec<f64>,
    /// Harmonic mean.
    pub f1: Vec<f64>,
    /// Examples of the class.
    pub support: Vec<usize>,
}

/// Counts of (true class, predicted class), from which everything else follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Confusion {
    /// The classes that occur, ascending.
    pub labels: Vec<i64>,
    /// `counts[t][p]`: examples of class `labels[t]` predicted as `labels[p]`.
    pub counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// Counts the pairs; a longer list is cut to the shorter one.
    pub fn new(y_true: &[i64], y_pred: &[i64]) -> Self {
        let mut labels: Vec<i64> = y_true.iter().chain(y_pred).copied().collect();
        labels.sort_unstable();
        labels.dedup();
        let mut counts = vec![vec![0; labels.len()]; labels.len()];
        let place = |label| {
            labels
                .binary_search(label)
                .expect("every label was collected above")
        };
        for (t, p) in y_true.iter().zip(y_pred) {
            counts[place(t)][place(p)] += 1;
        }
        Self { labels, counts }
    }

    fn total(&self) -> f64 {
        self.counts.iter().flatten().sum::<usize>() as f64
    }

    fn right(&self) -> f64 {
        (0..self.labels.len())
            .map(|i| self.counts[i][i])
            .sum::<usize>() as f64
    }

    /// Examples of each class.
    pub fn support(&self) -> Vec<usize> {
        self.counts.iter().map(|row| row.iter().sum()).collect()
    }

    /// Predictions of each class.
    pub fn predicted(&self) -> Vec<usize> {
        (0..self.labels.len())
            .map(|p| self.counts.iter().map(|row| row[p]).sum())
            .collect()
    }

    /// Share of right predictions.
    pub fn accuracy(&self) -> f64 {
        ratio(self.right(), self.total())
    }

    /// Precision, recall and F1 of class number `i`.
    pub fn class(&self, i: usize) -> PrecisionRecall {
        let predicted: usize = self.counts.iter().map(|row| row[i]).sum();
        let support: usize = self.counts[i].iter().sum();
        PrecisionRecall::from_counts(self.counts[i][i] as f64, predicted as f64, support as f64)
    }

    fn classes(&self) -> Vec<PrecisionRecall> {
        (0..self.labels.len()).map(|i| self.class(i)).collect()
    }

    /// Per-class values.
    pub fn per_class(&self) -> PerClass {
        let classes = self.classes();
        PerClass {
            precision: classes.iter().map(|c| c.precision).collect(),
            recall: classes.iter().map(|c| c.recall).collect(),
            f1: classes.iter().map(|c| c.f1).collect(),
            support: self.support(),
        }
    }

    /// Over all examples; for single labels all three equal the accuracy.
    pub fn micro(&self) -> PrecisionRecall {
        PrecisionRecall::from_counts(self.right(), self.total(), self.total())
    }

    /// Plain mean over the classes.
    pub fn macro_average(&self) -> PrecisionRecall {
        self.average(|_| 1.0)
    }

    /// Mean over the classes, weighted by their examples.
    pub fn weighted_average(&self) -> PrecisionRecall {
        let support = self.support();
        self.average(|i| support[i] as f64)
    }

    fn average(&self, weight: impl Fn(usize) -> f64) -> PrecisionRecall {
        let classes = self.classes();
        let total: f64 = (0..classes.len()).map(&weight).sum();
        let of = |value: fn(&PrecisionRecall) -> f64| {
            ratio(
                classes
                    .iter()
                    .enumerate()
                    .map(|(i, class)| weight(i) * value(class))
                    .sum(),
                total,
            )
        };
        PrecisionRecall {
            precision: of(|c| c.precision),
            recall: of(|c| c.recall),
            f1: of(|c| c.f1),
        }
    }

    /// Mean recall of the classes that have examples.
    pub fn balanced_accuracy(&self) -> f64 {
        let support = self.support();
        mean(
            (0..self.labels.len())
                .filter(|&i| support[i] > 0)
                .map(|i| self.class(i).recall),
        )
    }

    /// Matthews correlation coefficient for any number of classes (Gorodkin 2004); 0 when undefined.
    pub fn matthews(&self) -> f64 {
        let (total, right) = (self.total(), self.right());
        let support: Vec<f64> = self.support().into_iter().map(|n| n as f64).collect();
        let predicted: Vec<f64> = self.predicted().into_iter().map(|n| n as f64).collect();
        let chance: f64 = support.iter().zip(&predicted).map(|(t, p)| t * p).sum();
        let spread = |counts: &[f64]| total * total - counts.iter().map(|n| n * n).sum::<f64>();
        ratio(
            right * total - chance,
            (spread(&support) * spread(&predicted)).sqrt(),
        )
    }

    /// Cohen's kappa: agreement beyond chance; 0 when undefined.
    pub fn kappa(&self) -> f64 {
        let total = self.total();
        let expected: f64 = self
            .support()
            .iter()
            .zip(self.predicted())
            .map(|(t, p)| (t * p) as f64)
            .sum();
        let expected = ratio(expected, total * total);
        ratio(self.accuracy() - expected, 1.0 - expected)
    }
}

/// F1 of the class 1 against everything else.
pub fn binary_f1(y_true: &[i64], y_pred: &[i64]) -> f64 {
    let count = |f: &dyn Fn(i64, i64) -> bool| {
        y_true
            .iter()
            .zip(y_pred)
            .filter(|(t, p)| f(**t, **p))
            .count() as f64
    };
    PrecisionRecall::from_counts(
        count(&|t, p| t == 1 && p == 1),
        count(&|_, p| p == 1),
        count(&|t, _| t == 1),
    )
    .f1
}

/// Area under the receiver operating characteristic: the probability that a positive scores above a negative, ties counting half. `None`
/// when one of the two is missing.
pub fn roc_auc(positive: &[bool], scores: &[f64]) -> Option<f64> {
    let ranks = super::correlation::ranks(scores);
    let n_positive = positive.iter().filter(|&&p| p).count() as f64;
    let n_negative = positive.len() as f64 - n_positive;
    if n_positive == 0.0 || n_negative == 0.0 {
        return None;
    }
    let rank_sum: f64 = ranks
        .iter()
        .zip(positive)
        .filter(|(_, p)| **p)
        .map(|(rank, _)| rank)
        .sum();
    Some((rank_sum - n_positive * (n_positive + 1.0) / 2.0) / (n_positive * n_negative))
}

/// Average precision: the precision at each distinct score, weighted by the recall it adds. `None` without positives.
pub fn average_precision(positive: &[bool], scores: &[f64]) -> Option<f64> {
    let total = positive.iter().filter(|&&p| p).count();
    if total == 0 {
        return None;
    }
    let mut order: Vec<usize> = (0..scores.len().min(positive.len())).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut seen, mut found, mut sum) = (0, 0, 0.0);
    for group in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let fresh = group.iter().filter(|&&i| positive[i]).count();
        seen += group.len();
        found += fresh;
        sum += fresh as f64 * found as f64 / seen as f64;
    }
    Some(sum / total as f64)
}

/// Mean of `-log p(label)` in nats for probabilities of the class 1, kept off 0 and 1 by the rounding unit.
pub fn log_loss(positive: &[bool], scores: &[f64]) -> f64 {
    mean(positive.iter().zip(scores).map(|(&positive, &score)| {
        let p = if positive { score } else { 1.0 - score };
        -p.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undefined_is_zero_or_none() {
        let empty = Confusion::new(&[], &[]);
        assert_eq!(
            (
                empty.accuracy(),
                empty.matthews(),
                empty.kappa(),
                empty.balanced_accuracy()
            ),
            (0.0, 0.0, 0.0, 0.0)
        );
        assert_eq!(empty.micro().f1, 0.0);
        assert_eq!(roc_auc(&[true, true], &[0.1, 0.2]), None);
        assert_eq!(average_precision(&[false], &[0.1]), None);
    }

    #[test]
    fn a_perfect_ranking_has_area_one() {
        assert_eq!(roc_auc(&[false, true, true], &[0.1, 0.5, 0.9]), Some(1.0));
        assert_eq!(roc_auc(&[false, true], &[0.5, 0.5]), Some(0.5));
    }
}
