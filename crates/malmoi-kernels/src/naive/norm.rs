//! Normalisations in double precision.

use crate::norm::{LayerNorm, LayerNormOut, NormGradients, RmsNorm, RmsNormOut};

/// See [`crate::norm::layer_norm_forward`].
pub fn layer_norm_forward(
    x: &[f32],
    residual: Option<&[f32]>,
    norm: LayerNorm,
    mut out: LayerNormOut,
) {
    let d = norm.gamma.len();
    for i in 0..x.len() / d {
        let row = residual_sum(x, residual, out.sum.as_deref_mut(), i, d);
        let mean = row.iter().sum::<f64>() / d as f64;
        let variance = row.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / d as f64;
        let rstd = 1.0 / (variance + f64::from(norm.eps)).sqrt();
        out.mean[i] = mean as f32;
        out.rstd[i] = rstd as f32;
        for j in 0..d {
            let shift = norm.beta.map_or(0.0, |beta| f64::from(beta[j]));
            out.y[i * d + j] = ((row[j] - mean) * rstd * f64::from(norm.gamma[j]) + shift) as f32;
        }
    }
}

/// See [`crate::norm::rms_norm_forward`].
pub fn rms_norm_forward(x: &[f32], residual: Option<&[f32]>, norm: RmsNorm, mut out: RmsNormOut) {
    let d = norm.gamma.len();
    for i in 0..x.len() / d {
        let row = residual_sum(x, residual, out.sum.as_deref_mut(), i, d);
        let square = row.iter().map(|s| s * s).sum::<f64>() / d as f64;
        let rstd = 1.0 / (square + f64::from(norm.eps)).sqrt();
        out.rstd[i] = rstd as f32;
        for j in 0..d {
            out.y[i * d + j] = (row[j] * rstd * f64::from(norm.gamma[j])) as f32;
        }
    }
}

/// Row `i` of `x + residual`, rounded to f32 as the stored sum is.
fn residual_sum(
    x: &[f32],
    residual: Option<&[f32]>,
    sum: Option<&mut [f32]>,
    i: usize,
    d: usize,
) -> Vec<f64> {
    let at = i * d..(i + 1) * d;
    let row: Vec<f32> = match residual {
        Some(r) => x[at.clone()]
            .iter()
            .zip(&r[at.clone()])
            .map(|(x, r)| x + r)
            .collect(),
        None => x[at.clone()].to_vec(),
    };
    if let Some(sum) = sum {
        sum[at].copy_from_slice(&row);
    }
    row.into_iter().map(f64::from).collect()
}

/// See [`crate::norm::layer_norm_backward`].
pub fn layer_norm_backward(
    x: &[f32],
    mean: &[f32],
    rstd: &[f32],
    gamma: &[f32],
    dy: &[f32],
    out: NormGradients,
) {
    let d = gamma.len();
    let mut dgamma = vec![0.0; d];
    let mut dbeta = vec![0.0; d];
    for i in 0..x.len() / d {
        let rstd = f64::from(rstd[i]);
        let xhat = |j: usize| (f64::from(x[i * d + j]) - f64::from(mean[i])) * rstd;
        let dxhat = |j: usize| f64::from(dy[i * d + j]) * f64::from(gamma[j]);
        let mean_d = (0..d).map(dxhat).sum::<f64>() / d as f64;
        let mean_dx = (0..d).map(|j| dxhat(j) * xhat(j)).sum::<f64>() / d as f64;
        for j in 0..d {
            out.dx[i * d + j] = (rstd * (dxhat(j) - mean_d - xhat(j) * mean_dx)) as f32;
            dgamma[j] += f64::from(dy[i * d + j]) * xhat(j);
            dbeta[j] += f64::from(dy[i * d + j]);
        }
    }
    store(&dgamma, out.dgamma);
    if let Some(out) = out.dbeta {
        store(&dbeta, out);
    }
}

/// See [`crate::norm::rms_norm_backward`].
pub fn rms_norm_backward(x: &[f32], rstd: &[f32], gamma: &[f32], dy: &[f32], out: NormGradients) {
    let d = gamma.len();
    let mut dgamma = vec![0.0; d];
    for i in 0..x.len() / d {
        let rstd = f64::from(rstd[i]);
        let xhat = |j: usize| f64::from(x[i * d + j]) * rstd;
        let dxhat = |j: usize| f64::from(dy[i * d + j]) * f64::from(gamma[j]);
        let mean_dx = (0..d).map(|j| dxhat(j) * xhat(j)).sum::<f64>() / d as f64;
        for j in 0..d {
            out.dx[i * d + j] = (rstd * (dxhat(j) - xhat(j) * mean_dx)) as f32;
            dgamma[j] += f64::from(dy[i * d + j]) * xhat(j);
        }
    }
    store(&dgamma, out.dgamma);
}

fn store(from: &[f64], to: &mut [f32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = from as f32;
    }
}
