//! How far a model in bf16 may be from a reference in double precision.
//!
//! # Analysis
//!
//! A value rounded to a format of p significant bits is off by at most `u = 2^-p` of itself: `u = 2^-24` in f32 (p = 24) and
//! `u = 2^-8` in bf16 (p = 8). To first order the deviation of a computed tensor is the sum, over all roundings on the way to it, of
//! *what the result changes by when the rounded value does* times *the rounding*. The first factors belong to the network
//! (its weights, norms, softmaxes) and not to the format. A run in bf16 rounds every activation between two operations and both
//! operands of every product; sums inside of products, norms, softmax, loss, parameters and their updates stay in f32. A run in f32
//! rounds at those places too, and inside of the sums as well. So a run in f32 measures the first factors:
//!
//! `deviation in bf16 ≤ 2^16 · deviation in f32`, up to chance,
//!
//! and the references record the deviation of their own f32 run (`f32_dev`, the largest of the tensor). Both are the largest of
//! about normally distributed errors, so one may exceed the other by chance: `LARGEST` leaves a factor of two. Of normal errors whose
//! largest among some hundred is 3 σ to 4 σ, 85 % are within 1.44 σ, which is at most half of the largest: `MOST`, asked of tensors with
//! `MANY` elements. A wrong formula moves all elements and fails there first.
//!
//! Where a tensor has few elements (`FEW`) their largest deviation may be small by chance. There the depth says
//! what to expect at least: roundings are independent, so s of them add up to `√s · u`, with the `ROUNDINGS` of a layer and as many
//! for embedding, head and loss. A loss is a difference of logits, so that is relative to the logits.
//!
//! ReLU's derivative jumps at zero, which no first order describes: a unit that rounding carries across gains or loses one token's term
//! in the gradients behind it. Where one token makes up an element, that is the whole element, so that those gradients may be off by
//! `JUMP` of the largest in few places. Pre-activations are off by some `√s · u`, 3 % of their size, so that about 2 % of all pairs of a
//! unit and a token cross zero; with a dozen tokens a batch that is a fifth of the units, and a unit is a whole row of the gradient. Of the
//! other rows the errors are as above; 85 % of all elements then keep to `MOST_BESIDE_JUMPS`, which 99.6 % of normal errors do, and 15 %
//! are left to the rows that jumped. In a head there is one token a text, and what a unit of it gains or loses goes into every gradient
//! behind: of those only `JUMP` is asked, and of their norms `HEAD_JUMP`. Of the units a half is active, and each carries as much as
//! another; when 2 % of all cross zero, `√(2 % / 50 %)` of the norm goes with them, 20 %, doubled for chance.
//!
//! A gradient of which `2^16 · f32_dev` is more than `LINEAR` of the largest element is beyond any first order (softmaxes of scores that
//! nothing divides, in T5 with random weights): of it only the size is compared.
//!
//! Three kinds follow from others:
//! - a norm of gradients is off by no more than the norm of the gradients' deviation: relative to it, `2^16 · f32_dev / max_abs` of the
//!   gradients that are given;
//! - AdamW moves a parameter by the rate or less in a step, whatever the gradient's size. Gradients about zero may have another
//!   sign: then parameters are apart by twice the rate a step, never by more;
//! - a generated token may be another one where the reference's is as good within the tolerance of the logits (`generate.rs`).

use crate::compare::Tolerance;
use crate::fixture::{Fixture, TensorSpec};

/// `u` of bf16: 8 significant bits.
const UNIT: f64 = 1.0 / 256.0;

/// `u` of bf16 over `u` of f32.
const COARSER: f64 = 65536.0;

/// Largest deviation to accept, in scaled deviations of the f32 run.
const LARGEST: f64 = 2.0;

/// What 85 % of the elements must stay within.
const MOST: f64 = 0.5;

/// Below this many elements a largest deviation says little.
const FEW: usize = 32;

/// From this many elements on, a share of them says something.
const MANY: usize = 256;

/// Roundings one after another in a layer: queries, keys, values, attended values, their projection, two norms, two sums, the
/// feed-forward layer's two outputs, and as many weights.
const ROUNDINGS: usize = 16;

/// What the norm of a gradient may be off by, relative to it, behind a head whose derivative jumps.
const HEAD_JUMP: f64 = 0.4;

/// What 85 % of the elements must stay within where a derivative jumps.
const MOST_BESIDE_JUMPS: f64 = 1.0;

/// What one token's term may be of the largest element of a gradient.
const JUMP: f64 = 1.0;

