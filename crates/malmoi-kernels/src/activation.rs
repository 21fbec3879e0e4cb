//! Element-wise non-linearities and their derivatives.

use crate::simd::{Simd, dispatched, math, read, vectors, write};
use crate::threads::{SharedMut, for_each};

#[cfg(test)]
mod tests;

/// The non-linearity of a feed-forward layer or a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x · Φ(x)` with the normal distribution function Φ, by the error function (Hendrycks and Gimpel 2016).
    Gelu,
    /// The tanh approximation of GELU, as GPT-2 uses it: `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`, the coarser approximation of GELU.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²` (So et al., 2021, "Primer").
    ReluSquared,
    /// `x`, or `0.01 x` below zero.
    LeakyRelu,
    /// `x · sigmoid(x)`, also called swish.
    Silu,
    /// `x · tanh(ln(1 + eˣ))` (Misra, 2019).
    Mish,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x`.
    Identity,
}

impl Activation {
    /// Every activation, for tests and tables.
    pub const ALL: [Activation; 11] = [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::ReluSquared,
        Activation::LeakyRelu,
        Activation::Silu,
        Activation::Mish,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Identity,
    ];
}

/// `y = f(x)`, element by element.
///
/// # Panics
/// When the lengths differ.
pub fn activation_forward(kind: Activation, x: &[f32], y: &mut [f32]) {
    assert_eq!(
        x.len(),
        y.len(),
        "activation_forward: x and y have the same length"
    );
    let out = SharedMut::new(y);
    for_each(x.len().div_ceil(CHUNK), CHUNK * 2, |index| {
        let at = index * CHUNK..((index + 1) * CHUNK).min(x.len());
        // SAFETY: every index has its own chunk.
        let y = unsafe { out.slice(at.start, at.len()) };
        forward(kind, &x[at], y);
    });
}

/// `dx = dy · f'(x)`, element by element, from the input `x` of the forward pass.
///
/// # Panics
/// When the lengths differ.
pub fn activation_backward(kind: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert_eq!(
        x.len(),
        dy.len(),
        "activation_backward: x and dy have the same length"
    );
    assert_eq!(
        x.len(),
        dx.len(),
        "activation_backward: x and dx have the same length"
    );
    let out = SharedMut::new(dx);
    for_each(x.len().div_ceil(CHUNK), CHUNK * 3, |index| {
        let at = index * CHUNK..((index + 1) * CHUNK).min(x.len());
        // SAFETY: every index has its own chunk.
        let dx = unsafe { out.slice(at.start, at.len()) };
        backward(kind, &x[at.clone()], &dy[at], dx);
    });
}

/// `y = f(gate) · up`, element by element: the gated layers of Shazeer (2020), "GLU Variants Improve Transformer".
///
/// # Panics
/// When the lengths differ.
pub fn gated_forward(kind: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(
        gate.len() == y.len() && up.len() == y.len(),
        "gated_forward: gate, up and y have the same length"
    );
    let out = SharedMut::new(y);
    for_each(gate.len().div_ceil(CHUNK), CHUNK * 3, |index| {
        let at = index * CHUNK..((index + 1) * CHUNK).min(gate.len());
        // SAFETY: every index has its own chunk.
        let y = unsafe { out.slice(at.start, at.len()) };
        gate_chunk(kind, &gate[at.clone()], &up[at], y);
    });
}

/// The gradients of [`gated_forward`] from its inputs: `dgate = dy · up · f'(gate)`, `dup = dy · f(gate)`.
///
/// # Panics
/// When the lengths differ.
pub fn gated_backward(
    kind: Activation,
    gate: &[f32],
    up: &[f32],
    dy: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    let n = gate.len();
    assert!(
        up.len() == n && dy.len() == n && dgate.len() == n && dup.len() == n,
        "gated_backward: all slices have the same length"
    );
    let (out_gate, out_up) = (SharedMut::new(dgate), SharedMut::new(dup));
    for_each(n.div_ceil(CHUNK), CHUNK * 5, |index| {
        let at = index * CHUNK..((index + 1) * CHUNK).min(n);
        // SAFETY: every index has its own chunks.
        let (dgate, dup) = unsafe {
            (
                out_gate.slice(at.start, at.len()),
                out_up.slice(at.start, at.len()),
            )
        };
        gate_back_chunk(
            kind,
            &gate[at.clone()],
            &up[at.clone()],
            &dy[at],
            dgate,
            dup,
        );
    });
}

