//! Linear layers as loops.

/// See [`crate::linear::linear_forward`].
pub fn linear_forward(
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    d_in: usize,
    d_out: usize,
    y: &mut [f32],
) {
    for (i, y) in y.chunks_exact_mut(d_out.max(1)).enumerate() {
        for (o, y) in y.iter_mut().enumerate() {
            let mut sum = bias.map_or(0.0, |b| f64::from(b[o]));
            for p in 0..d_in {
                sum += f64::from(x[i * d_in + p]) * f64::from(w[o * d_in + p]);
            }
            *y = sum as f32;
        }
    }
}

/// See [`crate::linear::linear_backward_input`].
pub fn linear_backward_input(dy: &[f32], w: &[f32], d_in: usize, d_out: usize, dx: &mut [f32]) {
    for (i, dx) in dx.chunks_exact_mut(d_in.max(1)).enumerate() {
        for (p, dx) in dx.iter_mut().enumerate() {
            *dx = (0..d_out)
                .map(|o| f64::from(dy[i * d_out + o]) * f64::from(w[o * d_in + p]))
                .sum::<f64>() as f32;
        }
    }
}

/// See [`crate::linear::linear_backward_weight`].
pub fn linear_backward_weight(
    dy: &[f32],
    x: &[f32],
    d_in: usize,
    d_out: usize,
    dw: &mut [f32],
    accumulate: bool,
) {
    let n = x.len() / d_in.max(1);
    for o in 0..d_out {
        for p in 0..d_in {
            let dw = &mut dw[o * d_in + p];
            let before = if accumulate { f64::from(*dw) } else { 0.0 };
            *dw = (0..n).fold(before, |sum, i| {
                sum + f64::from(dy[i * d_out + o]) * f64::from(x[i * d_in + p])
            }) as f32;
        }
    }
}

/// See [`crate::linear::linear_backward_bias`].
pub fn linear_backward_bias(dy: &[f32], d_out: usize, db: &mut [f32], accumulate: bool) {
    assert_eq!(db.len(), d_out);
    super::reduce::sum_rows(dy, db, accumulate);
}
