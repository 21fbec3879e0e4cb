//! Residual connections, with dropout on the branch.

use burn::tensor::Tensor;
use malmoi_kernels::dropout::{add_dropout_residual, dropout_forward};
use malmoi_kernels::mixed::{self, Values};
use malmoi_kernels::optim::add_in_place;
use malmoi_kernels::random::Key;

use crate::bridge::{
    BackwardPass, Data, Forward, FusedOp, Keep, MixedBackward, MixedForward, MixedOperand, Operand,
    Share, apply, primitive,
};
use crate::buffers;

/// `branch + residual`, both `[N, D]`.
pub fn add(branch: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
    add_dropout(branch, residual, None)
}

/// `dropout(branch) + residual`, both `[N, D]`; `dropout` is the probability and the key of the mask.
pub fn add_dropout(
    branch: Tensor<2>,
    residual: Tensor<2>,
    dropout: Option<(f32, Key)>,
) -> Tensor<2> {
    let dropout = dropout.filter(|(p, _)| *p > 0.0);
    apply(
        AddDropout { dropout },
        [primitive(branch), primitive(residual)],
    )
}

#[derive(Debug)]
struct AddDropout {
    dropout: Option<(f32, Key)>,
}

impl FusedOp for AddDropout {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        let (x, residual) = (inputs[0], inputs[1]);
        assert_eq!(
            x.shape, residual.shape,
            "a residual has the shape of its branch"
        );
        let mut y = buffers::take(x.data.len());
        match self.dropout {
            Some((p, key)) => add_dropout_residual(x.data, residual.data, p, key, &mut y),
            None => {
                y.copy_from_slice(x.data);
                add_in_place(&mut y, residual.data);
            }
        }
        Forward::new(y, x.shape)
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let branch = pass.needs[0].then(|| match self.dropout {
            Some((p, key)) => {
                let mut dx = buffers::take(pass.grad.len());
                dropout_forward(pass.grad, p, key, &mut dx);
                Some(dx)
            }
            None => None,
        });
        vec![branch.flatten(), None]
    }

    fn forward_mixed(&self, inputs: &[MixedOperand<'_>], _track: bool) -> Option<MixedForward> {
        let (Values::Bf16(x), Values::Bf16(residual)) = (inputs[0].values, inputs[1].values) else {
            return None;
        };
        let mut y = buffers::take(x.len());
        mixed::add_dropout(x, Some(residual), self.dropout, &mut y);
        Some(MixedForward {
            data: Data::Bf16(y),
            shape: inputs[0].shape.to_vec(),
            saved: Vec::new(),
        })
    }

    fn backward_mixed(&self, pass: MixedBackward<'_>) -> Vec<Option<Data>> {
        let Values::Bf16(dy) = pass.grad else {
            unreachable!("an output in bf16 has a gradient in bf16")
        };
        let branch = (pass.needs[0] && self.dropout.is_some()).then(|| {
            let mut dx = buffers::take(dy.len());
            mixed::add_dropout(dy, None, self.dropout, &mut dx);
            Data::Bf16(dx)
        });
        vec![branch, None]
    }

    fn shares(&self, i: usize) -> Share {
        if i == 1 || self.dropout.is_none() {
            Share::Output
        } else {
            Share::Own
        }
    }
}
