//! Softmax and cross-entropy in double precision.

use crate::loss::{LinearCrossEntropy, LinearCrossEntropyGradients, LossSum};

/// The largest element and the logarithm of the sum of exponentials of a row.
fn log_sum_exp(row: &[f32]) -> (usize, f64) {
    let mut best = 0;
    for (j, &x) in row.iter().enumerate() {
        if x > row[best] {
            best = j;
        }
    }
    let max = f64::from(row[best]);
    let sum: f64 = row.iter().map(|&x| (f64::from(x) - max).exp()).sum();
    (best, max + sum.ln())
}

/// See [`crate::loss::cross_entropy_forward`].
pub fn cross_entropy_forward(
    logits: &[f32],
    vocab: usize,
    targets: &[u32],
    weights: &[f32],
    mut dlogits: Option<&mut [f32]>,
) -> LossSum {
    let mut total = LossSum::default();
    for (i, (&target, &weight)) in targets.iter().zip(weights).enumerate() {
        let at = i * vocab..(i + 1) * vocab;
        let row = &logits[at.clone()];
        if weight == 0.0 {
            if let Some(d) = dlogits.as_deref_mut() {
                d[at].fill(0.0);
            }
            continue;
        }
        let (best, lse) = log_sum_exp(row);
        let target = target as usize;
        let w = f64::from(weight);
        total.loss += w * (lse - f64::from(row[target]));
        total.weight += w;
        total.correct += if best == target { w } else { 0.0 };
        if let Some(d) = dlogits.as_deref_mut() {
            for (j, d) in d[at].iter_mut().enumerate() {
                let hit = f64::from(u8::from(j == target));
                *d = (w * ((f64::from(row[j]) - lse).exp() - hit)) as f32;
            }
        }
    }
    total
}

/// See [`crate::loss::linear_cross_entropy`].
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
        products: _,
    } = input;
    let vocab = w.len() / d;
    let mut logits = vec![0.0; targets.len() * vocab];
    super::linear::linear_forward(x, w, bias, d, vocab, &mut logits);
    let mut dlogits = vec![0.0; logits.len()];
    let sum = cross_entropy_forward(&logits, vocab, targets, weights, Some(&mut dlogits));
    if let Some(g) = gradients {
        super::linear::linear_backward_input(&dlogits, w, d, vocab, g.dx);
        if let Some(dw) = g.dw {
            super::linear::linear_backward_weight(&dlogits, x, d, vocab, dw, true);
        }
        if let Some(dbias) = g.dbias {
            super::reduce::sum_rows(&dlogits, dbias, true);
        }
    }
    sum
}

/// See [`crate::loss::softmax_rows`].
pub fn softmax_rows(x: &[f32], d: usize, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
        let (_, lse) = log_sum_exp(x);
        for (x, y) in x.iter().zip(y) {
            *y = (f64::from(*x) - lse).exp() as f32;
        }
    }
}

/// See [`crate::loss::log_softmax_rows`].
pub fn log_softmax_rows(x: &[f32], d: usize, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
        let (_, lse) = log_sum_exp(x);
        for (x, y) in x.iter().zip(y) {
            *y = (f64::from(*x) - lse) as f32;
        }
    }
}

/// See [`crate::loss::top_k`].
#[must_use]
pub fn top_k(row: &[f32], k: usize) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = row
        .iter()
        .enumerate()
        .map(|(i, &x)| (i as u32, x))
        .collect();
    // A stable sort leaves the earlier of equals first.
    all.sort_by(|a, b| {
        let nan_last = a.1.is_nan().cmp(&b.1.is_nan());
        nan_last.then(b.1.partial_cmp(&a.1).unwrap_or(std::cmp::Ordering::Equal))
    });
    all.truncate(k);
    all
}
