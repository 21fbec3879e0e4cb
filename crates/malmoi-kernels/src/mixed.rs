//! Products of bf16 values with f32 sums, and what surrounds them in mixed precision.
//!
//! Operands may be stored as bf16 or as f32; they are rounded to bf16 (to nearest, ties to even) when they are brought into
//! tiles. With a tile unit the products run there. Without one they are computed in f32 on values rounded the same way, which
//! gives the same results but for the order of sums.

mod activation;
mod attention;
mod convert;
mod finish;
mod rows;

pub use half::bf16;

use std::borrow::Cow;

use crate::activation::Activation;
use crate::cpu::{Isa, isa};
use crate::gemm::{Ending, FinishOf, Mat, Operand, multiply};
use crate::scratch::scratch;
use crate::threads::{SharedMut, for_each};
pub use activation::{activation_backward, activation_forward, gated_backward, gated_forward};
pub use attention::{attention_backward, attention_forward};
pub use convert::{add_in_place, round_to_bf16, to_bf16, to_f32};
pub(crate) use convert::{narrow, round_bits};
pub(crate) use finish::{SharedFinish, finish_on, round_row_on};
pub use rows::{Norm, NormOut, NormSaved, add_dropout, norm_backward, norm_forward, sum_rows};

#[cfg(test)]
mod tests;

/// Stored numbers of either format.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// The upper half of 32-bit floats.
    Bf16(&'a [bf16]),
}

impl Values<'_> {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Values::F32(x) => x.len(),
            Values::Bf16(x) => x.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> Values<'a> {
    /// As f32, copied where they are not.
    #[must_use]
    pub fn to_f32(self) -> Cow<'a, [f32]> {
        match self {
            Values::F32(values) => Cow::Borrowed(values),
            Values::Bf16(values) => {
                let mut wide = vec![0.0; values.len()];
                to_f32(values, &mut wide);
                Cow::Owned(wide)
            }
        }
    }
}

/// Where results go, in either format.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// 32-bit floats.
    F32(&'a mut [f32]),
    /// Rounded to bf16.
    Bf16(&'a mut [bf16]),
}

impl ValuesMut<'_> {
    fn len(&self) -> usize {
        match self {
            ValuesMut::F32(x) => x.len(),
            ValuesMut::Bf16(x) => x.len(),
        }
    }
}