/// Elements of a piece of work: three arrays of this length fit the second-level cache many times over.
const CHUNK: usize = 16_384;

dispatched!(pub(crate) fn forward = forward_on(kind: Activation, x: &[f32], y: &mut [f32]));
dispatched!(pub(crate) fn backward = backward_on(kind: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]));
dispatched!(pub(crate) fn gate_chunk = gate_chunk_on(kind: Activation, gate: &[f32], up: &[f32], y: &mut [f32]));
dispatched!(pub(crate) fn gate_back_chunk = gate_back_chunk_on(kind: Activation, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]));

/// The factor in the argument of GELU's tanh approximation, doubled: `(1 + tanh u) / 2 = sigmoid(2 u)`.
pub(crate) const TWICE_ROOT_2_OVER_PI: f32 = 1.595_769_2;
pub(crate) const GELU_CUBIC: f32 = 0.044_715;
pub(crate) const QUICK_GELU: f32 = 1.702;
/// Slope of the leaky rectifier below zero.
const LEAK: f32 = 0.01;

/// Runs the body once for the kind at hand, with `$k` a constant: the choice is made once and not for every vector.
macro_rules! with_constant {
    ($kind:expr, $k:ident => $body:expr) => {
        with_constant!(@arms $kind, $k, $body, Gelu GeluTanh QuickGelu Relu ReluSquared LeakyRelu Silu Mish Tanh Sigmoid Identity)
    };
    (@arms $kind:expr, $k:ident, $body:expr, $($name:ident)*) => {
        match $kind {
            $(Activation::$name => {
                const $k: Activation = Activation::$name;
                $body
            })*
        }
    };
}
pub(crate) use with_constant;

#[inline(always)]
fn gelu_tanh_sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let inner = s.fma(
        s.mul(x, x),
        s.splat(GELU_CUBIC * TWICE_ROOT_2_OVER_PI),
        s.splat(TWICE_ROOT_2_OVER_PI),
    );
    math::sigmoid(s, s.mul(x, inner))
}

/// `g(x) + slope · x · g(x) (1 - g(x))` where `g` is a sigmoid of an argument with this slope: the derivative of `x · g(x)`.
#[inline(always)]
fn gated_derivative<S: Simd>(s: S, x: S::V, g: S::V, slope: S::V) -> S::V {
    let one_minus = s.sub(s.splat(1.0), g);
    s.fma(s.mul(s.mul(x, slope), g), one_minus, g)
}

/// `tanh(ln(1 + eˣ))`, which is `n / (n + 2)` with `n = eˣ (eˣ + 2)`.
#[inline(always)]
fn tanh_softplus<S: Simd>(s: S, x: S::V) -> S::V {
    // From here on the quotient is 1 in f32, and the square of the exponential would overflow further on.
    let e = math::exp_finite(s, s.min(s.splat(20.0), x));
    let two = s.splat(2.0);
    let n = s.mul(e, s.add(e, two));
    s.div(n, s.add(n, two))
}

#[inline(always)]
pub(crate) fn value_on<S: Simd>(s: S, kind: Activation, x: S::V) -> S::V {
    match kind {
        Activation::Gelu => s.mul(x, math::gelu_gate(s, x)),
        Activation::GeluTanh => s.mul(x, math::gelu_tanh_gate(s, x)),
        Activation::QuickGelu => s.mul(x, math::sigmoid(s, s.mul(x, s.splat(QUICK_GELU)))),
        // The data second: not-a-number stays.
        Activation::Relu => s.max(s.zero(), x),
        Activation::ReluSquared => {
            let positive = s.max(s.zero(), x);
            s.mul(positive, positive)
        }
        Activation::LeakyRelu => s.max(s.mul(s.splat(LEAK), x), x),
        Activation::Silu => s.mul(x, math::sigmoid(s, x)),
        Activation::Mish => s.mul(x, tanh_softplus(s, x)),
        Activation::Tanh => math::tanh(s, x),
        Activation::Sigmoid => math::sigmoid(s, x),
        Activation::Identity => x,
    }
}

