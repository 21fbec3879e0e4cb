//! Matrix products `c = a · b`, optionally added to what `c` holds, with a bias and an activation applied at the end.
//!
//! Three ways: dot products for few rows against transposed weights that lie as they are (`skinny`), panel by panel for a few dozen
//! rows (`streamed`), blocks for everything else (`blocked`). Callers see only [`gemm`], [`gemm_packed`] and an opaque [`PackedMat`], so a way with another number format or
//! tile unit can be added behind the same functions.

mod blocked;
mod operand;
mod pack;
mod skinny;
mod streamed;

use crate::activation::Activation;
use crate::mixed::{Finish, Matrix, SharedFinish, Values, bf16, finish_on, round_row_on};
use crate::simd::{Simd, dispatched};
use crate::threads::SharedMut;
use blocked::{Blocks, Right};
pub(crate) use operand::Operand;
pub(crate) use pack::{pack_a_on, pack_b_on};
pub use skinny::rows_alike;

#[cfg(test)]
mod tests;

/// A matrix over a slice. Element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A dense matrix whose rows lie one after the other.
    ///
    /// # Panics
    /// When `data` does not hold exactly `rows * cols` elements.
    #[must_use]
    pub fn row_major(data: &'a [f32], rows: usize, cols: usize) -> Mat<'a> {
        assert_eq!(
            data.len(),
            rows * cols,
            "a {rows}x{cols} matrix needs that many elements"
        );
        Mat {
            data,
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    /// A matrix whose rows are `row_stride` elements apart, for a slice of the columns of a wider one.
    ///
    /// # Panics
    /// When `data` is too short for the last row.
    #[must_use]
    pub fn with_row_stride(
        data: &'a [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Mat<'a> {
        let mat = Mat {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        };
        mat.check();
        mat
    }

    /// The transpose: the same elements, rows and columns exchanged. Nothing moves.
    #[must_use]
    pub fn t(self) -> Mat<'a> {
        Mat {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// The first `rows` rows.
    pub(crate) fn first_rows(self, rows: usize) -> Mat<'a> {
        debug_assert!(rows <= self.rows);
        Mat { rows, ..self }
    }

    /// Row `i`, when its elements are neighbours.
    pub(crate) fn row(self, i: usize) -> &'a [f32] {
        debug_assert!(self.col_stride == 1);
        &self.data[i * self.row_stride..][..self.cols]
    }

    fn check(&self) {
        if self.rows > 0 && self.cols > 0 {
            let last = (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride;
            assert!(
                last < self.data.len(),
                "a {}x{} matrix with strides {} and {} reaches element {last}, the slice holds {}",
                self.rows,
                self.cols,
                self.row_stride,
                self.col_stride,
                self.data.len()
            );
        }
    }
}

/// What happens to a finished element of the product: `activation(c + bias[column])`.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// One value a column.
    pub bias: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

impl Epilogue<'_> {
    /// The plain product.
    pub const NONE: Epilogue<'static> = Epilogue {
        bias: None,
        activation: Activation::Identity,
    };
}

impl<'a> Epilogue<'a> {
    /// Adds a bias, when there is one.
    #[must_use]
    pub fn bias(bias: Option<&'a [f32]>) -> Epilogue<'a> {
        Epilogue {
            bias,
            activation: Activation::Identity,
        }
    }
}

/// `c = epilogue(a · b)`, or `c = epilogue(c + a · b)` when `accumulate`.
///
/// Shapes: `a` [m, k], `b` [k, n], `c` [m, n] row-major. With k = 0 the product is zero.
///
/// # Panics
/// When shapes or lengths disagree.
pub fn gemm(a: Mat, b: Mat, c: &mut [f32], accumulate: bool, epilogue: Epilogue) {
    gemm_finished(a, b, c, accumulate, epilogue.into());
}

/// `c = finish(a · b)`, or `c = finish(c + a · b)` when `accumulate`: [`gemm`] with what a backward pass needs.
///
/// # Panics
/// When shapes or lengths disagree.
pub fn gemm_finished(a: Mat, b: Mat, c: &mut [f32], accumulate: bool, finish: Finish<f32>) {
    assert_eq!(
        a.cols, b.rows,
        "gemm: a has {} columns, b has {} rows",
        a.cols, b.rows
    );
    assert_eq!(
        c.len(),
        a.rows * b.cols,
        "gemm: c must hold {} x {}",
        a.rows,
        b.cols
    );
    finish.check("gemm", b.cols, c.len());
    a.check();
    b.check();
    let (a, b) = (Operand::Exact(a), Operand::Exact(b));
    multiply(a, b, c, accumulate, finish.into());
}

/// What happens to finished sums, with what comes from beside the product in either format.
#[derive(Clone, Copy)]
pub(crate) enum FinishOf<'a> {
    F32(SharedFinish<'a, f32>),
    Bf16(SharedFinish<'a>),
}

impl FinishOf<'_> {
    /// Whether nothing happens.
    fn is_none(&self) -> bool {
        fn none<E>(finish: &SharedFinish<E>) -> bool {
            matches!(
                finish,
                SharedFinish::Activate {
                    bias: None,
                    activation: Activation::Identity,
                    input: None
                }
            )
        }
        match self {
            FinishOf::F32(finish) => none(finish),
            FinishOf::Bf16(finish) => none(finish),
        }
    }
}

impl<'a> From<Epilogue<'a>> for Finish<'a, f32> {
    fn from(Epilogue { bias, activation }: Epilogue<'a>) -> Finish<'a, f32> {
        Finish::Activate {
            bias,
            activation,
            input: None,
        }
    }
}

/// What happens to finished sums.
#[derive(Clone, Copy)]
pub(crate) struct Ending<'a> {
    /// In place.
    pub(crate) finish: FinishOf<'a>,
    /// Where rounded results go, as long as `c`; what `c` holds has no meaning then.
    pub(crate) rounded: Option<SharedMut<bf16>>,
}

impl<'a> From<Finish<'a, f32>> for Ending<'a> {
    fn from(finish: Finish<'a, f32>) -> Ending<'a> {
        Ending {
            finish: FinishOf::F32(finish.into()),
            rounded: None,
        }
    }
}

impl Ending<'_> {
    /// Finishes `sums`: part of a row of the result that begins at its element `at`, in column `column`. Whoever calls has these
    /// elements to himself.
    #[inline(always)]
    fn apply_on<S: Simd>(self, s: S, sums: &mut [f32], at: usize, column: usize) {
        match self.finish {
            FinishOf::F32(finish) => finish_on(s, finish, sums, at, column),
            FinishOf::Bf16(finish) => finish_on(s, finish, sums, at, column),
        }
        if let Some(rounded) = self.rounded {
            // SAFETY: these elements are the caller's alone.
            round_row_on(s, sums, unsafe { rounded.slice(at, sums.len()) });
        }
    }
}

