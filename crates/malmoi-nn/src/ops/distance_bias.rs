//! Biases by distance from a table of buckets (Raffel et al., 2020, "T5", section 2.1).

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::bridge::{BackwardPass, Forward, FusedOp, Keep, Operand, apply, primitive};

/// Rows of `table [buckets, n_heads]` laid out by distance: `buckets[i]` is the bucket of the i-th distance → `[n_heads, distances]`.
///
/// # Panics
/// When a bucket is not in the table.
pub fn bias_of_buckets(table: Tensor<2>, buckets: Arc<[u32]>) -> Tensor<2> {
    apply(Buckets(buckets), [primitive(table)])
}

#[derive(Debug)]
struct Buckets(Arc<[u32]>);

impl FusedOp for Buckets {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        let table = inputs[0];
        let heads = table.shape[1];
        let values = (0..heads).flat_map(|head| {
            (self.0.iter()).map(move |bucket| table.data[*bucket as usize * heads + head])
        });
        Forward::new(values.collect(), [heads, self.0.len()])
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let shape = pass.inputs[0].shape;
        let heads = shape[1];
        let mut sums = vec![0.0_f64; shape[0] * heads];
        for (head, row) in pass.grad.chunks_exact(self.0.len().max(1)).enumerate() {
            for (bucket, gradient) in self.0.iter().zip(row) {
                sums[*bucket as usize * heads + head] += f64::from(*gradient);
            }
        }
        vec![Some(sums.into_iter().map(|sum| sum as f32).collect())]
    }
}
