//! `y = x Wᵀ + b`, weights in the published layout `[d_out, d_in]`, and the feed-forward layer made of two of them.

use burn::tensor::Tensor;
use malmoi_kernels::activation::Activation;
use malmoi_kernels::gemm::{Epilogue, rows_alike};
use malmoi_kernels::linear::{
    linear_backward_bias, linear_backward_input, linear_backward_input_finished,
    linear_backward_weight, linear_forward_finished, linear_forward_packed, linear_forward_with,
};
use malmoi_kernels::loss::Products;
use malmoi_kernels::mixed::{self, Finish, Matrix, Right, Values, ValuesMut, bf16};
use malmoi_kernels::profile::{Cost, Direction};

use crate::bridge::{
    BackwardPass, Data, Forward, FusedOp, Keep, MixedBackward, MixedForward, MixedOperand, Operand,
    apply, primitive,
};
use crate::weights::{Packed, WeightCache};
use crate::{buffers, profile};

/// Rows from which weights are packed at their first use in f32. Fewer are read straight from the weights, and from packed ones
/// when the weights are used again; the bits are the same.
const PACKED_ROWS: usize = 128;

/// A dense layer's parameters: `weight [d_out, d_in]`, `bias [d_out]`.
#[derive(Clone, Debug)]
pub struct Dense {
    /// `[d_out, d_in]`.
    pub weight: Tensor<2>,
    /// `[d_out]`.
    pub bias: Option<Tensor<1>>,
    /// Where packed weights are kept, for inference.
    pub cache: Option<WeightCache>,
}

/// Dense layer: `x [N, d_in]`, `weight [d_out, d_in]`, `bias [d_out]` → `[N, d_out]`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    dense(
        x,
        Dense {
            weight,
            bias,
            cache: None,
        },
    )
}

/// The same with a place to keep packed weights.
pub fn dense(x: Tensor<2>, layer: Dense) -> Tensor<2> {
    let Dense {
        weight,
        bias,
        cache,
    } = layer;
    let op = Linear { cache };
    match bias {
        Some(bias) => apply(op, [primitive(x), primitive(weight), primitive(bias)]),
        None => apply(op, [primitive(x), primitive(weight)]),
    }
}

/// `down(activation(up(x)))` in one operation: the wide activations pass through the cache once. Both layers have a bias or
/// neither.
pub fn feed_forward(x: Tensor<2>, up: Dense, down: Dense, activation: Activation) -> Tensor<2> {
    let op = FeedForward {
        activation,
        up: up.cache,
        down: down.cache,
    };
    let [x, w1, w2] = [primitive(x), primitive(up.weight), primitive(down.weight)];
    match (up.bias, down.bias) {
        (Some(b1), Some(b2)) => apply(op, [x, w1, w2, primitive(b1), primitive(b2)]),
        (None, None) => apply(op, [x, w1, w2]),
        _ => panic!("feed_forward: both layers have a bias or neither"),
    }
}

/// A weight matrix with the place of its packed form, when nothing is tracked.
#[derive(Clone, Copy, Debug)]
struct Weight<'a> {
    values: &'a [f32],
    d_out: usize,
    d_in: usize,
    cache: Option<&'a WeightCache>,
}

impl<'a> Weight<'a> {
    fn new(values: &'a [f32], shape: &[usize], cache: Option<&'a WeightCache>) -> Self {
        Self {
            values,
            d_out: shape[0],
            d_in: shape[1],
            cache,
        }
    }

    fn check(&self, columns: usize) {
        assert_eq!(
            columns, self.d_in,
            "linear: x has {columns} columns, weight expects {}",
            self.d_in
        );
    }

    fn packed(&self, products: Products) -> Option<Packed> {
        let cache = self.cache?;
        Some(cache.get(self.values, self.d_out, self.d_in, products))
    }

