//! Small losses of the fine-tuning heads, and sums of losses.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::bridge::{
    BackwardPass, Forward, FusedOp, Keep, Operand, OutputFormat, apply, primitive,
};

/// Mean of `(x - target)²` over all elements of `x [B, K]` → `[1]`.
pub fn mean_squared_error(x: Tensor<2>, targets: Arc<[f32]>) -> Tensor<1> {
    let weights = equal_weights(targets.len());
    pointwise(Kind::Squared, x, targets, weights)
}

/// Mean binary cross-entropy of `logits [B, K]` against targets in `[0, 1]` → `[1]`.
pub fn binary_cross_entropy(logits: Tensor<2>, targets: Arc<[f32]>) -> Tensor<1> {
    let weights = equal_weights(targets.len());
    weighted_binary_cross_entropy(logits, targets, weights)
}

/// `Σ weight · binary cross-entropy` of `logits [B, K]` against targets in `[0, 1]` → `[1]`.
pub fn weighted_binary_cross_entropy(
    logits: Tensor<2>,
    targets: Arc<[f32]>,
    weights: Arc<[f32]>,
) -> Tensor<1> {
    pointwise(Kind::Binary, logits, targets, weights)
}

fn equal_weights(n: usize) -> Arc<[f32]> {
    vec![1.0 / n as f32; n].into()
}

fn pointwise(kind: Kind, x: Tensor<2>, targets: Arc<[f32]>, weights: Arc<[f32]>) -> Tensor<1> {
    let op = Pointwise {
        kind,
        targets,
        weights,
    };
    apply(op, [primitive(x)])
}

/// `a · wa + b · wb` on the first elements of two `[1..]` losses → `[1]`.
pub fn weighted_sum(a: Tensor<1>, wa: f32, b: Tensor<1>, wb: f32) -> Tensor<1> {
    apply(WeightedSum(wa, wb), [primitive(a), primitive(b)])
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Squared,
    Binary,
}

#[derive(Debug)]
struct Pointwise {
    kind: Kind,
    targets: Arc<[f32]>,
    weights: Arc<[f32]>,
}

impl FusedOp for Pointwise {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        let x = inputs[0].data;
        assert_eq!(x.len(), self.targets.len(), "one target for each output");
        assert_eq!(x.len(), self.weights.len(), "one weight for each output");
        let terms = x.iter().zip(&*self.targets).map(|(&x, &t)| {
            let (x, t) = (f64::from(x), f64::from(t));
            match self.kind {
                Kind::Squared => (x - t) * (x - t),
                // log(1 + e^-|x|) keeps the exponent negative.
                Kind::Binary => x.max(0.0) - x * t + (-x.abs()).exp().ln_1p(),
            }
        });
        let weighted = terms
            .zip(&*self.weights)
            .map(|(term, &w)| term * f64::from(w));
        Forward::new(vec![weighted.sum::<f64>() as f32], [1])
    }

    fn output_format(&self) -> OutputFormat {
        OutputFormat::F32
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[0],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let x = pass.inputs[0].data;
        let scale = pass.grad[0];
        let each = x.iter().zip(&*self.targets).zip(&*self.weights);
        let gradient = each.map(|((&x, &t), &weight)| {
            let slope = match self.kind {
                Kind::Squared => 2.0 * (x - t),
                Kind::Binary => 1.0 / (1.0 + (-x).exp()) - t,
            };
            scale * weight * slope
        });
        vec![Some(gradient.collect())]
    }
}

/// What a loss gives that makes its gradient in the forward pass, when one is wanted.
pub(super) fn with_gradient(loss: f64, gradient: Option<Vec<f32>>) -> Forward {
    Forward {
        data: vec![loss as f32],
        shape: vec![1],
        saved: Vec::from_iter(gradient),
    }
}

/// The backward pass of such a loss: its gradient times that of the loss.
pub(super) fn scaled_gradient(mut pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
    let mut gradient = pass.saved.pop().expect("saved by the forward pass");
    malmoi_kernels::optim::scale_in_place(&mut gradient, pass.grad[0]);
    vec![Some(gradient)]
}

#[derive(Debug)]
struct WeightedSum(f32, f32);

impl FusedOp for WeightedSum {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        Forward::new(
            vec![inputs[0].data[0] * self.0 + inputs[1].data[0] * self.1],
            [1],
        )
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
        let gradient = |i: usize, weight: f32| {
            pass.needs[i].then(|| {
                let mut gradient = vec![0.0; pass.inputs[i].shape[0]];
                gradient[0] = pass.grad[0] * weight;
                gradient
            })
        };
        vec![gradient(0, self.0), gradient(1, self.1)]
    }
}
