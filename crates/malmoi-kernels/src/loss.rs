//! Softmax, cross-entropy, and the vocabulary projection fused with both.

mod rows;

use crate::gemm::{Epilogue, Mat, gemm};
use crate::mixed::{self, Matrix, Values};
use crate::scratch::scratch;

#[cfg(test)]
mod tests;

/// Sums over the rows of a batch. Divide `loss` by `weight` for the mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// Σ weight · (-log p(target)), in nats.
    pub loss: f64,
    /// Σ weight.
    pub weight: f64,
    /// Σ weight over the rows whose largest logit (the first of equals) is the target's.
    pub correct: f64,
}

impl std::ops::AddAssign for LossSum {
    fn add_assign(&mut self, other: LossSum) {
        self.loss += other.loss;
        self.weight += other.weight;
        self.correct += other.correct;
    }
}

/// Weighted cross-entropy of `logits` [m, vocab] against `targets` `[m]` with `weights` `[m]`.
///
/// Rows of weight 0 are ignored, whatever their target. `dlogits` [m, vocab], when given, receives
/// `weight · (softmax - one-hot)`, the gradient of the summed loss.
///
/// # Panics
/// When lengths disagree, or a row with weight has a target outside the vocabulary.
pub fn cross_entropy_forward(
    logits: &[f32],
    targets: &[u32],
    weights: &[f32],
    dlogits: Option<&mut [f32]>,
) -> LossSum {
    let vocab = check_targets("cross_entropy_forward", logits.len(), targets, weights);
    assert!(
        dlogits.as_ref().is_none_or(|d| d.len() == logits.len()),
        "cross_entropy_forward: dlogits is as long as logits"
    );
    match dlogits {
        Some(dlogits) => {
            dlogits.copy_from_slice(logits);
            rows::cross_entropy_in_place(dlogits, vocab, targets, weights, |_| ())
        }
        None => rows::cross_entropy(logits, vocab, targets, weights),
    }
}

fn check_targets(name: &str, logits: usize, targets: &[u32], weights: &[f32]) -> usize {
    let m = targets.len();
    assert_eq!(weights.len(), m, "{name}: one weight a target");
    if m == 0 {
        assert_eq!(logits, 0, "{name}: one target a row");
        return 1;
    }
    assert!(
        logits.is_multiple_of(m),
        "{name}: {logits} logits are not {m} rows"
    );
    let vocab = logits / m;
    for (row, (&target, &weight)) in targets.iter().zip(weights).enumerate() {
        assert!(
            weight == 0.0 || (target as usize) < vocab,
            "{name}: target {target} of row {row} is outside a vocabulary of {vocab}"
        );
    }
    vocab
}

/// The input of [`linear_cross_entropy`].
#[derive(Clone, Copy, Debug)]
pub struct LinearCrossEntropy<'a> {
    /// Hidden states [m, d].
    pub x: &'a [f32],
    /// Vocabulary projection [vocab, d].
    pub w: &'a [f32],
    /// Its bias `[vocab]`, when there is one.
    pub bias: Option<&'a [f32]>,
    /// Target ids `[m]`.
    pub targets: &'a [u32],
    /// Weight of each row `[m]`; rows of weight 0 are ignored.
    pub weights: &'a [f32],
    /// Width of the hidden states.
    pub d: usize,
    /// How the products are computed.
    pub products: Products,
}

/// The arithmetic of products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// In f32.
    #[default]
    F32,
    /// Of operands rounded to bf16, with f32 sums; see [`crate::mixed`].
    Bf16,
}

impl Products {
    /// `c = a · b + bias`, or added to `c`.
    fn multiply(self, a: Left, b: Mat, bias: Option<&[f32]>, c: &mut [f32], accumulate: bool) {
        let a = match (self, a) {
            (Products::F32, Left::F32(a)) => {
                return gemm(a, b, c, accumulate, Epilogue::bias(bias));
            }
            (_, Left::F32(a)) => a.into(),
            (_, Left::Bf16(a)) => a,
        };
        mixed::product(
            a,
            mixed::Right::Plain(b.into()),
            mixed::ValuesMut::F32(c),
            accumulate,
            mixed::Finish::bias(bias),
        );
    }
}

/// The left operand of a product.
#[derive(Clone, Copy)]
enum Left<'a> {
    F32(Mat<'a>),
    Bf16(Matrix<'a>),
}

impl Left<'_> {
    /// The transpose; nothing moves.
    fn t(self) -> Self {
        match self {
            Self::F32(a) => Self::F32(a.t()),
            Self::Bf16(a) => Self::Bf16(a.t()),
        }
    }
}

/// Rows that [`rows::halve`] rounded, [n, width].
fn halved(values: &[f32], width: usize) -> Matrix<'_> {
    // SAFETY: two bf16 values fill a float, and any bits are values of either.
    let halves = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), 2 * values.len()) };
    Matrix::with_row_stride(Values::Bf16(halves), values.len() / width, width, 2 * width)
}

/// Where [`linear_cross_entropy`] puts gradients of the summed loss.
#[derive(Debug)]
pub struct LinearCrossEntropyGradients<'a> {
    /// With respect to `x` [m, d]; overwritten.
    pub dx: &'a mut [f32],
    /// With respect to `w` [vocab, d], when it is trained; added to what it holds.
    pub dw: Option<&'a mut [f32]>,
    /// With respect to the bias `[vocab]`; added to what it holds.
    pub dbias: Option<&'a mut [f32]>,
}

