//! Linear layers `y = x · wᵀ + bias`. Weights are laid out as PyTorch does: `w` is [d_out, d_in], row-major.

use crate::gemm::{Epilogue, Mat, PackedMat, gemm, gemm_finished, gemm_packed};
use crate::mixed::{Finish, Matrix};

#[cfg(test)]
mod tests;

/// `y = x · wᵀ + bias`. Shapes: `x` [n, d_in], `w` [d_out, d_in], `bias` `[d_out]`, `y` [n, d_out].
///
/// # Panics
/// When lengths disagree.
pub fn linear_forward(
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    d_in: usize,
    d_out: usize,
    y: &mut [f32],
) {
    linear_forward_with(x, w, Epilogue::bias(bias), d_in, d_out, y);
}

/// `y = activation(x · wᵀ + bias)`: [`linear_forward`] with the activation applied while the result is in the cache.
///
/// # Panics
/// When lengths disagree.
pub fn linear_forward_with(
    x: &[f32],
    w: &[f32],
    epilogue: Epilogue,
    d_in: usize,
    d_out: usize,
    y: &mut [f32],
) {
    linear_forward_finished(x, w, epilogue.into(), d_in, d_out, y);
}

/// `y = finish(x · wᵀ)`: [`linear_forward`] with what the backward pass needs.
///
/// # Panics
/// When lengths disagree.
pub fn linear_forward_finished(
    x: &[f32],
    w: &[f32],
    finish: Finish<f32>,
    d_in: usize,
    d_out: usize,
    y: &mut [f32],
) {
    let n = rows(y.len(), d_out);
    let x = Mat::row_major(x, n, d_in);
    let w = Mat::row_major(w, d_out, d_in);
    gemm_finished(x, w.t(), y, false, finish);
}

/// `dx = dy · w`. Shapes: `dy` [n, d_out], `w` [d_out, d_in], `dx` [n, d_in].
///
/// # Panics
/// When lengths disagree.
pub fn linear_backward_input(dy: &[f32], w: &[f32], d_in: usize, d_out: usize, dx: &mut [f32]) {
    linear_backward_input_finished(dy, w, Finish::NONE, d_in, d_out, dx);
}

/// `dx = finish(dy · w)`, such as the derivative of an activation in front of the layer.
///
/// # Panics
/// When lengths disagree.
pub fn linear_backward_input_finished(
    dy: &[f32],
    w: &[f32],
    finish: Finish<f32>,
    d_in: usize,
    d_out: usize,
    dx: &mut [f32],
) {
    let n = rows(dx.len(), d_in);
    let dy = Mat::row_major(dy, n, d_out);
    let w = Mat::row_major(w, d_out, d_in);
    gemm_finished(dy, w, dx, false, finish);
}

/// `dw = dyᵀ · x`, added to what `dw` holds when `accumulate`. Shapes: `dy` [n, d_out], `x` [n, d_in], `dw` [d_out, d_in].
///
/// # Panics
/// When lengths disagree.
pub fn linear_backward_weight(
    dy: &[f32],
    x: &[f32],
    d_in: usize,
    d_out: usize,
    dw: &mut [f32],
    accumulate: bool,
) {
    let n = rows(x.len(), d_in);
    let dy = Mat::row_major(dy, n, d_out);
    let x = Mat::row_major(x, n, d_in);
    gemm(dy.t(), x, dw, accumulate, Epilogue::NONE);
}

/// `db = Σ_rows dy`, added to what `db` holds when `accumulate`. Shapes: `dy` [n, d_out], `db` `[d_out]`.
///
/// # Panics
/// When lengths disagree.
pub fn linear_backward_bias(dy: &[f32], d_out: usize, db: &mut [f32], accumulate: bool) {
    assert_eq!(
        db.len(),
        d_out,
        "linear_backward_bias: db holds d_out values"
    );
    crate::reduce::sum_rows(dy, db, accumulate);
}

/// Weights of a linear layer, brought once into the order that the product reads them in. For inference, where the same
/// weights meet many inputs.
#[derive(Clone, Debug)]
pub struct PackedWeights {
    w: PackedMat,
}

impl PackedWeights {
    /// Packs `w` [d_out, d_in], however it lies.
    #[must_use]
    pub fn new(w: Matrix) -> PackedWeights {
        PackedWeights {
            w: PackedMat::of_matrix(w.t()),
        }
    }

    /// Width of the input.
    #[must_use]
    pub fn d_in(&self) -> usize {
        self.w.k()
    }

    /// Width of the output.
    #[must_use]
    pub fn d_out(&self) -> usize {
        self.w.n()
    }
}

/// `y = activation(x · wᵀ + bias)` with packed weights. Shapes: `x` [n, d_in], `y` [n, d_out].
///
/// # Panics
/// When lengths disagree.
pub fn linear_forward_packed(x: &[f32], w: &PackedWeights, epilogue: Epilogue, y: &mut [f32]) {
    let n = rows(y.len(), w.d_out());
    gemm_packed(Mat::row_major(x, n, w.d_in()), &w.w, y, false, epilogue);
}

fn rows(len: usize, width: usize) -> usize {
    if width == 0 {
        assert_eq!(len, 0, "a matrix of width 0 holds nothing");
        return 0;
    }
    assert!(
        len.is_multiple_of(width),
        "{len} elements are not rows of {width}"
    );
    len / width
}
