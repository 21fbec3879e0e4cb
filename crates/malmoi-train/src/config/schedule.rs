//! `[schedule]`: the learning rate over the steps of a run.

use serde::{Deserialize, Serialize};

use super::validate::{at_least_one, not_negative, positive};
use crate::error::ConfigProblem;
use crate::optim::{LearningRate, Schedule};

/// `[schedule]`: the learning rate over the steps of the run, as a share of `optimizer.lr`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSection {
    /// Its shape after the warm-up.
    pub kind: ScheduleKind,
    /// Steps over which the rate rises from 0 to its peak.
    pub warmup_steps: u64,
    /// The same as a share of the run, in place of `warmup_steps`.
    pub warmup_ratio: Option<f64>,
    /// The rate at the end (linear, cosine, polynomial, trapezoid).
    pub min_lr: f64,
    /// Steps of the final descent (trapezoid); by default a fifth of the run.
    pub decay_steps: Option<u64>,
    /// Exponent (polynomial); by default 1.
    pub power: Option<f64>,
    /// Number of cosines (cosine-restarts); by default 1.
    pub cycles: Option<u32>,
    /// Steps after the warm-up at which the rate has fallen to 1/√2 (inverse-square-root); by default the warm-up.
    pub timescale: Option<u64>,
}

impl Default for ScheduleSection {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Linear,
            warmup_steps: 0,
            warmup_ratio: None,
            min_lr: 0.0,
            decay_steps: None,
            power: None,
            cycles: None,
            timescale: None,
        }
    }
}

/// Shapes of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Stays at the peak.
    Constant,
    /// Falls in a line to `min_lr`.
    Linear,
    /// Falls in half a cosine wave to `min_lr`.
    Cosine,
    /// `cycles` half cosines to zero, each from the peak.
    CosineRestarts,
    /// Falls with a power of what is left of the run to `min_lr`.
    Polynomial,
    /// Falls with the inverse root of the step.
    InverseSquareRoot,
    /// The original Transformer's: `d_model^-½ · min(step^-½, step · warmup^-3/2)`, times `optimizer.lr`.
    Noam,
    /// Stays at the peak, then falls in a line to `min_lr` over `decay_steps`.
    Trapezoid,
}

impl ScheduleSection {
    /// Checks the settings beside a peak rate of `lr`.
    pub(crate) fn validate(&self, lr: f64) -> Result<(), ConfigProblem> {
        not_negative("schedule.min_lr", self.min_lr)?;
        if self.min_lr > lr {
            return Err(ConfigProblem::new(
                "schedule.min_lr",
                format!("at most optimizer.lr, {lr}"),
                self.min_lr,
                "lower it",
            ));
        }
        use ScheduleKind as Kind;
        let ends = [
            Kind::Linear,
            Kind::Cosine,
            Kind::Polynomial,
            Kind::Trapezoid,
        ];
        if self.min_lr > 0.0 && !ends.contains(&self.kind) {
            return Err(ConfigProblem::new(
                "schedule.min_lr",
                "0 with this kind of schedule, which has no end value to set",
                self.min_lr,
                "remove it, or take a linear, cosine, polynomial or trapezoid schedule",
            ));
        }
        let own = [
            (
                "decay_steps",
                self.decay_steps.is_some(),
                Kind::Trapezoid,
                "trapezoid",
            ),
            (
                "power",
                self.power.is_some(),
                Kind::Polynomial,
                "polynomial",
            ),
            (
                "cycles",
                self.cycles.is_some(),
                Kind::CosineRestarts,
                "cosine-restarts",
            ),
            (
                "timescale",
                self.timescale.is_some(),
                Kind::InverseSquareRoot,
                "inverse-square-root",
            ),
        ];
        for (key, given, kind, name) in own {
            if given && self.kind != kind {
                return Err(ConfigProblem::new(
                    format!("schedule.{key}"),
                    format!("nothing, except with a {name} schedule"),
                    "a number",
                    format!("remove it, or set schedule.kind = \"{name}\""),
                ));
            }
        }
        if let Some(power) = self.power {
            positive("schedule.power", power)?;
        }
        at_least_one("schedule.cycles", self.cycles.unwrap_or(1).into())?;
        at_least_one("schedule.timescale", self.timescale.unwrap_or(1))?;
        match self.warmup_ratio {
            Some(ratio) if !(0.0..=1.0).contains(&ratio) => Err(ConfigProblem::new(
                "schedule.warmup_ratio",
                "a share from 0 to 1",
                ratio,
                "correct it",
            )),
            Some(_) if self.warmup_steps > 0 => Err(ConfigProblem::new(
                "schedule.warmup_ratio",
                "one of `warmup_ratio` and `warmup_steps`",
                "both",
                "remove one of them",
            )),
            _ => Ok(()),
        }
    }

    /// The learning rate over a run of `steps` steps of a model of width `d_model`, as a share of the peak rate `lr`.
    pub fn over(&self, steps: u64, lr: f64, d_model: usize) -> LearningRate {
        let end = self.min_lr / lr;
        let schedule = match self.kind {
            ScheduleKind::Constant => Schedule::Constant,
            ScheduleKind::Linear => Schedule::Linear { end },
            ScheduleKind::Cosine => Schedule::Cosine { end },
            ScheduleKind::CosineRestarts => Schedule::CosineRestarts {
                cycles: self.cycles.unwrap_or(1),
            },
            ScheduleKind::Polynomial => Schedule::Polynomial {
                power: self.power.unwrap_or(1.0),
                end,
            },
            ScheduleKind::InverseSquareRoot => Schedule::InverseSqrt {
                timescale: self.timescale,
            },
            ScheduleKind::Noam => Schedule::Noam { d_model },
            ScheduleKind::Trapezoid => Schedule::Trapezoid {
                decay: self.decay_steps.unwrap_or(steps / 5),
                end,
            },
        };
        let warmup = match self.warmup_ratio {
            Some(ratio) => (ratio * steps as f64).round() as u64,
            None => self.warmup_steps,
        };
        LearningRate {
            schedule,
            warmup,
            total: steps,
        }
    }
}
