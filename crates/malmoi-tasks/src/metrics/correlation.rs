//! Correlation and regression errors of two lists of numbers.

use super::{mean, ratio};

/// Ranks from 1; equal values get the mean of their ranks.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    // `==` rather than the order above: minus zero equals zero.
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (group.len() as f64 + 1.0) / 2.0;
        group.iter().for_each(|&i| ranks[i] = rank);
        before += group.len();
    }
    ranks
}

/// Pearson's correlation; 0 when one list is constant.
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let (mx, my) = (mean(x.iter().copied()), mean(y.iter().copied()));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        xy += (x - mx) * (y - my);
        xx += (x - mx) * (x - mx);
        yy += (y - my) * (y - my);
    }
    ratio(xy, (xx * yy).sqrt())
}

/// Spearman's correlation: Pearson's of the ranks.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    pearson(&ranks(x), &ranks(y))
}

/// Kendall's tau-b, which corrects for ties; 0 when one list is constant.
pub fn kendall_tau_b(x: &[f64], y: &[f64]) -> f64 {
    let sign = |d: f64| f64::from(i8::from(d > 0.0) - i8::from(d < 0.0));
    let (mut score, mut untied_x, mut untied_y) = (0.0, 0.0, 0.0);
    let n = x.len().min(y.len());
    for i in 0..n {
        for j in 0..i {
            let (a, b) = (sign(x[i] - x[j]), sign(y[i] - y[j]));
            score += a * b;
            untied_x += a * a;
            untied_y += b * b;
        }
    }
    ratio(score, f64::sqrt(untied_x * untied_y))
}

/// Mean squared error.
pub fn mse(y_true: &[f64], y_pred: &[f64]) -> f64 {
    mean(y_true.iter().zip(y_pred).map(|(t, p)| (t - p) * (t - p)))
}

/// Mean absolute error.
pub fn mae(y_true: &[f64], y_pred: &[f64]) -> f64 {
    mean(y_true.iter().zip(y_pred).map(|(t, p)| (t - p).abs()))
}

/// Share of the variance of `y_true` that the predictions explain; 0 when there is none.
pub fn r2(y_true: &[f64], y_pred: &[f64]) -> f64 {
    let center = mean(y_true.iter().copied());
    let variance = mean(y_true.iter().map(|t| (t - center) * (t - center)));
    if variance == 0.0 {
        0.0
    } else {
        1.0 - mse(y_true, y_pred) / variance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_zero_ties_with_zero() {
        assert_eq!(ranks(&[0.0, -0.0, 1.0]), [1.5, 1.5, 3.0]);
    }

    #[test]
    fn constant_lists_correlate_with_nothing() {
        assert_eq!(pearson(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
        assert_eq!(kendall_tau_b(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
        assert_eq!(r2(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }
}
