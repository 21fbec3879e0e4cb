//! Dropout as a loop.

use crate::dropout::{survivor_scale, threshold};
use crate::random::Key;

/// See [`crate::dropout::dropout_forward`].
pub fn dropout_forward(x: &[f32], p: f32, key: Key, y: &mut [f32]) {
    for (i, (y, &x)) in y.iter_mut().zip(x).enumerate() {
        *y = if key.u32_at(i as u64) < threshold(p) {
            0.0
        } else {
            x * survivor_scale(p)
        };
    }
}

/// See [`crate::dropout::add_dropout_residual`].
pub fn add_dropout_residual(x: &[f32], residual: &[f32], p: f32, key: Key, y: &mut [f32]) {
    dropout_forward(x, p, key, y);
    for (y, r) in y.iter_mut().zip(residual) {
        *y += r;
    }
}
