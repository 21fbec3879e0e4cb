//! Layer normalisation (Ba et al., 2016), alone or fused with the residual sum before it.

use burn::tensor::Tensor;
use malmoi_kernels::norm::{self as kernel, LayerNormOut, NormGradients};

use crate::bridge::{BackwardPass, Forward, FusedOp, Keep, Operand, Share, apply, primitive};
use crate::buffers;

/// Layer norm over the last axis: `x [N, D]`, `gamma [D]`, `beta [D]` → `[N, D]`.
pub fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Option<Tensor<1>>, eps: f32) -> Tensor<2> {
    match beta {
        Some(beta) => apply(
            LayerNorm {
                eps,
                residual: false,
            },
            [primitive(x), primitive(gamma), primitive(beta)],
        ),
        None => apply(
            LayerNorm {
                eps,
                residual: false,
            },
            [primitive(x), primitive(gamma)],
        ),
    }
}

/// `layer_norm(x + residual)`: the post-norm of the original Transformer and of BERT; all `[N, D]`.
pub fn residual_layer_norm(
    x: Tensor<2>,
    residual: Tensor<2>,
    gamma: Tensor<1>,
    beta: Option<Tensor<1>>,
    eps: f32,
) -> Tensor<2> {
    let op = LayerNorm {
        eps,
        residual: true,
    };
    match beta {
        Some(beta) => apply(
            op,
            [
                primitive(x),
                primitive(gamma),
                primitive(beta),
                primitive(residual),
            ],
        ),
        // Without a shift the sum is formed first: no published post-norm model omits it, so speed is not at stake.
        None => layer_norm(super::add(x, residual), gamma, None, eps),
    }
}

/// Inputs: x, gamma, [beta, [residual]].
#[derive(Debug)]
struct LayerNorm {
    eps: f32,
    residual: bool,
}

impl FusedOp for LayerNorm {
    fn forward(&self, inputs: &[Operand<'_>], track: bool) -> Forward {
        let (x, gamma) = (inputs[0], inputs[1].data);
        let beta = inputs.get(2).map(|beta| beta.data);
        let residual = inputs.get(3).map(|residual| residual.data);
        let (n, d) = (x.shape[0], x.shape[1]);
        assert_eq!(
            gamma.len(),
            d,
            "layer norm: {} scales for {d} columns",
            gamma.len()
        );
        let mut y = buffers::take(n * d);
        let (mut mean, mut rstd) = (vec![0.0; n], vec![0.0; n]);
        let mut sum = buffers::take(if residual.is_some() && track {
            n * d
        } else {
            0
        });
        let sum_out = (!sum.is_empty()).then_some(sum.as_mut_slice());
        let parameters = kernel::LayerNorm {
            gamma,
            beta,
            eps: self.eps,
        };
        let out = LayerNormOut {
            y: &mut y,
            sum: sum_out,
            mean: &mut mean,
            rstd: &mut rstd,
        };
        kernel::layer_norm_forward(x.data, residual, parameters, out);
        let saved = if track {
            vec![mean, rstd, sum]
        } else {
            Vec::new()
        };
        Forward {
            data: y,
            shape: x.shape.to_vec(),
            saved,
        }
    }

    fn keep(&self) -> Keep {
        // With a residual the sum is saved instead of the two terms.
        Keep {
            inputs: if self.residual { &[1] } else { &[0, 1] },
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let [mean, rstd, sum] =
            <[Vec<f32>; 3]>::try_from(pass.saved).expect("saved by the forward pass");
        let (x, gamma) = (
            if self.residual {
                &sum
            } else {
                pass.inputs[0].data
            },
            pass.inputs[1].data,
        );
        let d = gamma.len();
        let mut dx = buffers::take(x.len());
        let mut dgamma = buffers::take(d);
        let mut dbeta = buffers::take(d);
        let out = NormGradients {
            dx: &mut dx,
            dgamma: &mut dgamma,
            dbeta: Some(&mut dbeta),
        };
        kernel::layer_norm_backward(x, &mean, &rstd, gamma, pass.grad, out);
        buffers::give(sum);
        let mut gradients = vec![Some(dx), Some(dgamma)];
        if pass.inputs.len() > 2 {
            gradients.push(Some(dbeta));
        }
        if self.residual {
            gradients.push(None);
        }
        gradients
    }

    fn shares(&self, i: usize) -> Share {
        // Both terms of a sum have its gradient.
        if i == 3 { Share::Input(0) } else { Share::Own }
    }
}
