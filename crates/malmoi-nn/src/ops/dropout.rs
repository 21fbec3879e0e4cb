//! Dropout whose mask is a function of a key, so that the backward pass regenerates it.

use burn::tensor::Tensor;
use malmoi_kernels::dropout::dropout_forward;
use malmoi_kernels::random::Key;

use crate::bridge::{BackwardPass, Forward, FusedOp, Keep, Operand, apply, primitive};
use crate::buffers;

/// Zeroes each element of `x [N, D]` with probability p and scales the others by `1 / (1 - p)`; `dropout` is the probability
/// and the key of the mask, as [`Pass::dropout`](crate::Pass::dropout) gives them.
pub fn dropout(x: Tensor<2>, dropout: Option<(f32, Key)>) -> Tensor<2> {
    match dropout {
        Some((p, key)) if p > 0.0 => apply(Dropout { p, key }, [primitive(x)]),
        _ => x,
    }
}

#[derive(Debug)]
struct Dropout {
    p: f32,
    key: Key,
}

impl FusedOp for Dropout {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        let x = inputs[0];
        let mut y = buffers::take(x.data.len());
        dropout_forward(x.data, self.p, self.key, &mut y);
        Forward::new(y, x.shape)
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let mut dx = buffers::take(pass.grad.len());
        dropout_forward(pass.grad, self.p, self.key, &mut dx);
        vec![Some(dx)]
    }
}
