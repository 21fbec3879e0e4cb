//! Layer normalisation (Ba, Kiros and Hinton 2016) and root-mean-square normalisation (Zhang and Sennrich 2019).
//!
//! The residual sum that precedes a normalisation is part of it here, so that its result is written once.

use crate::scratch::scratch;
use crate::simd::{Simd, dispatched, read, vectors, write};
use crate::threads::{SharedMut, for_each};

#[cfg(test)]
mod tests;

/// The parameters of a layer normalisation of rows of width `gamma.len()`.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// Scale `[d]`.
    pub gamma: &'a [f32],
    /// Shift `[d]`, when there is one.
    pub beta: Option<&'a [f32]>,
    /// Added to the variance.
    pub eps: f32,
}

/// The parameters of a root-mean-square normalisation of rows of width `gamma.len()`.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm<'a> {
    /// Scale `[d]`.
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
    /// Mean of each row `[n]`.
    pub mean: &'a mut [f32],
    /// 1 / sqrt(variance + eps) of each row `[n]`.
    pub rstd: &'a mut [f32],
}

/// Where a root-mean-square normalisation writes.
#[derive(Debug)]
pub struct RmsNormOut<'a> {
    /// The normalised rows [n, d].
    pub y: &'a mut [f32],
    /// `x + residual` [n, d], when the caller wants to keep it.
    pub sum: Option<&'a mut [f32]>,
    /// 1 / sqrt(mean square + eps) of each row `[n]`.
    pub rstd: &'a mut [f32],
}

/// Gradients of a normalisation. `dgamma` and `dbeta` are overwritten.
#[derive(Debug)]
pub struct NormGradients<'a> {
    /// With respect to the normalised input (the sum, when there was a residual: it is then the gradient of both) [n, d].
    pub dx: &'a mut [f32],
    /// With respect to the scale `[d]`.
    pub dgamma: &'a mut [f32],
    /// With respect to the shift `[d]`. Must be `None` for a root-mean-square normalisation.
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
    let work = Forward {
        x,
        residual,
        gamma: norm.gamma,
        beta: norm.beta,
        eps: norm.eps,
        y: SharedMut::new(out.y),
        sum: out.sum.map(SharedMut::new),
        mean: Some(SharedMut::new(out.mean)),
        rstd: SharedMut::new(out.rstd),
    };
    work.run(n);
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
    backward(x, Some(mean), rstd, gamma, dy, out, n);
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
    let work = Forward {
        x,
        residual,
        gamma: norm.gamma,
        beta: None,
        eps: norm.eps,
        y: SharedMut::new(out.y),
        sum: out.sum.map(SharedMut::new),
        mean: None,
        rstd: SharedMut::new(out.rstd),
    };
    work.run(n);
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
    backward(x, None, rstd, gamma, dy, out, n);
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

/// Elements in a piece of work of the forward pass.
const CHUNK: usize = 16_384;

/// Both forward passes; the root-mean-square one has no `mean`.
#[derive(Clone, Copy)]
struct Forward<'a> {
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    gamma: &'a [f32],
    beta: Option<&'a [f32]>,
    eps: f32,
    y: SharedMut,
    sum: Option<SharedMut>,
    mean: Option<SharedMut>,
    rstd: SharedMut,
}

impl Forward<'_> {
    fn run(self, n: usize) {
        let rows = CHUNK.div_ceil(self.gamma.len());
        for_each(n.div_ceil(rows), rows * self.gamma.len() * 2, |index| {
            forward_rows(self, index * rows, ((index + 1) * rows).min(n));
        });
    }
}

dispatched!(fn forward_rows = forward_rows_on(work: Forward, first: usize, last: usize));

#[inline(always)]
fn forward_rows_on<S: Simd>(s: S, work: Forward, first: usize, last: usize) {
    let d = work.gamma.len();
    for row in first..last {
        let x = &work.x[row * d..][..d];
        // SAFETY: this piece of work alone has these rows of the outputs.
        let y = unsafe { work.y.slice(row * d, d) };
        // The row of sums goes to where the caller keeps it, else through `y`; it is read back from the cache.
        let mut total = s.zero();
        let source: &[f32] = if let Some(residual) = work.residual {
            let residual = &residual[row * d..][..d];
            // SAFETY: as above.
            let to = unsafe { work.sum.unwrap_or(work.y).slice(row * d, d) };
            vectors!(s, d, |i| {
                let v = s.add(read(s, x, i), read(s, residual, i));
                total = s.add(total, v);
                write(s, to, i, v);
            });
            to
        } else {
            if let Some(sum) = work.sum {
                // SAFETY: as above.
                unsafe { sum.slice(row * d, d) }.copy_from_slice(x);
            }
            if work.mean.is_some() {
                vectors!(s, d, |i| total = s.add(total, read(s, x, i)));
            }
            x
        };
        let mut mean = 0.0;
        if let Some(means) = work.mean {
            mean = s.sum(total) / d as f32;
            // SAFETY: as above.
            unsafe { means.slice(row, 1)[0] = mean };
        }
        let shift = s.splat(mean);
        // Lanes behind the end of the row would add (0 - mean)² each.
        let mut squares = s.zero();
        let whole = d - d % S::LANES;
        vectors!(s, whole, |i| {
            let v = s.sub(read(s, source, i), shift);
            squares = s.fma(v, v, squares);
        });
        let rest: f32 = source[whole..]
            .iter()
            .map(|v| (v - mean) * (v - mean))
            .sum();
        let rstd = 1.0 / ((s.sum(squares) + rest) / d as f32 + work.eps).sqrt();
        // SAFETY: as above.
        unsafe { work.rstd.slice(row, 1)[0] = rstd };
        let scale = s.splat(rstd);
        let (source, n) = (source.as_ptr(), source.len());
        vectors!(s, d, |i| {
            // SAFETY: `source` is a live row of `n = d` floats. It may be the very row `y`, so it is read here through a
            // pointer and each vector is read before it is written.
            let v = unsafe {
                if n - i >= S::LANES {
                    s.load(source.add(i))
                } else {
                    s.load_part(source.add(i), n - i)
                }
            };
            let v = s.mul(s.sub(v, shift), s.mul(scale, read(s, work.gamma, i)));
            let v = match work.beta {
                Some(beta) => s.add(v, read(s, beta, i)),
                None => v,
            };
            write(s, y, i, v);
        });
    }
}