/// Share of the largest element up to which deviations add up. Measured on fresh fixtures: up to here the rules hold, at twice as much
/// errors are five times what they should be.
const LINEAR: f64 = 0.125;

/// `|m̂| / √v̂` of three steps exceeds 1 by less than this (Cauchy and Schwarz on the averages' weights).
const ADAM: f64 = 1.01;

/// Where the derivative of an activation jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jumps {
    /// Nowhere: no ReLU.
    Nowhere,
    /// In the feed-forward layers.
    Layers,
    /// In the head, before everything else on the way back.
    Head,
}

/// The rules for one model.
#[derive(Debug, Clone, Copy)]
pub struct Bf16 {
    /// Relative deviation to expect from depth alone.
    by_depth: f64,
    /// Largest logit of the reference.
    logits: f64,
    /// Relative deviation of gradients.
    gradients: f64,
    /// Where an activation's derivative jumps.
    jumps: Jumps,
}

impl Bf16 {
    /// For a model with this many layers, those of an encoder in front counted.
    pub fn new(fixture: &Fixture, n_layers: usize, jumps: Jumps) -> Self {
        let largest = |part: &str, of: &dyn Fn(&TensorSpec) -> f64| {
            let specs = fixture.specs_named(|name| name.contains(part));
            specs.map(of).fold(0.0, f64::max)
        };
        let scale = |spec: &TensorSpec| spec.max_abs.unwrap_or(0.0);
        let relative = |spec: &TensorSpec| match (spec.f32_dev, spec.max_abs) {
            (Some(dev), Some(scale)) if scale > 0.0 => dev / scale,
            _ => 0.0,
        };
        Self {
            by_depth: UNIT * ((ROUNDINGS * (n_layers + 1)) as f64).sqrt(),
            logits: largest("logits", &scale),
            gradients: COARSER * largest(".grad.", &relative),
            jumps,
        }
    }

    /// The tolerance of a tensor.
    pub fn tolerance(&self, fixture: &Fixture, name: &str, spec: &TensorSpec) -> Tolerance {
        let elements: usize = spec.shape.iter().product();
        let (dev, scale) = (
            spec.f32_dev.unwrap_or(0.0) * COARSER,
            spec.max_abs.unwrap_or(0.0),
        );
        let few = elements < FEW || spec.f32_dev.is_none();
        let mut tolerance = Tolerance {
            atol: LARGEST * dev,
            rtol: UNIT,
            atol_90_percent: (elements >= MANY && spec.f32_dev.is_some()).then_some(MOST * dev),
        };
        if few {
            let loss = name.ends_with("loss") || name.ends_with("losses");
            let scale = if loss { scale.max(self.logits) } else { scale };
            tolerance.atol = tolerance.atol.max(self.by_depth * scale);
        }
        if name.contains(".grad.") {
            if self.jumps != Jumps::Nowhere {
                tolerance.atol = tolerance.atol.max(JUMP * scale);
                tolerance.atol_90_percent = (tolerance.atol_90_percent)
                    .filter(|_| self.jumps == Jumps::Layers)
                    .map(|_| MOST_BESIDE_JUMPS * dev);
            }
            if dev > LINEAR * scale {
                tolerance.atol = LARGEST * (dev + scale);
                tolerance.atol_90_percent = None;
            }
        }
        if name.ends_with("grad_norms") {
            tolerance.rtol = tolerance.rtol.max(self.gradients);
            if self.jumps == Jumps::Head {
                tolerance.rtol = tolerance.rtol.max(HEAD_JUMP);
            }
            tolerance.atol_90_percent = None;
        }
        if let Some((case, _)) = name.split_once(".adamw.") {
            let options = fixture
                .cases
                .get(case)
                .and_then(|case| case.get("optimizer"));
            let number = |key| options.and_then(|options| options.get(key)?.as_f64());
            if let (Some(lr), Some(steps)) = (number("lr"), number("steps")) {
                tolerance.atol = 2.0 * ADAM * lr * steps;
            }
        }
        tolerance
    }

    /// How far a logit may be from the reference's: the widest tolerance of those that are given.
    pub fn of_logits(&self, fixture: &Fixture) -> f64 {
        let specs = fixture.specs_named(|name| name.contains("logits"));
        specs
            .filter_map(|spec| spec.f32_dev)
            .fold(self.by_depth * self.logits, |widest, dev| {
                widest.max(LARGEST * COARSER * dev)
            })
    }
}
