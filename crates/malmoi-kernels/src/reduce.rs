//! Sums whose order is fixed by the shape.

use crate::naive;

/// The sum of all elements, accumulated in double precision.
#[must_use]
pub fn sum(x: &[f32]) -> f64 {
    naive::reduce::sum(x)
}

/// The mean of all elements; 0 for an empty slice.
#[must_use]
pub fn mean(x: &[f32]) -> f64 {
    if x.is_empty() {
        0.0
    } else {
        sum(x) / x.len() as f64
    }
}

/// The sum of squares, accumulated in double precision. The global gradient norm is the root of a sum of these.
#[must_use]
pub fn sum_of_squares(x: &[f32]) -> f64 {
    naive::reduce::sum_of_squares(x)
}

/// The sum of products, accumulated in double precision.
///
/// # Panics
/// When the lengths differ.
#[must_use]
pub fn dot(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len(), "dot: both slices have the same length");
    naive::reduce::dot(x, y)
}

/// Sums the rows of `x` [n, d] into `out` [d], added to what it holds when `accumulate`.
///
/// # Panics
/// When `x` is not made of rows as wide as `out`.
pub fn sum_rows(x: &[f32], out: &mut [f32], accumulate: bool) {
    assert!(
        out.is_empty() && x.is_empty() || !out.is_empty() && x.len().is_multiple_of(out.len()),
        "sum_rows: x is made of rows of {}",
        out.len()
    );
    naive::reduce::sum_rows(x, out, accumulate);
}

/// Whether no element is infinite or not a number.
#[must_use]
pub fn all_finite(x: &[f32]) -> bool {
    x.iter().all(|x| x.is_finite())
}
