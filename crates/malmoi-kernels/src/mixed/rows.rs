//! Row-wise operations on bf16: a few rows at a time are widened in the first-level cache, go through the f32 kernel, and are
//! rounded on the way out.

use std::ops::Range;

use super::bf16;
use super::convert::{narrow, widen};
use crate::dropout;
use crate::norm::{
    LayerNorm, LayerNormOut, NormGradients, RmsNorm, RmsNormOut, layer_norm_backward,
    layer_norm_forward, rms_norm_backward, rms_norm_forward,
};
use crate::random::Key;
use crate::scratch::{Scratch, scratch};
use crate::threads::{SharedMut, for_each};

/// Elements in a piece of work: 64 KB of f32.
pub(super) const PIECE: usize = 16_384;

/// Rows of width `d` in a piece of work. It depends on the shape alone, as sums over rows are made piece by piece.
fn rows_a_piece(d: usize) -> usize {
    (PIECE / d.max(1)).max(1)
}

/// Calls `f(piece, rows)` for runs of rows.
fn for_each_run(n: usize, d: usize, f: impl Fn(usize, Range<usize>) + Sync + Send) {
    let rows = rows_a_piece(d);
    for_each(n.div_ceil(rows), rows * d * 4, |piece| {
        f(piece, piece * rows..((piece + 1) * rows).min(n));
    });
}

pub(super) fn widened(x: &[bf16]) -> Scratch {
    let mut wide = scratch(x.len());
    widen(x, &mut wide);
    wide
}

/// Which norm, with its parameters.
#[derive(Clone, Copy, Debug)]
pub enum Norm<'a> {
    /// See [`layer_norm_forward`].
    Layer(LayerNorm<'a>),
    /// See [`rms_norm_forward`].
    Rms(RmsNorm<'a>),
}

impl Norm<'_> {
    fn gamma(&self) -> &[f32] {
        match self {
            Norm::Layer(norm) => norm.gamma,
            Norm::Rms(norm) => norm.gamma,
        }
    }
}

/// Where [`norm_forward`] puts its results.
#[derive(Debug)]
pub struct NormOut<'a> {
    /// [n, d].
    pub y: &'a mut [bf16],
    /// `x + residual` [n, d], when the backward pass will need it.
    pub sum: Option<&'a mut [bf16]>,
    /// Of each row `[n]`; empty for a root-mean-square norm.
    pub mean: &'a mut [f32],
    /// Of each row `[n]`.
    pub rstd: &'a mut [f32],
}

/// `y = norm(x + residual)` for `x` [n, d].
///
/// # Panics
/// When lengths disagree.
pub fn norm_forward(x: &[bf16], residual: Option<&[bf16]>, norm: Norm, out: NormOut) {
    let d = norm.gamma().len();
    let n = out.rstd.len();
    assert_eq!(x.len(), n * d, "norm_forward: x is [n, d]");
    assert_eq!(out.y.len(), n * d, "norm_forward: y is [n, d]");
    assert!(
        residual.is_none_or(|r| r.len() == n * d),
        "norm_forward: residual is [n, d]"
    );
    assert!(
        out.sum.as_ref().is_none_or(|s| s.len() == n * d),
        "norm_forward: sum is [n, d]"
    );
    let layer = matches!(norm, Norm::Layer(_));
    assert_eq!(
        out.mean.len(),
        if layer { n } else { 0 },
        "norm_forward: one mean a row"
    );
    let (y, rstd, mean) = (
        SharedMut::new(out.y),
        SharedMut::new(out.rstd),
        SharedMut::new(out.mean),
    );
    let sum = out.sum.map(SharedMut::new);
    for_each_run(n, d, |_, rows| {
        let at = rows.start * d..rows.end * d;
        let wide = widened(&x[at.clone()]);
        let other = residual.map(|residual| widened(&residual[at.clone()]));
        let mut result = scratch(at.len());
        let mut total = scratch(if sum.is_some() { at.len() } else { 0 });
        // SAFETY: every run of rows is its own.
        let rstd = unsafe { rstd.slice(rows.start, rows.len()) };
        let total_out = sum.is_some().then_some(&mut total[..]);
        match norm {
            Norm::Layer(norm) => {
                // SAFETY: as above.
                let mean = unsafe { mean.slice(rows.start, rows.len()) };
                let out = LayerNormOut {
                    y: &mut result,
                    sum: total_out,
                    mean,
                    rstd,
                };
                layer_norm_forward(&wide, other.as_deref(), norm, out);
            }
            Norm::Rms(norm) => {
                let out = RmsNormOut {
                    y: &mut result,
                    sum: total_out,
                    rstd,
                };
                rms_norm_forward(&wide, other.as_deref(), norm, out);
            }
        }
        // SAFETY: as above.
        unsafe {
            narrow(&result, y.slice(at.start, at.len()));
            if let Some(sum) = sum {
                narrow(&total, sum.slice(at.start, at.len()));
            }
        }
    });
}

