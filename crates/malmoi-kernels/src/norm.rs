//! Layer normalisation (Ba, Kiros and Hinton 2016) and root-mean-square normalisation (Zhang and Sennrich 2019).
//!
//! The residual sum that precedes a normalisation is part of it here, so that its result is written once.

use crate::naive;

/// The parameters of a layer normalisation of rows of width `gamma.len()`.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// Scale [d].
    pub gamma: &'a [f32],
    /// Shift [d], when there is one.
    pub beta: Option<&'a [f32]>,
    /// Added to the variance.
    pub eps: f32,
}

/// The parameters of a root-mean-square normalisation of rows of width `gamma.len()`.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm<'a> {
    /// Scale [d].
    pub gamma: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
}

/// Where a layer normalisation writes.
#[derive(Debug)]
pub struct LayerNormOut<'a> {
    /// The normalised rows [n, d].
    pub y: &'a mut [f32],
    /// `x + residual` [n, d], when the caller wants to keep it (the backward pass needs it).
    pub sum: Option<&'a mut [f32]>,
    /// Mean of each row [n].
    pub mean: &'a mut [f32],
    /// 1 / sqrt(variance + eps) of each row [n].
    pub rstd: &'a mut [f32],
}

/// Where a root-mean-square normalisation writes.
#[derive(Debug)]
pub struct RmsNormOut<'a> {
    /// The normalised rows [n, d].
    pub y: &'a mut [f32],
    /// `x + residual` [n, d], when the caller wants to keep it.
    pub sum: Option<&'a mut [f32]>,
    /// 1 / sqrt(mean square + eps) of each row [n].
    pub rstd: &'a mut [f32],
}

/// Gradients of a normalisation. `dgamma` and `dbeta` are overwritten.
#[derive(Debug)]
pub struct NormGradients<'a> {
    /// With respect to the normalised input (the sum, when there was a residual: it is then the gradient of both) [n, d].
    pub dx: &'a mut [f32],
    /// With respect to the scale [d].
    pub dgamma: &'a mut [f32],
    /// With respect to the shift [d]. Must be `None` for a root-mean-square normalisation.
    pub dbeta: Option<&'a mut [f32]>,
}

/// `s = x + residual; y = (s - mean(s)) · rstd(s) · gamma + beta`, row by row.
///
/// # Panics
/// When lengths disagree.
pub fn layer_norm_forward(x: &[f32], residual: Option<&[f32]>, norm: LayerNorm, out: LayerNormOut) {
    let n = check_rows(x, norm.gamma.len());
    assert_eq!(
        out.y.len(),
        x.len(),
        "layer_norm_forward: y is as long as x"
    );
    assert!(
        residual.is_none_or(|r| r.len() == x.len()),
        "layer_norm_forward: residual is as long as x"
    );
    assert!(
        out.sum.as_ref().is_none_or(|s| s.len() == x.len()),
        "layer_norm_forward: sum is as long as x"
    );
    assert!(
        norm.beta.is_none_or(|b| b.len() == norm.gamma.len()),
        "layer_norm_forward: beta is as long as gamma"
    );
    assert_eq!(out.mean.len(), n, "layer_norm_forward: one mean a row");
    assert_eq!(out.rstd.len(), n, "layer_norm_forward: one rstd a row");
    naive::norm::layer_norm_forward(x, residual, norm, out);
}

/// The gradients of [`layer_norm_forward`] from its input `x` (the sum, when there was a residual), its `mean` and `rstd`.
///
/// # Panics
/// When lengths disagree.
pub fn layer_norm_backward(
    x: &[f32],
    mean: &[f32],
    rstd: &[f32],
    gamma: &[f32],
    dy: &[f32],
    out: NormGradients,
) {
    let n = check_rows(x, gamma.len());
    assert_eq!(mean.len(), n, "layer_norm_backward: one mean a row");
    check_backward("layer_norm_backward", x, rstd, gamma, dy, &out, n);
    naive::norm::layer_norm_backward(x, mean, rstd, gamma, dy, out);
}

/// `s = x + residual; y = s · rstd(s) · gamma`, row by row.
///
/// # Panics
/// When lengths disagree.
pub fn rms_norm_forward(x: &[f32], residual: Option<&[f32]>, norm: RmsNorm, out: RmsNormOut) {
    let n = check_rows(x, norm.gamma.len());
    assert_eq!(out.y.len(), x.len(), "rms_norm_forward: y is as long as x");
    assert!(
        residual.is_none_or(|r| r.len() == x.len()),
        "rms_norm_forward: residual is as long as x"
    );
    assert!(
        out.sum.as_ref().is_none_or(|s| s.len() == x.len()),
        "rms_norm_forward: sum is as long as x"
    );
    assert_eq!(out.rstd.len(), n, "rms_norm_forward: one rstd a row");
    naive::norm::rms_norm_forward(x, residual, norm, out);
}

/// The gradients of [`rms_norm_forward`] from its input `x` (the sum, when there was a residual) and its `rstd`.
///
/// # Panics
/// When lengths disagree, or a gradient of a shift is asked for.
pub fn rms_norm_backward(x: &[f32], rstd: &[f32], gamma: &[f32], dy: &[f32], out: NormGradients) {
    let n = check_rows(x, gamma.len());
    assert!(
        out.dbeta.is_none(),
        "rms_norm_backward: this norm has no shift"
    );
    check_backward("rms_norm_backward", x, rstd, gamma, dy, &out, n);
    naive::norm::rms_norm_backward(x, rstd, gamma, dy, out);
}

fn check_rows(x: &[f32], d: usize) -> usize {
    assert!(d > 0, "a norm needs rows of at least one element");
    assert!(
        x.len().is_multiple_of(d),
        "{} elements are not rows of {d}",
        x.len()
    );
    x.len() / d
}

fn check_backward(
    name: &str,
    x: &[f32],
    rstd: &[f32],
    gamma: &[f32],
    dy: &[f32],
    out: &NormGradients,
    n: usize,
) {
    assert_eq!(rstd.len(), n, "{name}: one rstd a row");
    assert_eq!(dy.len(), x.len(), "{name}: dy is as long as x");
    assert_eq!(out.dx.len(), x.len(), "{name}: dx is as long as x");
    assert_eq!(
        out.dgamma.len(),
        gamma.len(),
        "{name}: dgamma is as long as gamma"
    );
    assert!(
        out.dbeta.as_ref().is_none_or(|b| b.len() == gamma.len()),
        "{name}: dbeta is as long as gamma"
    );
}
