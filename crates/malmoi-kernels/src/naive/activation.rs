//! Activations in double precision.

use crate::activation::Activation;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// The error function, by its power series for small arguments and a continued fraction of its complement for large
/// ones (Abramowitz and Stegun 7.1.6 and 7.1.14). Good to about 1e-15.
#[must_use]
pub fn erf(x: f64) -> f64 {
    let t = x.abs();
    if t.is_nan() {
        return x;
    }
    let value = if t < 2.5 {
        let mut term = t;
        let mut sum = t;
        let mut n = 0.0;
        while term > sum * 1e-17 {
            n += 1.0;
            term *= 2.0 * t * t / (2.0 * n + 1.0);
            sum += term;
        }
        2.0 / PI.sqrt() * (-t * t).exp() * sum
    } else {
        1.0 - erfc_tail(t)
    };
    value.copysign(x)
}

/// The complement of the error function for `t` of at least 2.5.
fn erfc_tail(t: f64) -> f64 {
    let mut fraction = t;
    for n in (1..=60).rev() {
        fraction = t + f64::from(n) / 2.0 / fraction;
    }
    (-t * t).exp() / PI.sqrt() / fraction
}

fn normal_cdf(x: f64) -> f64 {
    let t = x * FRAC_1_SQRT_2;
    if t < -2.5 {
        0.5 * erfc_tail(-t)
    } else {
        0.5 * (1.0 + erf(t))
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn gelu_tanh_argument(x: f64) -> (f64, f64) {
    let c = (2.0 / PI).sqrt();
    (
        c * (x + 0.044_715 * x * x * x),
        c * (1.0 + 3.0 * 0.044_715 * x * x),
    )
}

/// `f(x)`.
#[must_use]
pub fn activate(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::Gelu => x * normal_cdf(x),
        // (1 + tanh u) / 2 is sigmoid(2u), which does not cancel for negative u.
        Activation::GeluTanh => x * sigmoid(2.0 * gelu_tanh_argument(x).0),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::LeakyRelu => {
            if x > 0.0 {
                x
            } else {
                f64::from(0.01_f32) * x
            }
        }
        Activation::Mish => x * x.exp().ln_1p().tanh(),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
        Activation::Identity => x,
    }
}

/// `f'(x)`.
#[must_use]
pub fn derivative(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::Gelu => normal_cdf(x) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt(),
        Activation::GeluTanh => {
            let (u, du) = gelu_tanh_argument(x);
            let s = sigmoid(2.0 * u);
            s + x * s * (1.0 - s) * 2.0 * du
        }
        Activation::QuickGelu => {
            let s = sigmoid(1.702 * x);
            s + 1.702 * x * s * (1.0 - s)
        }
        Activation::Relu => f64::from(u8::from(x > 0.0)),
        Activation::ReluSquared => 2.0 * x.max(0.0),
        Activation::LeakyRelu => {
            if x > 0.0 {
                1.0
            } else {
                f64::from(0.01_f32)
            }
        }
        Activation::Mish => {
            let t = x.exp().ln_1p().tanh();
            t + x * (1.0 - t * t) * sigmoid(x)
        }
        Activation::Silu => {
            let s = sigmoid(x);
            s + x * s * (1.0 - s)
        }
        Activation::Tanh => 1.0 - x.tanh() * x.tanh(),
        Activation::Sigmoid => sigmoid(x) * (1.0 - sigmoid(x)),
        Activation::Identity => 1.0,
    }
}

/// See [`crate::activation::activation_forward`].
pub fn activation_forward(kind: Activation, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = activate(kind, f64::from(x)) as f32;
    }
}

/// See [`crate::activation::activation_backward`].
pub fn activation_backward(kind: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
        *dx = (f64::from(dy) * derivative(kind, f64::from(x))) as f32;
    }
}

/// See [`crate::activation::gated_forward`].
pub fn gated_forward(kind: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
        *y = (activate(kind, f64::from(gate)) * f64::from(up)) as f32;
    }
}

/// See [`crate::activation::gated_backward`].
pub fn gated_backward(
    kind: Activation,
    gate: &[f32],
    up: &[f32],
    dy: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    for i in 0..gate.len() {
        let (x, up, dy) = (f64::from(gate[i]), f64::from(up[i]), f64::from(dy[i]));
        dgate[i] = (dy * up * derivative(kind, x)) as f32;
        dup[i] = (dy * activate(kind, x)) as f32;
    }
}
