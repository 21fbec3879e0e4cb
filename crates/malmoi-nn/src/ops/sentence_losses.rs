//! Losses over the vectors of sentences, all in terms of cosines: `x [B · G, D]` holds G sentences an example, one example after another.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::losses::{scaled_gradient, with_gradient};
use crate::bridge::{
    BackwardPass, Forward, FusedOp, Keep, Operand, OutputFormat, apply, primitive,
};

/// The sentences of a batch find their partners: cross-entropy of `scale · cos(first, candidate)` over the second sentences of all
/// examples and, where there are more than two an example, the others as wrong ones (Henderson et al. 2017, section 4.4; the multiple
/// negatives ranking loss of Reimers and Gurevych). Mean over the examples → `[1]`.
pub fn in_batch_negatives(x: Tensor<2>, group: usize, scale: f64) -> Tensor<1> {
    apply(SentenceLoss(Kind::InBatch { group, scale }), [primitive(x)])
}

/// Mean of `(cos(first, second) - target)²` over pairs → `[1]` (Reimers and Gurevych 2019, regression objective).
pub fn cosine_regression(x: Tensor<2>, targets: Arc<[f32]>) -> Tensor<1> {
    apply(SentenceLoss(Kind::Regression(targets)), [primitive(x)])
}

/// CoSENT (Su 2022): `log(1 + Σ exp(scale · (cos_i - cos_j)))` over the pairs of examples of which i has the lower target → `[1]`.
pub fn cosine_order(x: Tensor<2>, targets: Arc<[f32]>, scale: f64) -> Tensor<1> {
    let kind = Kind::Order { targets, scale };
    apply(SentenceLoss(kind), [primitive(x)])
}

#[derive(Debug)]
enum Kind {
    InBatch { group: usize, scale: f64 },
    Regression(Arc<[f32]>),
    Order { targets: Arc<[f32]>, scale: f64 },
}

/// Computed in double precision on vectors of length one; a batch of B sentences costs B² dot products, little beside the encoder.
#[derive(Debug)]
struct SentenceLoss(Kind);

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `y += a · x`.
fn add_scaled(y: &mut [f64], a: f64, x: &[f64]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}

impl SentenceLoss {
    /// The loss and its gradient with respect to the unit vectors `u`, `n` of width `d`.
    fn on_units(&self, u: &[f64], d: usize) -> (f64, Vec<f64>) {
        let row = |i: usize| &u[i * d..(i + 1) * d];
        let mut gradient = vec![0.0; u.len()];
        // A pair (i, j) whose cosine has this slope.
        let mut push = |i: usize, j: usize, slope: f64| {
            add_scaled(&mut gradient[i * d..(i + 1) * d], slope, row(j));
            add_scaled(&mut gradient[j * d..(j + 1) * d], slope, row(i));
        };
        let rows = u.len() / d.max(1);
        let mut loss = 0.0;
        match &self.0 {
            Kind::InBatch { group, scale } => {
                let examples = rows / group;
                let candidates: Vec<usize> = (1..*group)
                    .flat_map(|place| (0..examples).map(move |e| e * group + place))
                    .collect();
                let share = 1.0 / examples as f64;
                for example in 0..examples {
                    let anchor = example * group;
                    let scores: Vec<f64> = (candidates.iter())
                        .map(|&c| scale * dot(row(anchor), row(c)))
                        .collect();
                    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
                    loss += share * (largest + sum.ln() - scores[example]);
                    for (place, &candidate) in candidates.iter().enumerate() {
                        let p = (scores[place] - largest).exp() / sum;
                        let wanted = f64::from(u8::from(place == example));
                        push(anchor, candidate, share * scale * (p - wanted));
                    }
                }
            }
            Kind::Regression(targets) => {
                let share = 1.0 / targets.len() as f64;
                for (pair, target) in targets.iter().enumerate() {
                    let off = dot(row(2 * pair), row(2 * pair + 1)) - f64::from(*target);
                    loss += share * off * off;
                    push(2 * pair, 2 * pair + 1, 2.0 * share * off);
                }
            }
            Kind::Order { targets, scale } => {
                let cosines: Vec<f64> = (0..targets.len())
                    .map(|pair| scale * dot(row(2 * pair), row(2 * pair + 1)))
                    .collect();
                // The term 1 is exp(0).
                let mut terms = vec![(0.0, None)];
                for (i, a) in targets.iter().enumerate() {
                    let later = targets.iter().enumerate().filter(|(_, b)| a < b);
                    terms.extend(later.map(|(j, _)| (cosines[i] - cosines[j], Some((i, j)))));
                }
                let largest = terms.iter().fold(0.0, |m: f64, term| m.max(term.0));
                let sum: f64 = terms.iter().map(|term| (term.0 - largest).exp()).sum();
                loss = largest + sum.ln();
                let mut slopes = vec![0.0; targets.len()];
                for (value, pair) in terms {
                    if let Some((i, j)) = pair {
                        let slope = scale * (value - largest).exp() / sum;
                        slopes[i] += slope;
                        slopes[j] -= slope;
                    }
                }
                for (pair, slope) in slopes.into_iter().enumerate() {
                    push(2 * pair, 2 * pair + 1, slope);
                }
            }
        }
        (loss, gradient)
    }