/// [`gemm`] of either format; shapes and lengths were checked.
pub(crate) fn multiply(a: Operand, b: Operand, c: &mut [f32], accumulate: bool, ending: Ending) {
    let n = b.cols();
    if c.is_empty() {
        return;
    }
    if a.cols() == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        end_rows(c, ending, n);
    } else if skinny::suits(a, b) {
        skinny::multiply(a, b, c, accumulate);
        end_rows(c, ending, n);
    } else {
        tiled(a, Right::Plain(b), n, c, accumulate, ending);
    }
}

/// The product by tiles, in the order that suits its shape.
fn tiled(a: Operand, b: Right, n: usize, c: &mut [f32], accumulate: bool, ending: Ending) {
    if streamed::suits(a, b) {
        streamed::multiply(a, b, n, c, accumulate, ending);
    } else {
        blocked::multiply(a, b, n, c, accumulate, ending);
    }
}

/// A right-hand side `b` [k, n] brought once into the order that the product reads it in, for many products.
#[derive(Clone, Debug)]
pub struct PackedMat {
    panels: Vec<f32>,
    blocks: Blocks,
    k: usize,
    n: usize,
}

impl PackedMat {
    /// Packs `b` for the instruction set in use.
    #[must_use]
    pub fn new(b: Mat) -> PackedMat {
        b.check();
        PackedMat::of(Operand::Exact(b))
    }

    /// Packs the values of `b`, whatever their format.
    #[must_use]
    pub fn of_matrix(b: Matrix) -> PackedMat {
        PackedMat::of(match b.values {
            Values::F32(data) => Operand::Exact(Mat {
                data,
                rows: b.rows,
                cols: b.cols,
                row_stride: b.row_stride,
                col_stride: b.col_stride,
            }),
            // Rounding does not change what is rounded already.
            Values::Bf16(_) => Operand::Rounded(b),
        })
    }

    fn of(b: Operand) -> PackedMat {
        let (k, n) = (b.rows(), b.cols());
        let blocks = Blocks::new(k, n);
        PackedMat {
            panels: blocks.pack_all(b),
            blocks,
            k,
            n,
        }
    }

    /// Rows of `b`.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of `b`.
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }
}

/// [`gemm`] with `b` packed beforehand.
///
/// # Panics
/// When shapes or lengths disagree, or the instruction set changed since `b` was packed.
pub fn gemm_packed(a: Mat, b: &PackedMat, c: &mut [f32], accumulate: bool, epilogue: Epilogue) {
    assert_eq!(
        a.cols, b.k,
        "gemm_packed: a has {} columns, b has {} rows",
        a.cols, b.k
    );
    assert_eq!(
        c.len(),
        a.rows * b.n,
        "gemm_packed: c must hold {} x {}",
        a.rows,
        b.n
    );
    assert_eq!(
        b.blocks,
        Blocks::new(b.k, b.n),
        "gemm_packed: b was packed for another instruction set"
    );
    let finish = Finish::from(epilogue);
    finish.check("gemm_packed", b.n, c.len());
    a.check();
    if c.is_empty() {
        return;
    }
    let ending = Ending::from(finish);
    if a.cols == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        end_rows(c, ending, b.n);
    } else {
        let (a, panels) = (Operand::Exact(a), Right::Packed(&b.panels));
        tiled(a, panels, b.n, c, accumulate, ending);
    }
}

/// Finishes all of `c` [m, n].
fn end_rows(c: &mut [f32], ending: Ending, n: usize) {
    if !(ending.finish.is_none() && ending.rounded.is_none()) {
        crate::threads::chunks_mut(c, n, 4, |at, row| end_row(row, at, ending));
    }
}

dispatched!(fn end_row = end_row_on(row: &mut [f32], at: usize, ending: Ending));

#[inline(always)]
fn end_row_on<S: Simd>(s: S, row: &mut [f32], at: usize, ending: Ending) {
    ending.apply_on(s, row, at, 0);
}
