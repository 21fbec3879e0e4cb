//! Losses against soft targets, margins and directions: label smoothing, distillation, smooth L1, hinge, cosine.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::losses::{scaled_gradient, with_gradient};
use crate::bridge::{BackwardPass, Forward, FusedOp, Keep, Operand, apply, primitive};

/// Sum of weighted cross-entropies against smoothed targets (Szegedy et al., 2016): `logits [M, V]`, `targets [M]`, `weights [M]` →
/// `[1]`. The target has probability `1 - smoothing` plus its share of the rest, which is spread evenly over the vocabulary.
pub fn smoothed_cross_entropy(
    logits: Tensor<2>,
    targets: Arc<[u32]>,
    weights: Arc<[f32]>,
    smoothing: f32,
) -> Tensor<1> {
    let kind = Kind::Smoothed {
        targets,
        weights,
        smoothing: f64::from(smoothing),
    };
    apply(Rows(kind), [primitive(logits)])
}

/// `T² · KL(teacher ‖ student)` at temperature T, the mean over rows (Hinton et al., 2015): `logits [M, V]` of the student,
/// `teacher [M · V]` → `[1]`.
pub fn distillation(logits: Tensor<2>, teacher: Arc<[f32]>, temperature: f32) -> Tensor<1> {
    let kind = Kind::Distillation {
        teacher,
        temperature: f64::from(temperature),
    };
    apply(Rows(kind), [primitive(logits)])
}

/// Mean of `d² / 2` where `d = |x - target|` is below 1, and of `d - 1/2` elsewhere (Girshick, 2015): `x [M, K]` → `[1]`.
pub fn smooth_l1(x: Tensor<2>, targets: Arc<[f32]>) -> Tensor<1> {
    apply(Rows(Kind::SmoothL1(targets)), [primitive(x)])
}

/// Mean of `max(0, margin - better + worse)` over rows of two scores: `scores [M, 2]`, the better one first → `[1]`.
pub fn hinge(scores: Tensor<2>, margin: f32) -> Tensor<1> {
    apply(Rows(Kind::Hinge(f64::from(margin))), [primitive(scores)])
}

/// Mean of `1 - cos(x, target)` over rows: `x [M, D]`, `targets [M · D]` → `[1]`.
pub fn cosine_distance(x: Tensor<2>, targets: Arc<[f32]>) -> Tensor<1> {
    apply(Rows(Kind::Cosine(targets)), [primitive(x)])
}

#[derive(Debug)]
enum Kind {
    Smoothed {
        targets: Arc<[u32]>,
        weights: Arc<[f32]>,
        smoothing: f64,
    },
    Distillation {
        teacher: Arc<[f32]>,
        temperature: f64,
    },
    SmoothL1(Arc<[f32]>),
    Hinge(f64),
    Cosine(Arc<[f32]>),
}

/// A sum over rows, computed in double precision.
#[derive(Debug)]
struct Rows(Kind);

impl Rows {
    /// Loss of row `m` of `n`, its share of the mean included; its gradient is written to `gradient`.
    fn row(&self, m: usize, n: usize, x: &[f32], gradient: &mut [f64]) -> f64 {
        let d = x.len();
        let of_row = |all: &'_ Arc<[f32]>| -> Vec<f64> {
            let row = &all[m * d..(m + 1) * d];
            row.iter().map(|x| f64::from(*x)).collect()
        };
        let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let share = 1.0 / n as f64;
        match &self.0 {
            Kind::Smoothed {
                targets,
                weights,
                smoothing,
            } => {
                let weight = f64::from(weights[m]);
                if weight == 0.0 {
                    gradient.fill(0.0);
                    return 0.0;
                }
                let log_p = log_softmax(&x, 1.0);
                let even = smoothing / d as f64;
                let wanted = |i: usize| {
                    even + f64::from(u8::from(i == targets[m] as usize)) * (1.0 - smoothing)
                };
                for (i, gradient) in gradient.iter_mut().enumerate() {
                    *gradient = weight * (log_p[i].exp() - wanted(i));
                }
                let terms = log_p
                    .iter()
                    .enumerate()
                    .map(|(i, log_p)| -wanted(i) * log_p);
                weight * terms.sum::<f64>()
            }
            Kind::Distillation {
                teacher,
                temperature,
            } => {
                let student = log_softmax(&x, *temperature);
                let teacher = log_softmax(&of_row(teacher), *temperature);
                for (i, gradient) in gradient.iter_mut().enumerate() {
                    *gradient = share * temperature * (student[i].exp() - teacher[i].exp());
                }
                let terms = teacher.iter().zip(&student).map(|(t, s)| t.exp() * (t - s));
                share * temperature * temperature * terms.sum::<f64>()
            }
            Kind::SmoothL1(targets) => {
                let share = share / d as f64;
                let targets = of_row(targets);
                let mut sum = 0.0;
                for ((x, t), gradient) in x.iter().zip(targets).zip(gradient) {
                    let distance = x - t;
                    *gradient = share * distance.clamp(-1.0, 1.0);
                    sum += if distance.abs() < 1.0 {
                        distance * distance / 2.0
                    } else {
                        distance.abs() - 0.5
                    };
                }
                share * sum
            }
            Kind::Hinge(margin) => {
                let loss = (margin - x[0] + x[1]).max(0.0);
                let slope = if loss > 0.0 { share } else { 0.0 };
                (gradient[0], gradient[1]) = (-slope, slope);
                share * loss
            }
            Kind::Cosine(targets) => {
                let targets = of_row(targets);
                let dot =
                    |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
                // The lengths of published code have this floor, so that zeros give no infinities.
                let (xx, tt) = (dot(&x, &x).max(1e-16), dot(&targets, &targets).max(1e-16));
                let product = (xx * tt).sqrt();
                let cosine = dot(&x, &targets) / product;
                for ((x, t), gradient) in x.iter().zip(&targets).zip(gradient) {
                    *gradient = -share * (t / product - cosine * x / xx);
                }
                share * (1.0 - cosine)
            }
        }
    }
}

fn log_softmax(x: &[f64], temperature: f64) -> Vec<f64> {
    let scaled: Vec<f64> = x.iter().map(|x| x / temperature).collect();
    let max = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scaled.iter().map(|x| (x - max).exp()).sum();
    scaled.iter().map(|x| x - max - sum.ln()).collect()
}

impl FusedOp for Rows {
    fn forward(&self, inputs: &[Operand<'_>], track: bool) -> Forward {
        let (x, shape) = (inputs[0].data, inputs[0].shape);
        let (n, d) = (shape[0], shape[1]);
        let targets = match &self.0 {
            Kind::Smoothed {
                targets, weights, ..
            } => {
                assert_eq!(weights.len(), n, "one weight a row");
                targets.len() * d
            }
            Kind::Distillation { teacher: t, .. } | Kind::SmoothL1(t) | Kind::Cosine(t) => t.len(),
            Kind::Hinge(_) => {
                assert_eq!(d, 2, "a hinge compares two scores a row");
                n * d
            }
        };
        assert_eq!(targets, n * d, "targets for every row");
        let (mut loss, mut gradients) = (0.0, Vec::new());
        let mut gradient = vec![0.0; d];
        for (m, row) in x.chunks_exact(d.max(1)).enumerate() {
            loss += self.row(m, n, row, &mut gradient);
            if track {
                gradients.extend(gradient.iter().map(|g| *g as f32));
            }
        }
        with_gradient(loss, track.then_some(gradients))
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
