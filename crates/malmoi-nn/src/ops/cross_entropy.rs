//! Cross-entropy losses: over given logits, and fused with the projection to the vocabulary.

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::Tensor;
use malmoi_kernels::loss as kernel;
use malmoi_kernels::mixed::{Values, to_f32};

use malmoi_kernels::profile::{Cost, Direction};

use super::losses::{scaled_gradient, with_gradient};
use crate::bridge::{
    BackwardPass, Data, Forward, FusedOp, Keep, MixedBackward, MixedForward, MixedOperand, Operand,
    OutputFormat, apply, narrowed_data, primitive,
};
use crate::{buffers, profile};

/// Sum of weighted cross-entropies over rows: `logits [M, V]`, `targets [M]`, `weights [M]` → `[1]`.
///
/// Rows of weight 0 cost nothing and get no gradient. Divide the weights beforehand for a mean.
pub fn cross_entropy(logits: Tensor<2>, targets: Arc<[u32]>, weights: Arc<[f32]>) -> Tensor<1> {
    apply(CrossEntropy { targets, weights }, [primitive(logits)])
}

/// The last step of a language model: hidden states to vocabulary logits to loss.
#[derive(Clone, Debug)]
pub struct Projection {
    /// `[V, D]`, usually the token embedding.
    pub weight: Param<Tensor<2>>,
    /// `[V]`.
    pub bias: Option<Tensor<1>>,
}

/// Sum of weighted cross-entropies of `x [M, D]` projected by `projection`, and how many rows (by weight) have their
/// target on top: `[2]`, the second without gradient.
///
/// The logits are never whole in memory; when a gradient is wanted it is computed in the same pass, so that the
/// projection is multiplied three times a step and not four.
pub fn linear_cross_entropy(
    x: Tensor<2>,
    projection: Projection,
    targets: Arc<[u32]>,
    weights: Arc<[f32]>,
) -> Tensor<1> {
    let op = LinearCrossEntropy { targets, weights };
    let weight = primitive(projection.weight.val());
    match projection.bias {
        Some(bias) => apply(op, [primitive(x), weight, primitive(bias)]),
        None => apply(op, [primitive(x), weight]),
    }
}

#[derive(Debug)]
struct CrossEntropy {
    targets: Arc<[u32]>,
    weights: Arc<[f32]>,
}

impl FusedOp for CrossEntropy {
    fn forward(&self, inputs: &[Operand<'_>], track: bool) -> Forward {
        let logits = inputs[0].data;
        let mut dlogits = vec![0.0; if track { logits.len() } else { 0 }];
        let sum = kernel::cross_entropy_forward(
            logits,
            &self.targets,
            &self.weights,
            track.then_some(dlogits.as_mut_slice()),
        );
        with_gradient(sum.loss, track.then_some(dlogits))
    }

    fn output_format(&self) -> OutputFormat {
        OutputFormat::F32
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        scaled_gradient(pass)
    }
}

#[derive(Debug)]
struct LinearCrossEntropy {
    targets: Arc<[u32]>,
    weights: Arc<[f32]>,
}

impl LinearCrossEntropy {
    fn compute(&self, inputs: &[Operand<'_>], track: bool, products: kernel::Products) -> Forward {
        let (x, weight) = (inputs[0], inputs[1]);
        let bias = inputs.get(2).map(|bias| bias.data);
        let d = weight.shape[1];
        assert_eq!(
            x.shape[1], d,
            "projection: hidden states have {} columns, the table {d}",
            x.shape[1]
        );
        let mut saved = Vec::new();
        if track {
            saved = vec![
                buffers::take(x.data.len()),
                buffers::zeroed(weight.data.len()),
                buffers::zeroed(bias.map_or(0, <[f32]>::len)),
            ];
        }
        let grads = match saved.as_mut_slice() {
            [dx, dw, db] => Some(kernel::LinearCrossEntropyGradients {
                dx,
                dw: Some(dw),
                dbias: bias.is_some().then_some(db.as_mut_slice()),
            }),
            _ => None,
        };
        let input = kernel::LinearCrossEntropy {
            x: x.data,
            w: weight.data,
            bias,
            targets: &self.targets,
            weights: &self.weights,
            d,
            products,
        };
        let sum = kernel::linear_cross_entropy(input, grads);
        Forward {
            data: vec![sum.loss as f32, sum.correct as f32],
            shape: vec![2],
            saved,
        }
    }
}

impl FusedOp for LinearCrossEntropy {
    fn forward(&self, inputs: &[Operand<'_>], track: bool) -> Forward {
        self.compute(inputs, track, kernel::Products::F32)
    }
    fn output_format(&self) -> OutputFormat {
        OutputFormat::F32
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let (scale, with_bias) = (pass.grad[0], pass.inputs.len() == 3);
        let mut gradients = pass.saved;
        gradients.truncate(if with_bias { 3 } else { 2 });
        for gradient in &mut gradients {
            if scale != 1.0 {
                malmoi_kernels::optim::scale_in_place(gradient, scale);
            }
        }
        gradients.into_iter().map(Some).collect()
    }

    fn cost(&self, shapes: &[&[usize]], direction: Direction, track: bool) -> Cost {
        let (x, weight) = (shapes[0], shapes[1]);
        match direction {
            // Gradients were made in the forward pass; here they are scaled when the loss is.
            Direction::Backward => Cost::default(),
            Direction::Forward | Direction::Update => {
                let once = profile::product(x[0], weight[1], weight[0], Direction::Forward);
                if !track {
                    return once;
                }
                let gradients = profile::product(x[0], weight[1], weight[0], Direction::Backward);
                once + gradients
            }
        }
    }

    fn forward_mixed(&self, inputs: &[MixedOperand<'_>], track: bool) -> Option<MixedForward> {
        let Values::Bf16(x) = inputs[0].values else {
            return None;
        };
        // A few rows: widened, they go through the same code but for the products.
        let mut wide = buffers::take(x.len());
        to_f32(x, &mut wide);
        let mut operands = vec![Operand {
            data: &wide,
            shape: inputs[0].shape,
        }];
        operands.extend(inputs[1..].iter().map(|input| Operand {
            data: input.f32(),
            shape: input.shape,
        }));
        let Forward { data, shape, saved } = self.compute(&operands, track, kernel::Products::Bf16);
        buffers::give(wide);
        Some(MixedForward {
            data: Data::F32(data),
            shape,
            saved: saved.into_iter().map(Data::F32).collect(),
        })
    }

    fn backward_mixed(&self, pass: MixedBackward<'_>) -> Vec<Option<Data>> {
        let Values::F32(grad) = pass.grad else {
            unreachable!("a loss is in f32")
        };
        let gradients = pass.saved.into_iter().take(pass.inputs.len());
        let scaled = gradients.enumerate().map(|(i, gradient)| {
            let Data::F32(mut gradient) = gradient else {
                unreachable!("saved by the forward pass")
            };
            if grad[0] != 1.0 {
                malmoi_kernels::optim::scale_in_place(&mut gradient, grad[0]);
            }
            // The hidden states are in bf16, the projection is in f32.
            Some(if i == 0 {
                narrowed_data(gradient)
            } else {
                Data::F32(gradient)
            })
        });
        scaled.collect()
    }
}