/// What [`norm_backward`] needs of the forward pass.
#[derive(Clone, Copy, Debug)]
pub struct NormSaved<'a> {
    /// The norm's input [n, d]: the sum, when there was a residual.
    pub x: &'a [bf16],
    /// As written by [`norm_forward`].
    pub mean: &'a [f32],
    /// As written by [`norm_forward`].
    pub rstd: &'a [f32],
}

/// The gradients of [`norm_forward`] for `dy` [n, d]: `dx` [n, d], `dgamma` and `dbeta` `[d]`, all overwritten.
///
/// # Panics
/// When lengths disagree.
pub fn norm_backward(
    norm: Norm,
    saved: NormSaved,
    dy: &[bf16],
    dx: &mut [bf16],
    dgamma: &mut [f32],
    dbeta: Option<&mut [f32]>,
) {
    let gamma = norm.gamma();
    let (d, n) = (gamma.len(), saved.rstd.len());
    assert!(
        saved.x.len() == n * d && dy.len() == n * d && dx.len() == n * d,
        "norm_backward: x, dy and dx are [n, d]"
    );
    let pieces = n.div_ceil(rows_a_piece(d));
    let shifted = dbeta.is_some();
    let mut parts = scratch(pieces * d);
    let mut shifts = scratch(if shifted { pieces * d } else { 0 });
    let (part, shift, out) = (
        SharedMut::new(&mut parts),
        SharedMut::new(&mut shifts),
        SharedMut::new(dx),
    );
    for_each_run(n, d, |piece, rows| {
        let at = rows.start * d..rows.end * d;
        let (x, dy) = (widened(&saved.x[at.clone()]), widened(&dy[at.clone()]));
        let mut result = scratch(at.len());
        let rstd = &saved.rstd[rows.clone()];
        // SAFETY: every piece has its own sums and rows.
        unsafe {
            let gradients = NormGradients {
                dx: &mut result,
                dgamma: part.slice(piece * d, d),
                dbeta: shifted.then(|| shift.slice(piece * d, d)),
            };
            match norm {
                Norm::Layer(_) => {
                    layer_norm_backward(&x, &saved.mean[rows.clone()], rstd, gamma, &dy, gradients);
                }
                Norm::Rms(_) => rms_norm_backward(&x, rstd, gamma, &dy, gradients),
            }
            narrow(&result, out.slice(at.start, at.len()));
        }
    });
    crate::reduce::sum_rows(&parts, dgamma, false);
    if let Some(dbeta) = dbeta {
        crate::reduce::sum_rows(&shifts, dbeta, false);
    }
}

/// Sums the rows of `x` [n, d] into `out` `[d]`, overwritten.
///
/// # Panics
/// When `x` is not made of rows as wide as `out`.
pub fn sum_rows(x: &[bf16], out: &mut [f32]) {
    let d = out.len();
    assert!(
        d > 0 && x.len().is_multiple_of(d) || x.is_empty(),
        "sum_rows: x is made of rows of {d}"
    );
    out.fill(0.0);
    if x.is_empty() {
        return;
    }
    let n = x.len() / d;
    let mut parts = scratch(n.div_ceil(rows_a_piece(d)) * d);
    let part = SharedMut::new(&mut parts);
    for_each_run(n, d, |piece, rows| {
        let wide = widened(&x[rows.start * d..rows.end * d]);
        // SAFETY: every piece has its own sums.
        crate::reduce::sum_rows(&wide, unsafe { part.slice(piece * d, d) }, false);
    });
    crate::reduce::sum_rows(&parts, out, false);
}

/// `y = dropout(x) + residual`, as [`dropout::add_dropout_residual`]; without dropout the plain sum. The same elements
/// are dropped as in f32.
///
/// # Panics
/// When the lengths differ or the probability is not in `[0, 1)`.
pub fn add_dropout(
    x: &[bf16],
    residual: Option<&[bf16]>,
    drop: Option<(f32, Key)>,
    y: &mut [bf16],
) {
    assert_eq!(
        x.len(),
        y.len(),
        "add_dropout: x and y have the same length"
    );
    assert!(
        residual.is_none_or(|r| r.len() == y.len()),
        "add_dropout: residual and y have the same length"
    );
    let out = SharedMut::new(y);
    for_each(x.len().div_ceil(PIECE), PIECE * 4, |piece| {
        let at = piece * PIECE..((piece + 1) * PIECE).min(x.len());
        let mut result = scratch(at.len());
        let wide = widened(&x[at.clone()]);
        let other = residual.map(|residual| widened(&residual[at.clone()]));
        match drop {
            Some((p, key)) => {
                dropout::apply_from(&wide, other.as_deref(), p, key, at.start, &mut result);
            }
            None => {
                result.copy_from_slice(&wide);
                if let Some(other) = &other {
                    crate::optim::add_in_place(&mut result, other);
                }
            }
        }
        // SAFETY: every piece has its own elements.
        narrow(&result, unsafe { out.slice(at.start, at.len()) });
    });
}
