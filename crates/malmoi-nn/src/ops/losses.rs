//! Small losses of the fine-tuning heads, and sums of losses.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::bridge::{
    BackwardPass, Forward, FusedOp, Keep, Operand, OutputFormat, apply, primitive,
};

/// Mean of `(x - target)²` over all elements of `x [B, K]` → `[1]`.
pub fn mean_squared_error(x: Tensor<2>, targets: Arc<[f32]>) -> Tensor<1> {
    apply(
        Pointwise {
            kind: Kind::Squared,
            targets,
        },
        [primitive(x)],
    )
}

/// Mean binary cross-entropy of `logits [B, K]` against targets in `[0, 1]` → `[1]`.
pub fn binary_cross_entropy(logits: Tensor<2>, targets: Arc<[f32]>) -> Tensor<1> {
    apply(
        Pointwise {
            kind: Kind::Binary,
            targets,
        },
        [primitive(logits)],
    )
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
}

impl FusedOp for Pointwise {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        let x = inputs[0].data;
        assert_eq!(x.len(), self.targets.len(), "one target for each output");
        let terms = x.iter().zip(&*self.targets).map(|(&x, &t)| {
            let (x, t) = (f64::from(x), f64::from(t));
            match self.kind {
                Kind::Squared => (x - t) * (x - t),
                // log(1 + e^-|x|) keeps the exponent negative.
                Kind::Binary => x.max(0.0) - x * t + (-x.abs()).exp().ln_1p(),
            }
        });
        Forward::new(vec![(terms.sum::<f64>() / x.len() as f64) as f32], [1])
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
        let scale = pass.grad[0] / x.len() as f32;
        let gradient = x.iter().zip(&*self.targets).map(|(&x, &t)| {
            scale
                * match self.kind {
                    Kind::Squared => 2.0 * (x - t),
                    Kind::Binary => 1.0 / (1.0 + (-x).exp()) - t,
                }
        });
        vec![Some(gradient.collect())]
    }
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
