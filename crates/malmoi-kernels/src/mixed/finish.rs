//! What happens to finished sums, row by row, while they are in the cache.

use super::{Finish, bf16};
use crate::activation::{Activation, apply_in_place_on, derivative_on, with_constant};
use crate::simd::{Element, Simd, read, vectors, write, write_bf16};
use crate::threads::SharedMut;

/// [`Finish`] for several threads.
#[derive(Clone, Copy)]
pub(crate) enum SharedFinish<'a, E = bf16> {
    Activate {
        bias: Option<&'a [f32]>,
        activation: Activation,
        input: Option<SharedMut<E>>,
    },
    Derivative {
        activation: Activation,
        input: &'a [E],
    },
    Add {
        residual: &'a [E],
    },
}

impl<'a, E> From<Finish<'a, E>> for SharedFinish<'a, E> {
    fn from(finish: Finish<'a, E>) -> SharedFinish<'a, E> {
        match finish {
            Finish::Activate {
                bias,
                activation,
                input,
            } => SharedFinish::Activate {
                bias,
                activation,
                input: input.map(SharedMut::new),
            },
            Finish::Derivative { activation, input } => {
                SharedFinish::Derivative { activation, input }
            }
            Finish::Add { residual } => SharedFinish::Add { residual },
        }
    }
}

/// Finishes `sums` in place: part of a row of the dense result that begins at element `at`, in column `column`. Whoever calls has
/// these elements to himself.
#[inline(always)]
pub(crate) fn finish_on<S: Simd, E: Element>(
    s: S,
    finish: SharedFinish<E>,
    sums: &mut [f32],
    at: usize,
    column: usize,
) {
    let n = sums.len();
    match finish {
        SharedFinish::Activate {
            bias,
            activation,
            input,
        } => {
            if let Some(bias) = bias {
                let bias = &bias[column..][..n];
                vectors!(s, n, |i| {
                    let sum = s.add(read(s, sums, i), read(s, bias, i));
                    write(s, sums, i, sum);
                });
            }
            if let Some(input) = input {
                // SAFETY: these elements are the caller's alone.
                let input = unsafe { input.slice(at, n) };
                vectors!(s, n, |i| E::write(s, input, i, read(s, sums, i)));
            }
            apply_in_place_on(s, activation, sums);
        }
        SharedFinish::Derivative { activation, input } => {
            let input = &input[at..][..n];
            with_constant!(activation, KIND => vectors!(s, n, |i| {
                let slope = derivative_on(s, KIND, E::read(s, input, i));
                let product = s.mul(read(s, sums, i), slope);
                write(s, sums, i, product);
            }));
        }
        SharedFinish::Add { residual } => {
            let residual = &residual[at..][..n];
            vectors!(s, n, |i| {
                let sum = s.add(read(s, sums, i), E::read(s, residual, i));
                write(s, sums, i, sum);
            });
        }
    }
}

/// `y = x`, rounded.
#[inline(always)]
pub(crate) fn round_row_on<S: Simd>(s: S, x: &[f32], y: &mut [bf16]) {
    vectors!(s, y.len(), |i| write_bf16(s, y, i, read(s, x, i)));
}