    /// The loss and its gradient with respect to `x`.
    fn compute(&self, x: &[f32], d: usize) -> (f64, Vec<f32>) {
        let mut units: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let mut lengths = Vec::with_capacity(x.len() / d.max(1));
        for row in units.chunks_exact_mut(d.max(1)) {
            // The floor of published code, so that a vector of zeros gives no infinities.
            let length = dot(row, row).sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x /= length);
            lengths.push(length);
        }
        let (loss, gradient) = self.on_units(&units, d);
        // d(x/|x|) drops what points along x.
        let rows = gradient
            .chunks_exact(d.max(1))
            .zip(units.chunks_exact(d.max(1)));
        let mut dx = Vec::with_capacity(x.len());
        for ((g, u), length) in rows.zip(lengths) {
            let along = dot(g, u);
            dx.extend(
                g.iter()
                    .zip(u)
                    .map(|(g, u)| ((g - along * u) / length) as f32),
            );
        }
        (loss, dx)
    }
}

impl FusedOp for SentenceLoss {
    fn forward(&self, inputs: &[Operand<'_>], track: bool) -> Forward {
        let (x, shape) = (inputs[0].data, inputs[0].shape);
        match &self.0 {
            Kind::InBatch { group, .. } => assert!(
                *group >= 2 && shape[0].is_multiple_of(*group),
                "every example has {group} sentences"
            ),
            Kind::Regression(targets) | Kind::Order { targets, .. } => {
                assert_eq!(shape[0], 2 * targets.len(), "a target for each pair");
            }
        }
        let (loss, gradient) = self.compute(x, shape[1]);
        with_gradient(loss, track.then_some(gradient))
    }

    fn output_format(&self) -> OutputFormat {
        OutputFormat::F32
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        scaled_gradient(pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six sentences of width 3, away from each other.
    const X: [f32; 18] = [
        0.9, -0.3, 0.4, 0.7, 0.2, 0.5, -0.8, 0.6, 0.1, -0.2, 0.9, -0.4, 0.3, 0.3, -1.1, 0.5, -0.6,
        -0.7,
    ];

    fn check(kind: Kind) -> f64 {
        let loss = SentenceLoss(kind);
        let (value, gradient) = loss.compute(&X, 3);
        let step = 1e-3;
        for i in 0..X.len() {
            let at = |sign: f32| {
                let mut x = X;
                x[i] += sign * step;
                (loss.compute(&x, 3).0, f64::from(x[i]))
            };
            let ((up, right), (down, left)) = (at(1.0), at(-1.0));
            let slope = (up - down) / (right - left);
            // Central differences are off by a sixth of step² times the third derivative, at most some hundred times scale here.
            assert!(
                (slope - f64::from(gradient[i])).abs() < 1e-3 * (1.0 + slope.abs()),
                "{i}: {slope} {}",
                gradient[i]
            );
        }
        value
    }

    #[test]
    fn gradients_are_the_slopes() {
        let targets: Arc<[f32]> = [0.9, 0.1, 0.4].into();
        for group in [2, 3] {
            check(Kind::InBatch { group, scale: 20.0 });
        }
        check(Kind::Regression(Arc::clone(&targets)));
        check(Kind::Order {
            targets,
            scale: 20.0,
        });
    }

    #[test]
    fn known_values() {
        // Two orthogonal pairs of equal sentences: cosines 1 and 0.
        let x = [2.0, 0.0, 1.0, 0.0, 0.0, 3.0, 0.0, 1.0];
        let value = |kind| SentenceLoss(kind).compute(&x, 2).0;
        let contrast = value(Kind::InBatch {
            group: 2,
            scale: 2.0,
        });
        assert!((contrast - (1.0 + (-2f64).exp()).ln()).abs() < 1e-12);
        assert!((value(Kind::Regression([1.0, 0.5].into())) - 0.125).abs() < 1e-12);
        // Both cosines are 1: one pair in the wrong order at a distance of 0.
        let order = Kind::Order {
            targets: [0.2, 0.8].into(),
            scale: 20.0,
        };
        assert!((value(order) - 2f64.ln()).abs() < 1e-12);
        let zero = SentenceLoss(Kind::Regression([0.0].into())).compute(&[0.0; 4], 2);
        assert!(zero.0 == 0.0 && zero.1.iter().all(|g| g.is_finite()));
    }
}
