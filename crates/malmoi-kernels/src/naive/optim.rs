//! Optimiser steps as loops, rounding to f32 after every operation as PyTorch does.

use crate::optim::AdamW;

/// See [`crate::optim::adamw_step`].
pub fn adamw_step(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], options: AdamW) {
    let s = options.scalars();
    for i in 0..p.len() {
        p[i] *= s.keep;
        m[i] += s.one_minus_beta1 * (g[i] - m[i]);
        v[i] = v[i] * s.beta2 + s.one_minus_beta2 * g[i] * g[i];
        let denominator = v[i].sqrt() / s.root_correction2 + s.eps;
        p[i] -= s.step_size * (m[i] / denominator);
    }
}

/// See [`crate::optim::scale_in_place`].
pub fn scale_in_place(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

/// See [`crate::optim::add_in_place`].
pub fn add_in_place(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