/// A matrix of either format. Element (i, j) is `values[i * row_stride + j * col_stride]`; one of the strides is 1.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub(crate) values: Values<'a>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix whose element (i, j) is value `i * row_stride + j * col_stride`.
    ///
    /// # Panics
    /// When neither rows nor columns are contiguous, or the last element lies behind the end.
    #[must_use]
    pub fn strided(
        values: Values<'a>,
        [rows, cols]: [usize; 2],
        [row_stride, col_stride]: [usize; 2],
    ) -> Matrix<'a> {
        assert!(
            row_stride == 1 || col_stride == 1,
            "rows or columns of a matrix in tiles are contiguous"
        );
        let last = rows.saturating_sub(1) * row_stride + cols.saturating_sub(1) * col_stride;
        assert!(
            rows * cols == 0 || last < values.len(),
            "a {rows}x{cols} matrix with strides {row_stride} and {col_stride} does not fit {} elements",
            values.len()
        );
        Matrix {
            values,
            rows,
            cols,
            row_stride,
            col_stride,
        }
    }

    /// A dense matrix whose rows lie one after the other.
    ///
    /// # Panics
    /// When `values` does not hold exactly `rows * cols` elements.
    #[must_use]
    pub fn row_major(values: Values<'a>, rows: usize, cols: usize) -> Matrix<'a> {
        assert_eq!(
            values.len(),
            rows * cols,
            "a {rows}x{cols} matrix needs that many elements"
        );
        Matrix {
            values,
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    /// A matrix whose rows are `row_stride` elements apart, for a slice of the columns of a wider one.
    ///
    /// # Panics
    /// When `values` is too short for the last row.
    #[must_use]
    pub fn with_row_stride(
        values: Values<'a>,
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Matrix<'a> {
        Matrix::strided(values, [rows, cols], [row_stride, 1])
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The transpose: the same elements, rows and columns exchanged. Nothing moves.
    #[must_use]
    pub fn t(self) -> Matrix<'a> {
        Matrix {
            values: self.values,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// Its columns, rounded, one after the other.
    pub(crate) fn columns(&self) -> Vec<bf16> {
        let (k, n) = (self.rows, self.cols);
        let mut columns = vec![bf16::ZERO; k * n];
        let out = SharedMut::new(&mut columns);
        for_each(n, k * 2, |j| {
            // SAFETY: every index has its own column.
            let column = unsafe { out.slice(j * k, k) };
            let first = j * self.col_stride;
            match self.values {
                Values::F32(values) if self.row_stride == 1 => {
                    narrow(&values[first..][..k], column)
                }
                Values::Bf16(values) if self.row_stride == 1 => {
                    column.copy_from_slice(&values[first..][..k]);
                }
                Values::F32(values) => {
                    for (p, x) in column.iter_mut().enumerate() {
                        *x = bf16::from_f32(values[first + p * self.row_stride]);
                    }
                }
                Values::Bf16(values) => {
                    for (p, x) in column.iter_mut().enumerate() {
                        *x = values[first + p * self.row_stride];
                    }
                }
            }
        });
        columns
    }
}

impl<'a> From<Mat<'a>> for Matrix<'a> {
    fn from(mat: Mat<'a>) -> Matrix<'a> {
        let Mat {
            data,
            rows,
            cols,
            row_stride,
            col_stride,
        } = mat;
        Matrix::strided(Values::F32(data), [rows, cols], [row_stride, col_stride])
    }
}

/// What happens to a finished element `c` of the product, in f32, before it is stored. `E`: the format of what comes from beside the
/// product.
#[derive(Debug)]
pub enum Finish<'a, E = bf16> {
    /// `activation(c + bias[column])`.
    Activate {
        /// One value a column.
        bias: Option<&'a [f32]>,
        /// Applied last.
        activation: Activation,
        /// Receives `c + bias`, which the backward pass of the activation needs; dense, as long as the result.
        input: Option<&'a mut [E]>,
    },
    /// `c · activation'(input)`: the backward pass of an activation in front of the product.
    Derivative {
        /// The activation.
        activation: Activation,
        /// What it was given; dense, as long as the result.
        input: &'a [E],
    },
    /// `c + residual`.
    Add {
        /// Dense, as long as the result.
        residual: &'a [E],
    },
}

impl<'a, E> Finish<'a, E> {
    /// The product as it is.
    pub const NONE: Finish<'a, E> = Finish::Activate {
        bias: None,
        activation: Activation::Identity,
        input: None,
    };

    /// Adds a bias, when there is one.
    #[must_use]
    pub fn bias(bias: Option<&'a [f32]>) -> Finish<'a, E> {
        Finish::Activate {
            bias,
            activation: Activation::Identity,
            input: None,
        }
    }

    /// Panics in the name of `by` unless what stands beside a result of `len` elements in rows of `n` fits it.
    pub(crate) fn check(&self, by: &str, n: usize, len: usize) {
        match self {
            Finish::Activate { bias, input, .. } => {
                assert!(
                    bias.is_none_or(|bias| bias.len() == n),
                    "{by}: one bias a column"
                );
                assert!(
                    input.as_ref().is_none_or(|input| input.len() == len),
                    "{by}: the activation's input is as long as the result"
                );
            }
            Finish::Derivative { input: other, .. } | Finish::Add { residual: other } => {
                assert_eq!(
                    other.len(),
                    len,
                    "{by}: the second term is as long as the result"
                );
            }
        }
    }
}

/// The right operand of a product brought into tiles once, for many products. Without a tile unit it is kept as bf16.
#[derive(Clone, Debug)]
pub struct PackedRight {
    k: usize,
    n: usize,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    #[cfg(target_arch = "x86_64")]
    Tiles(crate::amx::Packed),
    /// Columns one after the other: the transpose, row-major.
    Columns(Vec<bf16>),
}

impl PackedRight {
    /// Packs `b` [k, n].
    #[must_use]
    pub fn new(b: Matrix) -> PackedRight {
        let (k, n) = (b.rows, b.cols);
        #[cfg(target_arch = "x86_64")]
        if let Some(amx) = tiles() {
            return PackedRight {
                k,
                n,
                form: Form::Tiles(crate::amx::Packed::new(amx, b)),
            };
        }
        PackedRight {
            k,
            n,
            form: Form::Columns(b.columns()),
        }
    }

    /// Rows of the operand.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of the operand.
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.form {
            #[cfg(target_arch = "x86_64")]
            Form::Tiles(tiles) => tiles.bytes(),
            Form::Columns(columns) => size_of_val(&columns[..]),
        }
    }
}

/// The right operand of a product.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// As it is.
    Plain(Matrix<'a>),
    /// Packed beforehand.
    Packed(&'a PackedRight),
}

#[cfg(target_arch = "x86_64")]
fn tiles() -> Option<crate::amx::Amx> {
    (isa() == Isa::Amx).then(crate::amx::Amx::new).flatten()
}

/// `out = finish(a · b)`, or `finish(out + a · b)` when `accumulate`, which only an f32 result allows.
///
/// Shapes: `a` [m, k], `b` [k, n], `out` [m, n] dense.
///
/// # Panics
/// When shapes or lengths disagree, or a bf16 result is to be added to.
pub fn product(a: Matrix, b: Right, out: ValuesMut, accumulate: bool, finish: Finish) {
    let (k, n) = match b {
        Right::Plain(b) => (b.rows, b.cols),
        Right::Packed(b) => (b.k, b.n),
    };
    assert_eq!(
        a.cols, k,
        "product: a has {} columns, b has {k} rows",
        a.cols
    );
    assert_eq!(
        out.len(),
        a.rows * n,
        "product: the result must hold {} x {n}",
        a.rows
    );
    assert!(
        !accumulate || matches!(out, ValuesMut::F32(_)),
        "product: sums over several calls are kept in f32"
    );
    finish.check("product", n, out.len());
    if out.len() == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = tiles() {
        use crate::amx::{Work, multiply, with_packed};
        match b {
            Right::Packed(PackedRight {
                form: Form::Tiles(tiles),
                ..
            }) => {
                multiply(
                    amx,
                    Work::new(a, tiles.panels(), n, out, accumulate, finish),
                );
            }
            Right::Packed(PackedRight {
                form: Form::Columns(_),
                ..
            }) => {
                panic!("product: b was packed for another instruction set")
            }
            Right::Plain(b) => with_packed(amx, b, |panels| {
                multiply(amx, Work::new(a, panels, n, out, accumulate, finish));
            }),
        }
        return;
    }
    on_vectors(a, b, n, out, accumulate, finish);
}

/// The same in f32 on rounded values.
fn on_vectors(a: Matrix, b: Right, n: usize, out: ValuesMut, accumulate: bool, finish: Finish) {
    let b = match b {
        Right::Plain(b) => b,
        Right::Packed(PackedRight {
            form: Form::Columns(columns),
            ..
        }) => Matrix::row_major(Values::Bf16(columns), n, a.cols).t(),
        #[cfg(target_arch = "x86_64")]
        Right::Packed(_) => panic!("product: b was packed for another instruction set"),
    };
    let mut buffer;
    let (sums, rounded) = match out {
        ValuesMut::F32(out) => (out, None),
        ValuesMut::Bf16(out) => {
            buffer = scratch(out.len());
            (&mut buffer[..], Some(SharedMut::new(out)))
        }
    };
    let finish = FinishOf::Bf16(finish.into());
    let ending = Ending { finish, rounded };
    let (a, b) = (Operand::Rounded(a), Operand::Rounded(b));
    multiply(a, b, sums, accumulate, ending);
}
