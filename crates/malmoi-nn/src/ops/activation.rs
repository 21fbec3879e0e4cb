//! Element-wise activations, alone or gating another input.

use burn::tensor::Tensor;
use malmoi_kernels::activation::{
    Activation, activation_backward, activation_forward, gated_backward, gated_forward,
};
use malmoi_kernels::mixed::{self, Values, bf16};

use crate::bridge::{
    BackwardPass, Data, Forward, FusedOp, Keep, MixedBackward, MixedForward, MixedOperand, Operand,
    apply, primitive,
};
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

    fn forward_mixed(&self, inputs: &[MixedOperand<'_>], _track: bool) -> Option<MixedForward> {
        let Values::Bf16(x) = inputs[0].values else {
            return None;
        };
        let mut y = buffers::take(x.len());
        mixed::activation_forward(self.0, x, &mut y);
        Some(narrow(y, inputs[0].shape))
    }

    fn backward_mixed(&self, pass: MixedBackward<'_>) -> Vec<Option<Data>> {
        let (Values::Bf16(x), Values::Bf16(dy)) = (pass.inputs[0].values, pass.grad) else {
            unreachable!("an output in bf16 has its input and its gradient in bf16")
        };
        let mut dx = buffers::take(x.len());
        mixed::activation_backward(self.0, x, dy, &mut dx);
        vec![Some(Data::Bf16(dx))]
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

    fn forward_mixed(&self, inputs: &[MixedOperand<'_>], _track: bool) -> Option<MixedForward> {
        let (Values::Bf16(gate), Values::Bf16(up)) = (inputs[0].values, inputs[1].values) else {
            return None;
        };
        let mut y = buffers::take(gate.len());
        mixed::gated_forward(self.0, gate, up, &mut y);
        Some(narrow(y, inputs[0].shape))
    }

    fn backward_mixed(&self, pass: MixedBackward<'_>) -> Vec<Option<Data>> {
        let (Values::Bf16(gate), Values::Bf16(up), Values::Bf16(dy)) =
            (pass.inputs[0].values, pass.inputs[1].values, pass.grad)
        else {
            unreachable!("an output in bf16 has its inputs and its gradient in bf16")
        };
        let (mut dgate, mut dup) = (buffers::take(gate.len()), buffers::take(up.len()));
        mixed::gated_backward(self.0, gate, up, dy, &mut dgate, &mut dup);
        vec![Some(Data::Bf16(dgate)), Some(Data::Bf16(dup))]
    }
}

/// An output in bf16 of which nothing is saved.
fn narrow(y: Vec<bf16>, shape: &[usize]) -> MixedForward {
    MixedForward {
        data: Data::Bf16(y),
        shape: shape.to_vec(),
        saved: Vec::new(),
    }
}