/// Rows in a piece of work of the backward pass: the gradients of scale and shift are summed within a piece, then over at most
/// this many pieces, in order.
const PIECES: usize = 32;

fn backward(
    x: &[f32],
    mean: Option<&[f32]>,
    rstd: &[f32],
    gamma: &[f32],
    dy: &[f32],
    out: NormGradients,
    n: usize,
) {
    let d = gamma.len();
    let rows = n.div_ceil(PIECES).max(8);
    let pieces = n.div_ceil(rows);
    let mut partial = scratch(pieces * 2 * d);
    partial.fill(0.0);
    let shared = SharedMut::new(&mut partial);
    let work = Backward {
        x,
        mean,
        rstd,
        gamma,
        dy,
        dx: SharedMut::new(out.dx),
    };
    for_each(pieces, rows * d * 3, |index| {
        // SAFETY: every piece has its own part.
        let sums = unsafe { shared.slice(index * 2 * d, 2 * d) };
        backward_rows(work, index * rows, ((index + 1) * rows).min(n), sums);
    });
    out.dgamma.fill(0.0);
    add_parts(&partial, 2 * d, 0, out.dgamma);
    if let Some(dbeta) = out.dbeta {
        dbeta.fill(0.0);
        add_parts(&partial, 2 * d, d, dbeta);
    }
}

fn add_parts(partial: &[f32], stride: usize, at: usize, to: &mut [f32]) {
    for part in partial.chunks_exact(stride) {
        for (to, x) in to.iter_mut().zip(&part[at..]) {
            *to += x;
        }
    }
}

#[derive(Clone, Copy)]
struct Backward<'a> {
    x: &'a [f32],
    mean: Option<&'a [f32]>,
    rstd: &'a [f32],
    gamma: &'a [f32],
    dy: &'a [f32],
    dx: SharedMut,
}

dispatched!(fn backward_rows = backward_rows_on(work: Backward, first: usize, last: usize, sums: &mut [f32]));

/// With x̂ = (x - mean) rstd and g = dy · gamma: dx = rstd (g - mean(g) - x̂ mean(g x̂)); without centring, no mean(g).
#[inline(always)]
fn backward_rows_on<S: Simd>(s: S, work: Backward, first: usize, last: usize, sums: &mut [f32]) {
    let d = work.gamma.len();
    let (dgamma, dbeta) = sums.split_at_mut(d);
    for row in first..last {
        let (x, dy) = (&work.x[row * d..][..d], &work.dy[row * d..][..d]);
        let shift = s.splat(work.mean.map_or(0.0, |mean| mean[row]));
        let rstd = s.splat(work.rstd[row]);
        let (mut g_sum, mut gx_sum) = (s.zero(), s.zero());
        vectors!(s, d, |i| {
            let xhat = s.mul(s.sub(read(s, x, i), shift), rstd);
            let dy = read(s, dy, i);
            let g = s.mul(dy, read(s, work.gamma, i));
            // Behind the end of the row dy is 0, and so is everything added.
            g_sum = s.add(g_sum, g);
            gx_sum = s.fma(g, xhat, gx_sum);
            write(s, dgamma, i, s.fma(dy, xhat, read(s, dgamma, i)));
            write(s, dbeta, i, s.add(dy, read(s, dbeta, i)));
        });
        let mean_g = s.splat(if work.mean.is_some() {
            s.sum(g_sum) / d as f32
        } else {
            0.0
        });
        let mean_gx = s.splat(s.sum(gx_sum) / d as f32);
        // SAFETY: this piece of work alone has these rows.
        let dx = unsafe { work.dx.slice(row * d, d) };
        vectors!(s, d, |i| {
            let xhat = s.mul(s.sub(read(s, x, i), shift), rstd);
            let g = s.mul(read(s, dy, i), read(s, work.gamma, i));
            let v = s.fnma(xhat, mean_gx, s.sub(g, mean_g));
            write(s, dx, i, s.mul(v, rstd));
        });
    }
}