/// Cross-entropy of `x · wᵀ + bias` against the targets, and its gradients in the same pass when asked. The logits exist
/// only for a block of rows at a time.
///
/// # Panics
/// When lengths disagree, or a row with weight has a target outside the vocabulary.
pub fn linear_cross_entropy(
    input: LinearCrossEntropy,
    gradients: Option<LinearCrossEntropyGradients>,
) -> LossSum {
    let LinearCrossEntropy {
        x,
        w,
        bias,
        targets,
        weights,
        d,
        products,
    } = input;
    assert!(
        d > 0 && w.len().is_multiple_of(d),
        "linear_cross_entropy: w is [vocab, d]"
    );
    let vocab = w.len() / d;
    assert_eq!(
        x.len(),
        targets.len() * d,
        "linear_cross_entropy: x is [m, d]"
    );
    assert!(
        bias.is_none_or(|b| b.len() == vocab),
        "linear_cross_entropy: bias is [vocab]"
    );
    check_targets(
        "linear_cross_entropy",
        targets.len() * vocab,
        targets,
        weights,
    );
    if let Some(g) = &gradients {
        assert_eq!(
            g.dx.len(),
            x.len(),
            "linear_cross_entropy: dx is as long as x"
        );
        assert!(
            g.dw.as_ref().is_none_or(|dw| dw.len() == w.len()),
            "linear_cross_entropy: dw is as long as w"
        );
        assert!(
            g.dbias.as_ref().is_none_or(|db| db.len() == vocab),
            "linear_cross_entropy: dbias is [vocab]"
        );
    }
    let m = targets.len();
    let mut total = LossSum::default();
    if m == 0 {
        return total;
    }
    // Even blocks of rows whose logits are at most `LOGITS`: the fewer blocks, the less often the weights are packed.
    let blocks = m.div_ceil((LOGITS / vocab.max(1)).clamp(64, 4096));
    let rows = m.div_ceil(blocks);
    let mut logits = scratch(rows * vocab);
    let w_mat = Mat::row_major(w, vocab, d);
    let mut gradients = gradients;
    for first in (0..m).step_by(rows) {
        let n = rows.min(m - first);
        let logits = &mut logits[..n * vocab];
        let x = &x[first * d..][..n * d];
        let states = Left::F32(Mat::row_major(x, n, d));
        products.multiply(states, w_mat.t(), bias, logits, false);
        let (targets, weights) = (&targets[first..][..n], &weights[first..][..n]);
        let Some(g) = &mut gradients else {
            total += rows::cross_entropy(logits, vocab, targets, weights);
            continue;
        };
        let dbias = g.dbias.as_deref_mut();
        let halve_at_once = products == Products::Bf16 && dbias.is_none();
        total += rows::cross_entropy_in_place(logits, vocab, targets, weights, |row| {
            if halve_at_once {
                rows::halve(row);
            }
        });
        if let Some(dbias) = dbias {
            crate::reduce::sum_rows(logits, dbias, true);
            if products == Products::Bf16 {
                rows::halve_rows(logits, vocab);
            }
        }
        let dlogits = match products {
            Products::F32 => Left::F32(Mat::row_major(logits, n, vocab)),
            Products::Bf16 => Left::Bf16(halved(logits, vocab)),
        };
        let dx = &mut g.dx[first * d..][..n * d];
        products.multiply(dlogits, w_mat, None, dx, false);
        if let Some(dw) = g.dw.as_deref_mut() {
            products.multiply(dlogits.t(), Mat::row_major(x, n, d), None, dw, true);
        }
    }
    total
}

/// Logits held at a time (128 MB).
const LOGITS: usize = 32 << 20;

/// Softmax of each row of width `d`.
///
/// # Panics
/// When lengths disagree.
pub fn softmax_rows(x: &[f32], d: usize, y: &mut [f32]) {
    check_rows("softmax_rows", x, d, y);
    rows::softmax(x, d, y);
}

/// Logarithm of the softmax of each row of width `d`.
///
/// # Panics
/// When lengths disagree.
pub fn log_softmax_rows(x: &[f32], d: usize, y: &mut [f32]) {
    check_rows("log_softmax_rows", x, d, y);
    rows::log_softmax(x, d, y);
}

fn check_rows(name: &str, x: &[f32], d: usize, y: &[f32]) {
    assert!(
        d > 0 && x.len().is_multiple_of(d),
        "{name}: {} elements are not rows of {d}",
        x.len()
    );
    assert_eq!(x.len(), y.len(), "{name}: x and y have the same length");
}

/// The `k` largest elements (all of them when the row is shorter) with their places, largest first, the earlier of equals
/// first. Not-a-number counts as smaller than everything.
#[must_use]
pub fn top_k(row: &[f32], k: usize) -> Vec<(u32, f32)> {
    let k = k.min(row.len());
    if k == 0 {
        return Vec::new();
    }
    let order = |a: &u32, b: &u32| {
        let (x, y) = (row[*a as usize], row[*b as usize]);
        // -0 and 0 are equal, so the comparison is the partial one; not-a-number goes last.
        (x.is_nan().cmp(&y.is_nan()))
            .then(y.partial_cmp(&x).unwrap_or(std::cmp::Ordering::Equal))
            .then(a.cmp(b))
    };
    let mut places: Vec<u32> = (0..row.len() as u32).collect();
    if k < places.len() {
        places.select_nth_unstable_by(k - 1, order);
        places.truncate(k);
    }
    places.sort_unstable_by(order);
    places.into_iter().map(|i| (i, row[i as usize])).collect()
}
