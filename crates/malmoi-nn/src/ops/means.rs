//! Means over the tokens of each sequence.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::bridge::{BackwardPass, Forward, FusedOp, Keep, Operand, apply, primitive};

/// The mean row of each sequence: `x [N, D]`, `cu_seqlens [B + 1]` → `[B, D]`; zeros for a sequence without rows.
pub fn sequence_means(x: Tensor<2>, cu_seqlens: Arc<[u32]>) -> Tensor<2> {
    apply(Means(cu_seqlens), [primitive(x)])
}

#[derive(Debug)]
struct Means(Arc<[u32]>);

impl Means {
    fn sequences(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        (self.0.windows(2)).map(|w| w[0] as usize..w[1] as usize)
    }
}

impl FusedOp for Means {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        let (x, d) = (inputs[0].data, inputs[0].shape[1]);
        let n = self.0.len() - 1;
        let mut means = Vec::with_capacity(n * d);
        for rows in self.sequences() {
            let mut sums = vec![0.0_f64; d];
            for row in x[rows.start * d..rows.end * d].chunks_exact(d) {
                for (sum, x) in sums.iter_mut().zip(row) {
                    *sum += f64::from(*x);
                }
            }
            let count = rows.len().max(1) as f64;
            means.extend(sums.into_iter().map(|sum| (sum / count) as f32));
        }
        Forward::new(means, [n, d])
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let shape = pass.inputs[0].shape;
        let d = shape[1];
        let mut dx = vec![0.0; shape[0] * d];
        for (sequence, rows) in self.sequences().enumerate() {
            let factor = 1.0 / rows.len().max(1) as f32;
            let gradient = &pass.grad[sequence * d..(sequence + 1) * d];
            for row in dx[rows.start * d..rows.end * d].chunks_exact_mut(d) {
                for (dx, g) in row.iter_mut().zip(gradient) {
                    *dx = factor * g;
                }
            }
        }
        vec![Some(dx)]
    }
}