    /// `y = activation(x wᵀ + bias)` in f32.
    fn forward(&self, x: &[f32], bias: Option<&[f32]>, activation: Activation, y: &mut [f32]) {
        let epilogue = Epilogue { bias, activation };
        let rows = x.len() / self.d_in.max(1);
        let packed = if rows <= rows_alike(self.d_in) {
            None
        } else if rows < PACKED_ROWS {
            let again =
                |cache: &WeightCache| cache.get_when_used_again(self.values, self.d_out, self.d_in);
            self.cache.and_then(again)
        } else {
            self.packed(Products::F32)
        };
        if let Some(Packed::F32(packed)) = packed {
            linear_forward_packed(x, &packed, epilogue, y);
        } else {
            linear_forward_with(x, self.values, epilogue, self.d_in, self.d_out, y);
        }
    }

    fn matrix(&self) -> Matrix<'a> {
        Matrix::row_major(Values::F32(self.values), self.d_out, self.d_in)
    }

    /// `y = finish(x wᵀ)` in bf16.
    fn forward_mixed(&self, x: Matrix, finish: Finish, y: &mut [bf16]) {
        let y = ValuesMut::Bf16(y);
        match self.packed(Products::Bf16) {
            Some(Packed::Bf16(packed)) => {
                mixed::product(x, Right::Packed(&packed), y, false, finish);
            }
            _ => mixed::product(x, Right::Plain(self.matrix().t()), y, false, finish),
        }
    }

    /// `dx = finish(dy w)` in bf16.
    fn backward_input(&self, dy: Matrix, finish: Finish) -> Vec<bf16> {
        let mut dx = buffers::take(dy.rows() * self.d_in);
        let right = Right::Plain(self.matrix());
        mixed::product(dy, right, ValuesMut::Bf16(&mut dx), false, finish);
        dx
    }

    /// `dw = dyᵀ x` in f32.
    fn backward_weight(&self, dy: Matrix, x: Matrix) -> Vec<f32> {
        let mut dw = buffers::take_for_gradient(self.values.len());
        let right = Right::Plain(x);
        mixed::product(dy.t(), right, ValuesMut::F32(&mut dw), false, Finish::NONE);
        dw
    }
}

/// The gradient of a bias.
fn bias_gradient(dy: Values, d_out: usize) -> Vec<f32> {
    let mut db = buffers::take(d_out);
    match dy {
        Values::F32(dy) => linear_backward_bias(dy, d_out, &mut db, false),
        Values::Bf16(dy) => mixed::sum_rows(dy, &mut db),
    }
    db
}

#[derive(Debug)]
struct Linear {
    cache: Option<WeightCache>,
}

impl FusedOp for Linear {
    fn forward(&self, inputs: &[Operand<'_>], track: bool) -> Forward {
        let (x, weight) = (inputs[0], inputs[1]);
        let bias = inputs.get(2).map(|bias| bias.data);
        let cache = self.cache.as_ref().filter(|_| !track);
        let weight = Weight::new(weight.data, weight.shape, cache);
        weight.check(x.shape[1]);
        let mut y = buffers::take(x.shape[0] * weight.d_out);
        weight.forward(x.data, bias, Activation::Identity, &mut y);
        Forward::new(y, [x.shape[0], weight.d_out])
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
            let mut dw = buffers::take_for_gradient(weight.data.len());
            linear_backward_weight(dy, x.data, d_in, d_out, &mut dw, false);
            dw
        });
        let mut gradients = vec![dx, dw];
        if pass.inputs.len() == 3 {
            gradients.push(pass.needs[2].then(|| bias_gradient(Values::F32(dy), d_out)));
        }
        gradients
    }

    fn forward_mixed(&self, inputs: &[MixedOperand<'_>], track: bool) -> Option<MixedForward> {
        let (x, weight) = (inputs[0], inputs[1]);
        let bias = inputs.get(2).map(MixedOperand::f32);
        let cache = self.cache.as_ref().filter(|_| !track);
        let weight = Weight::new(weight.f32(), weight.shape, cache);
        let (n, d_in) = (x.shape[0], x.shape[1]);
        weight.check(d_in);
        let mut y = buffers::take(n * weight.d_out);
        let x = Matrix::row_major(x.values, n, d_in);
        weight.forward_mixed(x, Finish::bias(bias), &mut y);
        Some(MixedForward {
            data: Data::Bf16(y),
            shape: vec![n, weight.d_out],
            saved: Vec::new(),
        })
    }

    fn backward_mixed(&self, pass: MixedBackward<'_>) -> Vec<Option<Data>> {
        let (x, weight) = (pass.inputs[0], pass.inputs[1]);
        let weight = Weight::new(weight.f32(), weight.shape, None);
        let n = x.shape[0];
        let dy = Matrix::row_major(pass.grad, n, weight.d_out);
        let dx = pass.needs[0].then(|| Data::Bf16(weight.backward_input(dy, Finish::NONE)));
        let x = Matrix::row_major(x.values, n, weight.d_in);
        let dw = pass.needs[1].then(|| Data::F32(weight.backward_weight(dy, x)));
        let mut gradients = vec![dx, dw];
        if pass.inputs.len() == 3 {
            let db = pass.needs[2].then(|| Data::F32(bias_gradient(pass.grad, weight.d_out)));
            gradients.push(db);
        }
        gradients
    }

    fn cost(&self, shapes: &[&[usize]], direction: Direction, _track: bool) -> Cost {
        let (x, weight) = (shapes[0], shapes[1]);
        profile::product(x[0], weight[1], weight[0], direction)
    }
}

