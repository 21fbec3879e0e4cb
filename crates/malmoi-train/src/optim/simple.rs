//! Gradient descent with momentum, Adagrad, RMSprop and Adamax.

use serde::{Deserialize, Serialize};

use super::{Moments, ParamSlot};

/// Settings of stochastic gradient descent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sgd {
    /// Decay of the accumulated gradient; 0 keeps none.
    pub momentum: f64,
    /// Share of the new gradient that is left out of it.
    pub dampening: f64,
    /// Look one step of momentum ahead.
    pub nesterov: bool,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
}

impl Sgd {
    pub(super) fn update(&self, lr: f64, state: &mut Moments, param: ParamSlot<'_>) {
        let (lr, momentum) = (lr as f32, self.momentum as f32);
        let decay = if param.decay {
            self.weight_decay as f32
        } else {
            0.0
        };
        // The first gradient enters the accumulator undamped.
        let fresh = if state.step == 1 {
            1.0
        } else {
            1.0 - self.dampening as f32
        };
        let Some(buffer) = state.vectors.first_mut() else {
            for (p, &g) in param.values.iter_mut().zip(param.gradient) {
                *p -= lr * (g + decay * *p);
            }
            return;
        };
        for ((p, &g), b) in param.values.iter_mut().zip(param.gradient).zip(buffer) {
            let g = g + decay * *p;
            *b = momentum * *b + fresh * g;
            *p -= lr * if self.nesterov { g + momentum * *b } else { *b };
        }
    }
}

/// Settings of Adagrad.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adagrad {
    /// The rate of step t is divided by `1 + (t - 1) · lr_decay`.
    pub lr_decay: f64,
    /// Added to the root of the sum.
    pub eps: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
    /// What the sum of squares starts from.
    pub initial_accumulator: f64,
}

impl Default for Adagrad {
    fn default() -> Self {
        Self {
            lr_decay: 0.0,
            eps: 1e-10,
            weight_decay: 0.0,
            initial_accumulator: 0.0,
        }
    }
}

impl Adagrad {
    pub(super) fn update(&self, lr: f64, state: &mut Moments, param: ParamSlot<'_>) {
        let rate = (lr / (1.0 + (state.step - 1) as f64 * self.lr_decay)) as f32;
        let eps = self.eps as f32;
        let decay = if param.decay {
            self.weight_decay as f32
        } else {
            0.0
        };
        if state.step == 1 {
            state.vectors[0].fill(self.initial_accumulator as f32);
        }
        for ((p, &g), sum) in param
            .values
            .iter_mut()
            .zip(param.gradient)
            .zip(&mut state.vectors[0])
        {
            let g = g + decay * *p;
            *sum += g * g;
            *p -= rate * g / (sum.sqrt() + eps);
        }
    }
}

/// Settings of RMSprop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RmsProp {
    /// Decay of the mean square.
    pub alpha: f64,
    /// Added to its root.
    pub eps: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
    /// Decay of the accumulated step; 0 keeps none.
    pub momentum: f64,
    /// Divide by the standard deviation instead of the root mean square.
    pub centered: bool,
}

impl Default for RmsProp {
    fn default() -> Self {
        Self {
            alpha: 0.99,
            eps: 1e-8,
            weight_decay: 0.0,
            momentum: 0.0,
            centered: false,
        }
    }
}

impl RmsProp {
    /// All three vectors exist whatever the settings, unless neither option wants more than the first.
    pub(super) fn vectors(&self, n: usize) -> Vec<(&'static str, usize)> {
        if self.centered || self.momentum > 0.0 {
            vec![("square_avg", n), ("grad_avg", n), ("momentum", n)]
        } else {
            vec![("square_avg", n)]
        }
    }

    pub(super) fn update(&self, lr: f64, state: &mut Moments, param: ParamSlot<'_>) {
        let (lr, alpha, eps, momentum) = (
            lr as f32,
            self.alpha as f32,
            self.eps as f32,
            self.momentum as f32,
        );
        let decay = if param.decay {
            self.weight_decay as f32
        } else {
            0.0
        };
        let pairs = param.values.iter_mut().zip(param.gradient);
        match state.vectors.as_mut_slice() {
            [squares, means, steps] => {
                for ((p, &g), ((square, mean), step)) in
                    pairs.zip(squares.iter_mut().zip(means).zip(steps))
                {
                    let g = g + decay * *p;
                    *square = alpha * *square + (1.0 - alpha) * g * g;
                    let mut variance = *square;
                    if self.centered {
                        *mean += (1.0 - alpha) * (g - *mean);
                        // Rounding may leave a tiny negative difference where the gradient never changes.
                        variance = (variance - *mean * *mean).max(0.0);
                    }
                    *step = momentum * *step + g / (variance.sqrt() + eps);
                    *p -= lr * *step;
                }
            }
            [squares, ..] => {
                for ((p, &g), square) in pairs.zip(squares) {
                    let g = g + decay * *p;
                    *square = alpha * *square + (1.0 - alpha) * g * g;
                    *p -= lr * g / (square.sqrt() + eps);
                }
            }
            [] => unreachable!("RMSprop is created with one or three vectors"),
        }
    }
}

/// Settings of Adamax.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adamax {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the largest magnitude.
    pub beta2: f64,
    /// Added to the magnitude of the gradient.
    pub eps: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
}

impl Default for Adamax {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }
}

impl Adamax {
    pub(super) fn update(&self, lr: f64, state: &mut Moments, param: ParamSlot<'_>) {
        let rate = (lr / (1.0 - self.beta1.powf(state.step as f64))) as f32;
        let (beta1, beta2, eps) = (self.beta1 as f32, self.beta2 as f32, self.eps as f32);
        let decay = if param.decay {
            self.weight_decay as f32
        } else {
            0.0
        };
        let [means, largest] = state.vectors.as_mut_slice() else {
            unreachable!("Adamax is created with two vectors")
        };
        for ((p, &g), (m, u)) in param
            .values
            .iter_mut()
            .zip(param.gradient)
            .zip(means.iter_mut().zip(largest))
        {
            let g = g + decay * *p;
            *m += (1.0 - beta1) * (g - *m);
            *u = (beta2 * *u).max(g.abs() + eps);
            *p -= rate * *m / *u;
        }
    }
}
