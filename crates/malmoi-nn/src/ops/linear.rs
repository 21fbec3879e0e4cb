//! `y = x Wᵀ + b`, weights in the published layout `[d_out, d_in]`, and the feed-forward layer made of two of them.

use burn::module::{Param, ParamId};
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
    self, BackwardPass, Data, Forward, FusedOp, Keep, MixedBackward, MixedForward, MixedOperand,
    Operand, apply, primitive,
};
use crate::weights::{Packed, WeightCache};
use crate::{buffers, profile};

/// Rows from which weights are packed at their first use in f32. Fewer are read straight from the weights, and from packed ones
/// when the weights are used again; the bits are the same.
const PACKED_ROWS: usize = 128;

/// A dense layer's parameters: `weight [d_out, d_in]`, `bias [d_out]`.
#[derive(Clone, Debug)]
pub struct Dense {
    /// `[d_out, d_in]`. Where its values are read only when somebody asks, an operation without a graph asks for its packed form alone.
    pub weight: Param<Tensor<2>>,
    /// `[d_out]`.
    pub bias: Option<Tensor<1>>,
    /// Where packed weights are kept, for inference.
    pub cache: Option<WeightCache>,
}

impl Dense {
    /// Whether `x` meets the packed form of weights that nobody holds the values of.
    fn is_unread(&self, x: &Tensor<2>) -> bool {
        self.cache.is_some() && !self.weight.is_initialized() && !bridge::is_tracked(x)
    }

    /// How the operation gets at its weights.
    fn kept(&self, is_unread: bool) -> Kept {
        Kept {
            cache: self.cache.clone(),
            unread: is_unread.then(|| self.weight.clone()),
        }
    }
}

/// What an operation has of a layer's weights beside their values.
#[derive(Debug)]
struct Kept {
    /// Where packed weights are kept, for inference.
    cache: Option<WeightCache>,
    /// Weights whose values are not among the operation's inputs.
    unread: Option<Param<Tensor<2>>>,
}

impl Kept {
    /// Weights of `[d_out, d_in]` that are not among the inputs.
    fn shape(&self) -> Option<[usize; 2]> {
        (self.unread.as_ref()).map(|weight| weight.lazy_shape().dims())
    }

    /// The weights: the next of `inputs`, unless they are not among them.
    fn weight<'a>(
        &'a self,
        inputs: &mut impl Iterator<Item = Operand<'a>>,
        track: bool,
    ) -> Weight<'a> {
        if let (Some(unread), Some(cache), Some([d_out, d_in])) =
            (&self.unread, &self.cache, self.shape())
        {
            return Weight {
                source: Source::Unread(unread, cache),
                d_out,
                d_in,
            };
        }
        let weight = inputs.next().expect("weights among the inputs");
        let cache = self.cache.as_ref().filter(|_| !track);
        Weight::new(weight.data, weight.shape, cache)
    }
}

/// Dense layer: `x [N, d_in]`, `weight [d_out, d_in]`, `bias [d_out]` → `[N, d_out]`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let weight = Param::initialized(ParamId::new(), weight);
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
    let is_unread = layer.is_unread(&x);
    let op = Linear {
        kept: layer.kept(is_unread),
    };
    let Dense { weight, bias, .. } = layer;
    match (is_unread, bias) {
        (true, Some(bias)) => apply(op, [primitive(x), primitive(bias)]),
        (true, None) => apply(op, [primitive(x)]),
        (false, Some(bias)) => apply(op, [primitive(x), primitive(weight.val()), primitive(bias)]),
        (false, None) => apply(op, [primitive(x), primitive(weight.val())]),
    }
}

/// `down(activation(up(x)))` in one operation: the wide activations pass through the cache once. Both layers have a bias or
/// neither.
pub fn feed_forward(x: Tensor<2>, up: Dense, down: Dense, activation: Activation) -> Tensor<2> {
    let is_unread = up.is_unread(&x) && down.is_unread(&x);
    let op = FeedForward {
        activation,
        up: up.kept(is_unread),
        down: down.kept(is_unread),
    };
    let x = primitive(x);
    let biases = match (up.bias, down.bias) {
        (Some(b1), Some(b2)) => Some([primitive(b1), primitive(b2)]),
        (None, None) => None,
        _ => panic!("feed_forward: both layers have a bias or neither"),
    };
    match (is_unread, biases) {
        (true, Some([b1, b2])) => apply(op, [x, b1, b2]),
        (true, None) => apply(op, [x]),
        (false, biases) => {
            let [w1, w2] = [primitive(up.weight.val()), primitive(down.weight.val())];
            match biases {
                Some([b1, b2]) => apply(op, [x, w1, w2, b1, b2]),
                None => apply(op, [x, w1, w2]),
            }
        }
    }
}

/// A weight matrix with its packed form, when nothing is tracked.
#[derive(Clone, Copy, Debug)]
struct Weight<'a> {
    source: Source<'a>,
    d_out: usize,
    d_in: usize,
}

/// Where weights come from.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// Their values, and the place of their packed form.
    Values(&'a [f32], Option<&'a WeightCache>),
    /// Values that nobody holds, and the place of their packed form, which is all that is used.
    Unread(&'a Param<Tensor<2>>, &'a WeightCache),
}

