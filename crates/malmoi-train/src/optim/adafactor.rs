//! Adafactor (Shazeer and Stern 2018): for matrices, the second moment is kept as the means of its rows and columns, so the state of a
//! matrix is as small as its sides. Vectors keep a full second moment.

use malmoi_kernels::reduce::sum_of_squares;
use serde::{Deserialize, Serialize};

use super::{Moments, ParamSlot};

/// Settings of Adafactor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adafactor {
    /// Added to the squared gradient.
    pub eps_square: f64,
    /// Least size of a parameter for `scale_parameter`.
    pub eps_scale: f64,
    /// Largest root mean square of an update before the rate.
    pub clip_threshold: f64,
    /// The second moment of step t decays by `1 - t^decay_rate`.
    pub decay_rate: f64,
    /// Decay of a first moment; none is kept without it.
    pub beta1: Option<f64>,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Make the step relative to the root mean square of the parameter.
    pub scale_parameter: bool,
    /// Derive the rate from the step (`min(0.01, 1/√t)`) instead of the schedule.
    pub relative_step: bool,
    /// With `relative_step`: begin with `1e-6 · t`.
    pub warmup_init: bool,
}

impl Default for Adafactor {
    /// The published defaults with the rate taken from the schedule.
    fn default() -> Self {
        Self {
            eps_square: 1e-30,
            eps_scale: 1e-3,
            clip_threshold: 1.0,
            decay_rate: -0.8,
            beta1: None,
            weight_decay: 0.0,
            scale_parameter: false,
            relative_step: false,
            warmup_init: false,
        }
    }
}

/// The last two dimensions of a shape and the number of matrices before them; `None` below two dimensions.
fn matrices(shape: &[usize]) -> Option<(usize, usize, usize)> {
    match shape {
        [before @ .., rows, columns] => Some((before.iter().product(), *rows, *columns)),
        _ => None,
    }
}

fn rms(values: &[f32]) -> f64 {
    (sum_of_squares(values) / values.len().max(1) as f64).sqrt()
}

impl Adafactor {
    pub(super) fn vectors(&self, shape: &[usize]) -> Vec<(&'static str, usize)> {
        let n = shape.iter().product();
        let mut vectors = match matrices(shape) {
            Some((count, rows, columns)) => {
                vec![("row_avg", count * rows), ("column_avg", count * columns)]
            }
            None => vec![("exp_avg_sq", n)],
        };
        if self.beta1.is_some() {
            vectors.push(("exp_avg", n));
        }
        vectors
    }

    fn rate(&self, lr: f64, step: u64, values: &[f32]) -> f64 {
        let mut rate = lr;
        if self.relative_step {
            let most = if self.warmup_init {
                1e-6 * step as f64
            } else {
                1e-2
            };
            rate = most.min(1.0 / (step as f64).sqrt());
        }
        if self.scale_parameter {
            rate *= rms(values).max(self.eps_scale);
        }
        rate
    }

    pub(super) fn update(&self, lr: f64, state: &mut Moments, param: ParamSlot<'_>) {
        let rate = self.rate(lr, state.step, param.values);
        let keep = 1.0 - (state.step as f64).powf(self.decay_rate);
        let mut update = vec![0.0f32; param.gradient.len()];
        match (matrices(param.shape), state.vectors.as_mut_slice()) {
            (Some((_, rows, columns)), [row_avg, column_avg, ..]) => {
                let size = (rows * columns).max(1);
                let each = param.gradient.chunks(size).zip(update.chunks_mut(size));
                let factors = row_avg
                    .chunks_mut(rows.max(1))
                    .zip(column_avg.chunks_mut(columns.max(1)));
                for ((gradient, update), (row_avg, column_avg)) in each.zip(factors) {
                    self.factored(gradient, update, row_avg, column_avg, keep);
                }
            }
            (_, vectors) => {
                for ((u, &g), v) in update.iter_mut().zip(param.gradient).zip(&mut vectors[0]) {
                    let square = f64::from(g) * f64::from(g) + self.eps_square;
                    *v = (keep * f64::from(*v) + (1.0 - keep) * square) as f32;
                    *u = (f64::from(g) / f64::from(*v).sqrt()) as f32;
                }
            }
        }
        let scale = (rate / (rms(&update) / self.clip_threshold).max(1.0)) as f32;
        update.iter_mut().for_each(|u| *u *= scale);
        if let (Some(beta1), Some(mean)) = (self.beta1, state.vectors.last_mut()) {
            for (u, m) in update.iter_mut().zip(mean) {
                *m += (1.0 - beta1 as f32) * (*u - *m);
                *u = *m;
            }
        }
        let decay = if param.decay {
            (self.weight_decay * rate) as f32
        } else {
            0.0
        };
        for (p, u) in param.values.iter_mut().zip(update) {
            *p -= decay * *p + u;
        }
    }

    /// The update of one matrix `[rows, columns]`, before clipping and rate.
    fn factored(
        &self,
        gradient: &[f32],
        update: &mut [f32],
        row_avg: &mut [f32],
        column_avg: &mut [f32],
        keep: f64,
    ) {
        let (rows, columns) = (row_avg.len(), column_avg.len());
        let mut column_sums = vec![0.0f64; columns];
        for (row, average) in gradient.chunks(columns).zip(row_avg.iter_mut()) {
            let mut sum = 0.0;
            for (&g, column) in row.iter().zip(&mut column_sums) {
                let square = f64::from(g) * f64::from(g) + self.eps_square;
                sum += square;
                *column += square;
            }
            *average = (keep * f64::from(*average) + (1.0 - keep) * sum / columns as f64) as f32;
        }
        for (average, sum) in column_avg.iter_mut().zip(column_sums) {
            *average = (keep * f64::from(*average) + (1.0 - keep) * sum / rows as f64) as f32;
        }
        let row_mean = row_avg.iter().map(|&r| f64::from(r)).sum::<f64>() / rows as f64;
        let column_factors: Vec<f64> = column_avg
            .iter()
            .map(|&c| 1.0 / f64::from(c).sqrt())
            .collect();
        for ((row, out), &average) in gradient
            .chunks(columns)
            .zip(update.chunks_mut(columns))
            .zip(row_avg.iter())
        {
            let row_factor = (row_mean / f64::from(average)).sqrt();
            for ((u, &g), column_factor) in out.iter_mut().zip(row).zip(&column_factors) {
                *u = (f64::from(g) * row_factor * column_factor) as f32;
            }
        }
    }
}