#[inline(always)]
pub(crate) fn derivative_on<S: Simd>(s: S, kind: Activation, x: S::V) -> S::V {
    let one = s.splat(1.0);
    match kind {
        Activation::Gelu => {
            let (phi, density) = math::normal(s, x);
            // 1 / √(2π)
            s.fma(s.mul(x, density), s.splat(0.398_942_3), phi)
        }
        Activation::GeluTanh => {
            let g = gelu_tanh_sigmoid(s, x);
            let cubic = s.splat(3.0 * GELU_CUBIC * TWICE_ROOT_2_OVER_PI);
            let slope = s.fma(s.mul(x, x), cubic, s.splat(TWICE_ROOT_2_OVER_PI));
            gated_derivative(s, x, g, slope)
        }
        Activation::QuickGelu => {
            let slope = s.splat(QUICK_GELU);
            gated_derivative(s, x, math::sigmoid(s, s.mul(x, slope)), slope)
        }
        Activation::Relu => s.select_lt(s.zero(), x, one, s.zero()),
        Activation::ReluSquared => s.max(s.zero(), s.add(x, x)),
        Activation::LeakyRelu => s.select_lt(s.zero(), x, one, s.splat(LEAK)),
        Activation::Silu => gated_derivative(s, x, math::sigmoid(s, x), one),
        Activation::Mish => {
            let t = tanh_softplus(s, x);
            let slope = s.mul(s.fnma(t, t, one), math::sigmoid(s, x));
            s.fma(x, slope, t)
        }
        Activation::Tanh => {
            let t = math::tanh(s, x);
            s.fnma(t, t, one)
        }
        Activation::Sigmoid => {
            let g = math::sigmoid(s, x);
            s.mul(g, s.sub(one, g))
        }
        Activation::Identity => one,
    }
}

#[inline(always)]
fn forward_on<S: Simd>(s: S, kind: Activation, x: &[f32], y: &mut [f32]) {
    with_constant!(kind, KIND => vectors!(s, x.len(), |i| write(s, y, i, value_on(s, KIND, read(s, x, i)))));
}

/// `x = f(x)` in place.
#[inline(always)]
pub(crate) fn apply_in_place_on<S: Simd>(s: S, kind: Activation, x: &mut [f32]) {
    if kind != Activation::Identity {
        with_constant!(kind, KIND => vectors!(s, x.len(), |i| {
            let v = value_on(s, KIND, read(s, x, i));
            write(s, x, i, v);
        }));
    }
}

#[inline(always)]
fn backward_on<S: Simd>(s: S, kind: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    with_constant!(kind, KIND => vectors!(s, x.len(), |i| {
        let slope = derivative_on(s, KIND, read(s, x, i));
        write(s, dx, i, s.mul(read(s, dy, i), slope));
    }));
}

#[inline(always)]
fn gate_chunk_on<S: Simd>(s: S, kind: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
    with_constant!(kind, KIND => vectors!(s, gate.len(), |i| {
        let value = value_on(s, KIND, read(s, gate, i));
        write(s, y, i, s.mul(value, read(s, up, i)));
    }));
}

#[inline(always)]
fn gate_back_chunk_on<S: Simd>(
    s: S,
    kind: Activation,
    gate: &[f32],
    up: &[f32],
    dy: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    with_constant!(kind, KIND => vectors!(s, gate.len(), |i| {
        let (x, dy) = (read(s, gate, i), read(s, dy, i));
        let slope = s.mul(derivative_on(s, KIND, x), read(s, up, i));
        write(s, dgate, i, s.mul(dy, slope));
        write(s, dup, i, s.mul(dy, value_on(s, KIND, x)));
    }));
}
