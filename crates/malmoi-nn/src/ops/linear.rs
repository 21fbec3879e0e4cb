//! `y = x Wᵀ + b`, weights in the published layout `[d_out, d_in]`.

use burn::tensor::Tensor;
use malmoi_kernels::linear::{
    linear_backward_bias, linear_backward_input, linear_backward_weight, linear_forward,
};

use malmoi_kernels::profile::{Cost, Direction};

use crate::bridge::{BackwardPass, Forward, FusedOp, Keep, Operand, apply, primitive};
use crate::buffers;
use crate::profile;

/// Dense layer: `x [N, d_in]`, `weight [d_out, d_in]`, `bias [d_out]` → `[N, d_out]`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    match bias {
        Some(bias) => apply(Linear, [primitive(x), primitive(weight), primitive(bias)]),
        None => apply(Linear, [primitive(x), primitive(weight)]),
    }
}

#[derive(Debug)]
struct Linear;

impl FusedOp for Linear {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        let (x, weight) = (inputs[0], inputs[1]);
        let bias = inputs.get(2).map(|bias| bias.data);
        let [d_out, d_in] = [weight.shape[0], weight.shape[1]];
        assert_eq!(
            x.shape[1], d_in,
            "linear: x has {} columns, weight expects {d_in}",
            x.shape[1]
        );
        let mut y = buffers::take(x.shape[0] * d_out);
        linear_forward(x.data, weight.data, bias, d_in, d_out, &mut y);
        Forward::new(y, [x.shape[0], d_out])
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[0, 1],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let (x, weight, dy) = (pass.inputs[0], pass.inputs[1], pass.grad);
        let [d_out, d_in] = [weight.shape[0], weight.shape[1]];
        let dx = pass.needs[0].then(|| {
            let mut dx = buffers::take(x.data.len());
            linear_backward_input(dy, weight.data, d_in, d_out, &mut dx);
            dx
        });
        let dw = pass.needs[1].then(|| {
            let mut dw = buffers::take(weight.data.len());
            linear_backward_weight(dy, x.data, d_in, d_out, &mut dw, false);
            dw
        });
        let mut gradients = vec![dx, dw];
        if pass.inputs.len() == 3 {
            gradients.push(pass.needs[2].then(|| {
                let mut db = buffers::take(d_out);
                linear_backward_bias(dy, d_out, &mut db, false);
                db
            }));
        }
        gradients
    }

    fn cost(&self, shapes: &[&[usize]], direction: Direction, _track: bool) -> Cost {
        let (x, weight) = (shapes[0], shapes[1]);
        profile::product(x[0], weight[1], weight[0], direction)
    }
}
