//! Adam and its relatives: first and second moments of the gradient.

use malmoi_kernels::optim::{AdamW, adamw_step};
use malmoi_kernels::reduce::sum_of_squares;
use serde::{Deserialize, Serialize};

use super::{Moments, ParamSlot};

/// Settings of Adam and AdamW.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adam {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay: decoupled (AdamW) or added to the gradient (Adam).
    pub weight_decay: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }
}

fn two(state: &mut Moments) -> (&mut [f32], &mut [f32]) {
    let [first, second] = state.vectors.as_mut_slice() else {
        unreachable!("rules with two moments are created with two vectors")
    };
    (first, second)
}

/// Updates both moments with the gradient `g`.
fn moments(m: &mut f32, v: &mut f32, g: f32, beta1: f32, beta2: f32) {
    *m += (1.0 - beta1) * (g - *m);
    *v = beta2 * *v + (1.0 - beta2) * g * g;
}

/// `1 - beta^step`, in double precision: the moments start at zero and this takes the bias out.
fn correction(beta: f64, step: u64) -> f64 {
    1.0 - beta.powf(step as f64)
}

impl Adam {
    pub(super) fn update_decoupled(&self, lr: f64, state: &mut Moments, param: ParamSlot<'_>) {
        let step = state.step;
        let (m, v) = two(state);
        let weight_decay = if param.decay { self.weight_decay } else { 0.0 };
        let options = AdamW {
            lr,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay,
            step,
        };
        adamw_step(param.values, param.gradient, m, v, options);
    }

    pub(super) fn update(&self, lr: f64, state: &mut Moments, param: ParamSlot<'_>) {
        let step_size = (lr / correction(self.beta1, state.step)) as f32;
        let root2 = correction(self.beta2, state.step).sqrt() as f32;
        let (beta1, beta2, eps) = (self.beta1 as f32, self.beta2 as f32, self.eps as f32);
        let decay = if param.decay {
            self.weight_decay as f32
        } else {
            0.0
        };
        let (m, v) = two(state);
        for ((p, &g), (m, v)) in param
            .values
            .iter_mut()
            .zip(param.gradient)
            .zip(m.iter_mut().zip(v))
        {
            moments(m, v, g + decay * *p, beta1, beta2);
            *p -= step_size * *m / (v.sqrt() / root2 + eps);
        }
    }
}

/// Settings of rectified Adam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RAdam {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
}

impl Default for RAdam {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }
}

impl RAdam {
    pub(super) fn update(&self, lr: f64, state: &mut Moments, param: ParamSlot<'_>) {
        let step = state.step as f64;
        let correction2 = correction(self.beta2, state.step);
        // Length of the simple moving average that the second moment stands for (section 4 of the paper): its variance is
        // tractable above 4, and the published code rectifies above 5.
        let longest = 2.0 / (1.0 - self.beta2) - 1.0;
        let length = longest - 2.0 * step * (1.0 - correction2) / correction2;
        let rectification = (length > 5.0).then(|| {
            ((length - 4.0) * (length - 2.0) * longest
                / ((longest - 4.0) * (longest - 2.0) * length))
                .sqrt()
        });
        let step_size = lr / correction(self.beta1, state.step);
        let (beta1, beta2, eps) = (self.beta1 as f32, self.beta2 as f32, self.eps as f32);
        let decay = if param.decay {
            self.weight_decay as f32
        } else {
            0.0
        };
        let (m, v) = two(state);
        let adaptive = rectification.map(|r| (step_size * r * correction2.sqrt()) as f32);
        let plain = step_size as f32;
        for ((p, &g), (m, v)) in param
            .values
            .iter_mut()
            .zip(param.gradient)
            .zip(m.iter_mut().zip(v))
        {
            moments(m, v, g + decay * *p, beta1, beta2);
            *p -= match adaptive {
                Some(size) => size * *m / (v.sqrt() + eps),
                None => plain * *m,
            };
        }
    }
}

/// Settings of Adam with Nesterov momentum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NAdam {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
    /// How fast the momentum approaches `beta1`.
    pub momentum_decay: f64,
}

impl Default for NAdam {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            momentum_decay: 0.004,
        }
    }
}

impl NAdam {
    /// Momentum of a step (equation in section 2.3 of the paper; 0.96 is its constant).
    fn momentum(&self, step: u64) -> f64 {
        self.beta1 * (1.0 - 0.5 * 0.96f64.powf(step as f64 * self.momentum_decay))
    }

    /// Product of the momenta up to a step. It is a function of the step alone, so it is not part of the state; once it is too
    /// small to matter next to 1, it is 0.
    fn product(&self, step: u64) -> f64 {
        let mut product = 1.0;
        for t in 1..=step {
            product *= self.momentum(t);
            if product < 1e-20 {
                return 0.0;
            }
        }
        product
    }

    pub(super) fn update(&self, lr: f64, state: &mut Moments, param: ParamSlot<'_>) {
        let (now, next) = (self.momentum(state.step), self.momentum(state.step + 1));
        let product = self.product(state.step);
        let of_gradient = (lr * (1.0 - now) / (1.0 - product)) as f32;
        let of_moment = (lr * next / (1.0 - product * next)) as f32;
        let root2 = correction(self.beta2, state.step).sqrt() as f32;
        let (beta1, beta2, eps) = (self.beta1 as f32, self.beta2 as f32, self.eps as f32);
        let decay = if param.decay {
            self.weight_decay as f32
        } else {
            0.0
        };
        let (m, v) = two(state);
        for ((p, &g), (m, v)) in param
            .values
            .iter_mut()
            .zip(param.gradient)
            .zip(m.iter_mut().zip(v))
        {
            let g = g + decay * *p;
            moments(m, v, g, beta1, beta2);
            *p -= (of_gradient * g + of_moment * *m) / (v.sqrt() / root2 + eps);
        }
    }
}

/// Settings of LAMB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lamb {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay, part of the update whose size is adapted.
    pub weight_decay: f64,
}

impl Default for Lamb {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-6,
            weight_decay: 0.01,
        }
    }
}

impl Lamb {
    pub(super) fn update(&self, lr: f64, state: &mut Moments, param: ParamSlot<'_>) {
        let correction1 = correction(self.beta1, state.step) as f32;
        let root2 = correction(self.beta2, state.step).sqrt() as f32;
        let (beta1, beta2, eps) = (self.beta1 as f32, self.beta2 as f32, self.eps as f32);
        let decay = if param.decay {
            self.weight_decay as f32
        } else {
            0.0
        };
        let (m, v) = two(state);
        for (&g, (m, v)) in param.gradient.iter().zip(m.iter_mut().zip(v.iter_mut())) {
            moments(m, v, g, beta1, beta2);
        }
        let direction =
            |p: f32, m: f32, v: f32| m / correction1 / (v.sqrt() / root2 + eps) + decay * p;
        let size: f64 = param
            .values
            .iter()
            .zip(m.iter().zip(v.iter()))
            .map(|(&p, (&m, &v))| f64::from(direction(p, m, v)).powi(2))
            .sum();
        let norm = sum_of_squares(param.values).sqrt();
        let trust = if norm > 0.0 && size > 0.0 {
            norm / size.sqrt()
        } else {
            1.0
        };
        let rate = (lr * trust) as f32;
        for (p, (&m, &v)) in param.values.iter_mut().zip(m.iter().zip(v.iter())) {
            *p -= rate * direction(*p, m, v);
        }
    }
}
