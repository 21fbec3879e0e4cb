//! Element-wise activations, alone or gating another input.

use burn::tensor::Tensor;
use malmoi_kernels::activation::{
    Activation, activation_backward, activation_forward, gated_backward, gated_forward,
};

use crate::bridge::{BackwardPass, Forward, FusedOp, Keep, Operand, apply, primitive};
use crate::buffers;

/// Applies `kind` to every element of `x [N, D]`.
pub fn activation(x: Tensor<2>, kind: Activation) -> Tensor<2> {
    match kind {
        Activation::Identity => x,
        kind => apply(Elementwise(kind), [primitive(x)]),
    }
}

/// `kind(gate) · up`, element by element, both `[N, D]`.
pub fn gated(gate: Tensor<2>, up: Tensor<2>, kind: Activation) -> Tensor<2> {
    apply(Gated(kind), [primitive(gate), primitive(up)])
}

#[derive(Debug)]
struct Elementwise(Activation);

impl FusedOp for Elementwise {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        let x = inputs[0];
        let mut y = buffers::take(x.data.len());
        activation_forward(self.0, x.data, &mut y);
        Forward::new(y, x.shape)
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[0],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let x = pass.inputs[0].data;
        let mut dx = buffers::take(x.len());
        activation_backward(self.0, x, pass.grad, &mut dx);
        vec![Some(dx)]
    }
}

#[derive(Debug)]
struct Gated(Activation);

impl FusedOp for Gated {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        let (gate, up) = (inputs[0], inputs[1]);
        let mut y = buffers::take(gate.data.len());
        gated_forward(self.0, gate.data, up.data, &mut y);
        Forward::new(y, gate.shape)
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[0, 1],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let (gate, up) = (pass.inputs[0].data, pass.inputs[1].data);
        let (mut dgate, mut dup) = (buffers::take(gate.len()), buffers::take(up.len()));
        gated_backward(self.0, gate, up, pass.grad, &mut dgate, &mut dup);
        vec![Some(dgate), Some(dup)]
    }
}
