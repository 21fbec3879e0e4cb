//! Layer and root-mean-square normalisation, alone or fused with the residual sum before it.

use burn::tensor::Tensor;
use malmoi_kernels::mixed::{self, Values};
use malmoi_kernels::norm::{self as kernel, LayerNormOut, NormGradients, RmsNormOut};

use crate::bridge::{
    BackwardPass, Data, Forward, FusedOp, Keep, MixedBackward, MixedForward, MixedOperand, Operand,
    Share, apply, primitive,
};
use crate::buffers;
use crate::layers::{NormConfig, NormKind};

/// A norm over the last axis: `x [N, D]`, `gamma [D]`, `beta [D]` (for kinds with a shift) → `[N, D]`.
pub fn norm(
    x: Tensor<2>,
    gamma: Tensor<1>,
    beta: Option<Tensor<1>>,
    config: NormConfig,
) -> Tensor<2> {
    let op = Norm {
        config,
        residual: false,
    };
    match beta {
        Some(beta) => apply(op, [primitive(x), primitive(gamma), primitive(beta)]),
        None => apply(op, [primitive(x), primitive(gamma)]),
    }
}

/// `norm(x + residual)`: the post-norm of the original Transformer and of BERT; all `[N, D]`.
pub fn residual_norm(
    x: Tensor<2>,
    residual: Tensor<2>,
    gamma: Tensor<1>,
    beta: Option<Tensor<1>>,
    config: NormConfig,
) -> Tensor<2> {
    let op = Norm {
        config,
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
        None => norm(super::add(x, residual), gamma, None, config),
    }
}

/// Inputs: x, gamma, [beta, [residual]].
#[derive(Debug)]
struct Norm {
    config: NormConfig,
    residual: bool,
}

impl Norm {
    fn mixed<'a>(&self, inputs: &[MixedOperand<'a>]) -> mixed::Norm<'a> {
        let (gamma, eps) = (inputs[1].f32(), self.config.eps);
        // Backward the shift was not kept, nor is it needed.
        let beta = (inputs.get(2).map(MixedOperand::f32)).filter(|beta| !beta.is_empty());
        match self.config.kind {
            NormKind::Layer | NormKind::LayerWithoutShift => {
                mixed::Norm::Layer(kernel::LayerNorm { gamma, beta, eps })
            }
            NormKind::Rms => mixed::Norm::Rms(kernel::RmsNorm { gamma, eps }),
        }
    }
}

impl FusedOp for Norm {
    fn forward(&self, inputs: &[Operand<'_>], track: bool) -> Forward {
        let (x, gamma) = (inputs[0], inputs[1].data);
        let beta = inputs.get(2).map(|beta| beta.data);
        let residual = inputs.get(3).map(|residual| residual.data);
        let (n, d) = (x.shape[0], x.shape[1]);
        assert_eq!(
            gamma.len(),
            d,
            "norm: {} scales for {d} columns",
            gamma.len()
        );
        let eps = self.config.eps;
        let mut y = buffers::take(n * d);
        let (mut mean, mut rstd) = (Vec::new(), vec![0.0; n]);
        let keeps_sum = residual.is_some() && track;
        let mut sum = buffers::take(if keeps_sum { n * d } else { 0 });
        let sum_out = keeps_sum.then_some(sum.as_mut_slice());
        match self.config.kind {
            NormKind::Layer | NormKind::LayerWithoutShift => {
                mean.resize(n, 0.0);
                let out = LayerNormOut {
                    y: &mut y,
                    sum: sum_out,
                    mean: &mut mean,
                    rstd: &mut rstd,
                };
                let parameters = kernel::LayerNorm { gamma, beta, eps };
                kernel::layer_norm_forward(x.data, residual, parameters, out);
            }
            NormKind::Rms => {
                let out = RmsNormOut {
                    y: &mut y,
                    sum: sum_out,
                    rstd: &mut rstd,
                };
                kernel::rms_norm_forward(x.data, residual, kernel::RmsNorm { gamma, eps }, out);
            }
        }
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
        let shifted = pass.inputs.len() > 2;
        let mut dbeta = buffers::take(if shifted { d } else { 0 });
        let out = NormGradients {
            dx: &mut dx,
            dgamma: &mut dgamma,
            dbeta: shifted.then_some(&mut dbeta),
        };
        match self.config.kind {
            NormKind::Layer | NormKind::LayerWithoutShift => {
                kernel::layer_norm_backward(x, &mean, &rstd, gamma, pass.grad, out);
            }
            NormKind::Rms => kernel::rms_norm_backward(x, &rstd, gamma, pass.grad, out),
        }
        buffers::give(sum);
        let mut gradients = vec![Some(dx), Some(dgamma)];
        if shifted {
            gradients.push(Some(dbeta));
        }
        if self.residual {
            gradients.push(None);
        }
        gradients
    }

    fn forward_mixed(&self, inputs: &[MixedOperand<'_>], track: bool) -> Option<MixedForward> {
        let Values::Bf16(x) = inputs[0].values else {
            return None;
        };
        let residual = match inputs.get(3).map(|residual| residual.values) {
            Some(Values::F32(_)) => return None,
            Some(Values::Bf16(residual)) => Some(residual),
            None => None,
        };
        let norm = self.mixed(inputs);
        let n = inputs[0].shape[0];
        let mut y = buffers::take(x.len());
        let means = if matches!(norm, mixed::Norm::Rms(_)) {
            0
        } else {
            n
        };
        let (mut mean, mut rstd) = (vec![0.0; means], vec![0.0; n]);
        let mut sum = buffers::take(if residual.is_some() && track {
            x.len()
        } else {
            0
        });
        let out = mixed::NormOut {
            y: &mut y,
            sum: (!sum.is_empty()).then_some(&mut sum[..]),
            mean: &mut mean,
            rstd: &mut rstd,
        };
        mixed::norm_forward(x, residual, norm, out);
        Some(MixedForward {
            data: Data::Bf16(y),
            shape: inputs[0].shape.to_vec(),
            saved: vec![Data::F32(mean), Data::F32(rstd), Data::Bf16(sum)],
        })
    }

    fn backward_mixed(&self, pass: MixedBackward<'_>) -> Vec<Option<Data>> {
        let Ok([Data::F32(mean), Data::F32(rstd), Data::Bf16(sum)]) =
            <[Data; 3]>::try_from(pass.saved)
        else {
            unreachable!("saved by the forward pass")
        };
        let (Values::Bf16(dy), Values::Bf16(x)) = (
            pass.grad,
            if self.residual {
                Values::Bf16(&sum)
            } else {
                pass.inputs[0].values
            },
        ) else {
            unreachable!("an output in bf16 has a gradient in bf16")
        };
        let norm = self.mixed(&pass.inputs);
        let d = pass.inputs[1].shape[0];
        let mut dx = buffers::take(x.len());
        let mut dgamma = buffers::take(d);
        let shifted = pass.inputs.len() > 2;
        let mut dbeta = buffers::take(if shifted { d } else { 0 });
        let saved = mixed::NormSaved {
            x,
            mean: &mean,
            rstd: &rstd,
        };
        let shift = shifted.then_some(&mut dbeta[..]);
        mixed::norm_backward(norm, saved, dy, &mut dx, &mut dgamma, shift);
        buffers::give(sum);
        let mut gradients = vec![Some(Data::Bf16(dx)), Some(Data::F32(dgamma))];
        if shifted {
            gradients.push(Some(Data::F32(dbeta)));
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
