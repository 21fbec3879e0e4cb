//! Element-wise non-linearities and their derivatives.

use crate::naive;

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
    /// `x · sigmoid(x)`, also called swish.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x`.
    Identity,
}

impl Activation {
    /// Every activation, for tests and tables.
    pub const ALL: [Activation; 8] = [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Silu,
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
    naive::activation::activation_forward(kind, x, y);
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
    naive::activation::activation_backward(kind, x, dy, dx);
}
