//! Sums in the plain order.

/// See [`crate::reduce::sum`].
#[must_use]
pub fn sum(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x)).sum()
}

/// See [`crate::reduce::sum_of_squares`].
#[must_use]
pub fn sum_of_squares(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// See [`crate::reduce::dot`].
#[must_use]
pub fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter()
        .zip(y)
        .map(|(&x, &y)| f64::from(x) * f64::from(y))
        .sum()
}

/// See [`crate::reduce::sum_rows`].
pub fn sum_rows(x: &[f32], out: &mut [f32], accumulate: bool) {
    let d = out.len();
    for (j, out) in out.iter_mut().enumerate() {
        let before = if accumulate { f64::from(*out) } else { 0.0 };
        *out = x
            .iter()
            .skip(j)
            .step_by(d)
            .fold(before, |sum, &x| sum + f64::from(x)) as f32;
    }
}