/// Inputs: x, w1, w2, [b1, b2]. Saved: what goes into the activation and what comes out.
#[derive(Debug)]
struct FeedForward {
    activation: Activation,
    up: Option<WeightCache>,
    down: Option<WeightCache>,
}

impl FeedForward {
    fn cache<'a>(&self, cache: &'a Option<WeightCache>, track: bool) -> Option<&'a WeightCache> {
        cache.as_ref().filter(|_| !track)
    }
}

impl FusedOp for FeedForward {
    fn forward(&self, inputs: &[Operand<'_>], track: bool) -> Forward {
        let x = inputs[0];
        let n = x.shape[0];
        let up = Weight::new(inputs[1].data, inputs[1].shape, self.cache(&self.up, track));
        let down = Weight::new(
            inputs[2].data,
            inputs[2].shape,
            self.cache(&self.down, track),
        );
        let bias = |i: usize| inputs.get(i).map(|bias| bias.data);
        up.check(x.shape[1]);
        let mut wide = buffers::take(n * up.d_out);
        let mut saved = Vec::new();
        if track {
            let mut before = buffers::take(n * up.d_out);
            let finish = Finish::Activate {
                bias: bias(3),
                activation: self.activation,
                input: Some(&mut before),
            };
            linear_forward_finished(x.data, up.values, finish, up.d_in, up.d_out, &mut wide);
            saved.push(before);
        } else {
            up.forward(x.data, bias(3), self.activation, &mut wide);
        }
        let mut y = buffers::take(n * down.d_out);
        down.forward(&wide, bias(4), Activation::Identity, &mut y);
        if track {
            saved.push(wide);
        } else {
            buffers::give(wide);
        }
        Forward {
            data: y,
            shape: vec![n, down.d_out],
            saved,
        }
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[0, 1, 2],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let [x, w1, w2] = [pass.inputs[0], pass.inputs[1], pass.inputs[2]];
        let [d_ff, d_in] = [w1.shape[0], w1.shape[1]];
        let d_out = w2.shape[0];
        let [before, wide] =
            <[Vec<f32>; 2]>::try_from(pass.saved).expect("saved by the forward pass");
        let dy = pass.grad;
        let mut dbefore = buffers::take(wide.len());
        let finish = Finish::Derivative {
            activation: self.activation,
            input: &before,
        };
        linear_backward_input_finished(dy, w2.data, finish, d_ff, d_out, &mut dbefore);
        buffers::give(before);
        let mut dw2 = buffers::take_for_gradient(w2.data.len());
        linear_backward_weight(dy, &wide, d_ff, d_out, &mut dw2, false);
        buffers::give(wide);
        let mut dx = buffers::take(x.data.len());
        linear_backward_input(&dbefore, w1.data, d_in, d_ff, &mut dx);
        let mut dw1 = buffers::take_for_gradient(w1.data.len());
        linear_backward_weight(&dbefore, x.data, d_in, d_ff, &mut dw1, false);
        let mut gradients = vec![Some(dx), Some(dw1), Some(dw2)];
        if pass.inputs.len() == 5 {
            gradients.push(Some(bias_gradient(Values::F32(&dbefore), d_ff)));
            gradients.push(Some(bias_gradient(Values::F32(dy), d_out)));
        }
        buffers::give(dbefore);
        gradients
    }

    fn forward_mixed(&self, inputs: &[MixedOperand<'_>], track: bool) -> Option<MixedForward> {
        let x = inputs[0];
        let n = x.shape[0];
        let up = Weight::new(
            inputs[1].f32(),
            inputs[1].shape,
            self.cache(&self.up, track),
        );
        let down = Weight::new(
            inputs[2].f32(),
            inputs[2].shape,
            self.cache(&self.down, track),
        );
        let bias = |i: usize| inputs.get(i).map(MixedOperand::f32);
        up.check(x.shape[1]);
        let mut wide = buffers::take(n * up.d_out);
        let mut before = track.then(|| buffers::take::<bf16>(n * up.d_out));
        let finish = Finish::Activate {
            bias: bias(3),
            activation: self.activation,
            input: before.as_deref_mut(),
        };
        up.forward_mixed(Matrix::row_major(x.values, n, up.d_in), finish, &mut wide);
        let mut y = buffers::take(n * down.d_out);
        let rows = Matrix::row_major(Values::Bf16(&wide), n, down.d_in);
        down.forward_mixed(rows, Finish::bias(bias(4)), &mut y);
        let saved = match before {
            Some(before) => vec![Data::Bf16(before), Data::Bf16(wide)],
            None => {
                buffers::give(wide);
                Vec::new()
            }
        };
        Some(MixedForward {
            data: Data::Bf16(y),
            shape: vec![n, down.d_out],
            saved,
        })
    }

    fn backward_mixed(&self, pass: MixedBackward<'_>) -> Vec<Option<Data>> {
        let x = pass.inputs[0];
        let n = x.shape[0];
        let up = Weight::new(pass.inputs[1].f32(), pass.inputs[1].shape, None);
        let down = Weight::new(pass.inputs[2].f32(), pass.inputs[2].shape, None);
        let Ok([Data::Bf16(before), Data::Bf16(wide)]) = <[Data; 2]>::try_from(pass.saved) else {
            unreachable!("saved by the forward pass")
        };
        let dy = Matrix::row_major(pass.grad, n, down.d_out);
        let finish = Finish::Derivative {
            activation: self.activation,
            input: &before,
        };
        let dbefore = down.backward_input(dy, finish);
        buffers::give(before);
        let rows = Matrix::row_major(Values::Bf16(&wide), n, down.d_in);
        let dw2 = down.backward_weight(dy, rows);
        buffers::give(wide);
        let narrow = Values::Bf16(&dbefore);
        let inner = Matrix::row_major(narrow, n, up.d_out);
        let dx = up.backward_input(inner, Finish::NONE);
        let dw1 = up.backward_weight(inner, Matrix::row_major(x.values, n, up.d_in));
        let mut gradients = vec![
            Some(Data::Bf16(dx)),
            Some(Data::F32(dw1)),
            Some(Data::F32(dw2)),
        ];
        if pass.inputs.len() == 5 {
            gradients.push(Some(Data::F32(bias_gradient(narrow, up.d_out))));
            gradients.push(Some(Data::F32(bias_gradient(pass.grad, down.d_out))));
        }
        buffers::give(dbefore);
        gradients
    }

    fn cost(&self, shapes: &[&[usize]], direction: Direction, _track: bool) -> Cost {
        let (n, up, down) = (shapes[0][0], shapes[1], shapes[2]);
        let first = profile::product(n, up[1], up[0], direction);
        let second = profile::product(n, down[1], down[0], direction);
        first + second
    }
}
