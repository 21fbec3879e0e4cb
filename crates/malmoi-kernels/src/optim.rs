//! Optimiser steps over raw slices, in place.

use crate::naive;
pub use crate::reduce::{all_finite, sum_of_squares};

/// The hyperparameters of one AdamW step (Loshchilov and Hutter 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The number of this step, from 1.
    pub step: u64,
}

/// The scalars of a step, rounded to f32 once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalars {
    pub(crate) keep: f32,
    pub(crate) one_minus_beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) one_minus_beta2: f32,
    pub(crate) root_correction2: f32,
    pub(crate) eps: f32,
    pub(crate) step_size: f32,
}

impl AdamW {
    pub(crate) fn scalars(&self) -> Scalars {
        let steps = self.step as f64;
        let correction1 = 1.0 - self.beta1.powf(steps);
        let correction2 = 1.0 - self.beta2.powf(steps);
        Scalars {
            keep: (1.0 - self.lr * self.weight_decay) as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            root_correction2: correction2.sqrt() as f32,
            eps: self.eps as f32,
            step_size: (self.lr / correction1) as f32,
        }
    }
}

/// One AdamW step in place: parameter `p`, gradient `g`, first moment `m`, second moment `v`.
///
/// In the order of PyTorch's single-tensor form: `p *= 1 - lr·wd; m += (1-β1)(g - m); v = β2·v + (1-β2)·g²;
/// p -= lr/(1-β1^t) · m / (√v / √(1-β2^t) + eps)`.
///
/// # Panics
/// When the lengths differ or `step` is 0.
pub fn adamw_step(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], options: AdamW) {
    assert_eq!(p.len(), g.len(), "adamw_step: one gradient a parameter");
    assert_eq!(p.len(), m.len(), "adamw_step: one first moment a parameter");
    assert_eq!(
        p.len(),
        v.len(),
        "adamw_step: one second moment a parameter"
    );
    assert!(options.step > 0, "adamw_step: steps are counted from 1");
    naive::optim::adamw_step(p, g, m, v, options);
}

/// `x *= factor`.
pub fn scale_in_place(x: &mut [f32], factor: f32) {
    naive::optim::scale_in_place(x, factor);
}

/// `x += y`.
///
/// # Panics
/// When the lengths differ.
pub fn add_in_place(x: &mut [f32], y: &[f32]) {
    assert_eq!(
        x.len(),
        y.len(),
        "add_in_place: both slices have the same length"
    );
    naive::optim::add_in_place(x, y);
}