impl<'a> Weight<'a> {
    fn new(values: &'a [f32], shape: &[usize], cache: Option<&'a WeightCache>) -> Self {
        Self {
            source: Source::Values(values, cache),
            d_out: shape[0],
            d_in: shape[1],
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
        match self.source {
            Source::Values(values, cache) => {
                Some(cache?.get(values, self.d_out, self.d_in, products))
            }
            Source::Unread(weight, cache) => Some(cache.get_unread(weight, products)),
        }
    }

    /// What products in f32 of this many rows read, unless it is the values.
    fn packed_for(&self, rows: usize) -> Option<Packed> {
        match self.source {
            Source::Values(values, Some(cache)) if !cache.is_always() && rows < PACKED_ROWS => {
                if rows <= rows_alike(self.d_in) {
                    return None;
                }
                cache.get_when_used_again(values, self.d_out, self.d_in)
            }
            _ => self.packed(Products::F32),
        }
    }

    /// The values, for products that need them.
    fn values(&self) -> &'a [f32] {
        match self.source {
            Source::Values(values, _) => values,
            Source::Unread(..) => unreachable!("packed weights serve every forward pass"),
        }
    }

    /// `y = activation(x wᵀ + bias)` in f32.
    fn forward(&self, x: &[f32], bias: Option<&[f32]>, activation: Activation, y: &mut [f32]) {
        let epilogue = Epilogue { bias, activation };
        let rows = x.len() / self.d_in.max(1);
        if let Some(Packed::F32(packed)) = self.packed_for(rows) {
            linear_forward_packed(x, &packed, epilogue, y);
        } else {
            linear_forward_with(x, self.values(), epilogue, self.d_in, self.d_out, y);
        }
    }

    fn matrix(&self) -> Matrix<'a> {
        Matrix::row_major(Values::F32(self.values()), self.d_out, self.d_in)
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
        let mut dw = buffers::take_for_gradient(self.d_out * self.d_in);
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

/// Inputs: x, [w], [b]; without w where its values are not held.
#[derive(Debug)]
struct Linear {
    kept: Kept,
}

impl Linear {
    /// The weights, and the bias if there is one, of the inputs behind the first.
    fn layer<'a>(
        &'a self,
        mut inputs: impl Iterator<Item = Operand<'a>>,
        track: bool,
    ) -> (Weight<'a>, Option<&'a [f32]>) {
        let weight = self.kept.weight(&mut inputs, track);
        (weight, inputs.next().map(|bias| bias.data))
    }
}

impl FusedOp for Linear {
    fn forward(&self, inputs: &[Operand<'_>], track: bool) -> Forward {
        let x = inputs[0];
        let (weight, bias) = self.layer(inputs[1..].iter().copied(), track);
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
        let x = inputs[0];
        let (weight, bias) = self.layer(inputs[1..].iter().map(MixedOperand::parameter), track);
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
        let [d_out, d_in] = (self.kept.shape()).unwrap_or_else(|| [shapes[1][0], shapes[1][1]]);
        profile::product(shapes[0][0], d_in, d_out, direction)
    }
}

/// Inputs: x, [w1, w2], [b1, b2]; without weights where their values are not held. Saved: what goes into the activation and what
/// comes out.
#[derive(Debug)]
struct FeedForward {
    activation: Activation,
    up: Kept,
    down: Kept,
}

impl FeedForward {
    /// The weights of both layers and their biases, of the inputs behind the first.
    fn layers<'a>(
        &'a self,
        mut inputs: impl Iterator<Item = Operand<'a>>,
        track: bool,
    ) -> ([Weight<'a>; 2], [Option<&'a [f32]>; 2]) {
        let weights = [&self.up, &self.down].map(|kept| kept.weight(&mut inputs, track));
        let biases = [(); 2].map(|()| inputs.next().map(|bias| bias.data));
        (weights, biases)
    }
}

impl FusedOp for FeedForward {
    fn forward(&self, inputs: &[Operand<'_>], track: bool) -> Forward {
        let x = inputs[0];
        let n = x.shape[0];
        let ([up, down], [b1, b2]) = self.layers(inputs[1..].iter().copied(), track);
        up.check(x.shape[1]);
        let mut wide = buffers::take(n * up.d_out);
        let mut saved = Vec::new();
        if track {
            let mut before = buffers::take(n * up.d_out);
            let finish = Finish::Activate {
                bias: b1,
                activation: self.activation,
                input: Some(&mut before),
            };
            linear_forward_finished(x.data, up.values(), finish, up.d_in, up.d_out, &mut wide);
            saved.push(before);
        } else {
            up.forward(x.data, b1, self.activation, &mut wide);
        }
        let mut y = buffers::take(n * down.d_out);
        down.forward(&wide, b2, Activation::Identity, &mut y);
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
        let ([up, down], [b1, b2]) =
            self.layers(inputs[1..].iter().map(MixedOperand::parameter), track);
        let mut wide = buffers::take(n * up.d_out);
        let mut before = track.then(|| buffers::take::<bf16>(n * up.d_out));
        let finish = Finish::Activate {
            bias: b1,
            activation: self.activation,
            input: before.as_deref_mut(),
        };
        up.forward_mixed(Matrix::row_major(x.values, n, up.d_in), finish, &mut wide);
        let mut y = buffers::take(n * down.d_out);
        let rows = Matrix::row_major(Values::Bf16(&wide), n, down.d_in);
        down.forward_mixed(rows, Finish::bias(b2), &mut y);
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
        let of = |kept: &Kept, i: usize| {
            let [d_out, d_in] = kept.shape().unwrap_or_else(|| [shapes[i][0], shapes[i][1]]);
            profile::product(shapes[0][0], d_in, d_out, direction)
        };
        of(&self.up, 1) + of(&self.down, 2)
    }
}
