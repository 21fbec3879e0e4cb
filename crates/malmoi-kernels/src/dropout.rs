//! Dropout (Srivastava et al. 2014) whose mask is a function of a key and the position, so that the backward pass draws
//! it again instead of storing it.

use crate::naive;
use crate::random::Key;

/// `y[i] = x[i] / (1 - p)` with probability 1 - p, else 0. The backward pass is the same function on the gradient.
///
/// Element `i` is dropped when `key.u32_at(i)` is below p · 2^32.
///
/// # Panics
/// When the lengths differ or `p` is not in `[0, 1)`.
pub fn dropout_forward(x: &[f32], p: f32, key: Key, y: &mut [f32]) {
    assert_eq!(
        x.len(),
        y.len(),
        "dropout_forward: x and y have the same length"
    );
    check_probability(p);
    naive::dropout::dropout_forward(x, p, key, y);
}

/// `y = dropout(x) + residual`.
///
/// # Panics
/// When the lengths differ or `p` is not in `[0, 1)`.
pub fn add_dropout_residual(x: &[f32], residual: &[f32], p: f32, key: Key, y: &mut [f32]) {
    assert_eq!(
        x.len(),
        y.len(),
        "add_dropout_residual: x and y have the same length"
    );
    assert_eq!(
        residual.len(),
        y.len(),
        "add_dropout_residual: residual and y have the same length"
    );
    check_probability(p);
    naive::dropout::add_dropout_residual(x, residual, p, key, y);
}

/// Words below this are dropped.
pub(crate) fn threshold(p: f32) -> u32 {
    (f64::from(p) * 4_294_967_296.0) as u32
}

/// What survivors are multiplied by.
pub(crate) fn survivor_scale(p: f32) -> f32 {
    (1.0 / (1.0 - f64::from(p))) as f32
}

pub(crate) fn check_probability(p: f32) {
    assert!(
        (0.0..1.0).contains(&p),
        "a dropout probability lies in [0, 1), found {p}"
    );
}
