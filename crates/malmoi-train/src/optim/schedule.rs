//! Learning-rate schedules: a factor on the base rate as a pure function of the step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// What happens after the warm-up. `progress` goes from 0 at its end to 1 at the last step.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The base rate throughout.
    #[default]
    Constant,
    /// A line down to `end` (a share of the base rate).
    Linear {
        /// Factor at the last step.
        #[serde(default)]
        end: f64,
    },
    /// Half a cosine down to `end` (Loshchilov and Hutter 2017).
    Cosine {
        /// Factor at the last step.
        #[serde(default)]
        end: f64,
    },
    /// Several half cosines down to zero, each starting from the base rate.
    CosineRestarts {
        /// Number of cosines.
        cycles: u32,
    },
    /// `(1 - progress)^power`, from 1 down to `end`.
    Polynomial {
        /// The exponent.
        power: f64,
        /// Factor at the last step.
        #[serde(default)]
        end: f64,
    },
    /// `1/√t`, scaled to be 1 at the end of the warm-up (Raffel et al. 2020).
    InverseSqrt {
        /// Steps after which the rate has fallen to `1/√2` of the base, counted from the end of the warm-up; the warm-up when not given.
        #[serde(default)]
        timescale: Option<u64>,
    },
    /// Warm-up, constant, and a line down to `end` over the last steps (Zhai et al. 2022; also called warm-up, stable, decay).
    Trapezoid {
        /// Steps of the decay.
        decay: u64,
        /// Factor at the last step.
        #[serde(default)]
        end: f64,
    },
    /// `d_model^-½ · min(s^-½, s · warmup^-3/2)` with s = step + 1 (Vaswani et al. 2017); the base rate multiplies it.
    Noam {
        /// Width of the model.
        d_model: usize,
    },
}

/// A schedule with its warm-up and length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRate {
    /// What happens after the warm-up.
    pub schedule: Schedule,
    /// Steps of the linear warm-up from 0.
    pub warmup: u64,
    /// Number of steps in all.
    pub total: u64,
}

/// Without a warm-up, the inverse square root needs some scale; this is the published one.
const DEFAULT_TIMESCALE: u64 = 10_000;

impl LearningRate {
    /// Factor on the base rate at a step, counted from 0. During the warm-up it is `step / warmup`, so step 0 has the rate 0 when there
    /// is one; a caller that wants no idle first step counts from 1.
    pub fn factor(&self, step: u64) -> f64 {
        if let Schedule::Noam { d_model } = self.schedule {
            let s = (step + 1) as f64;
            let rise = if self.warmup == 0 {
                f64::INFINITY
            } else {
                s * (self.warmup as f64).powf(-1.5)
            };
            return (d_model.max(1) as f64).powf(-0.5) * rise.min(s.powf(-0.5));
        }
        if step < self.warmup {
            return step as f64 / self.warmup as f64;
        }
        let after = (step - self.warmup) as f64;
        let progress = after / self.total.saturating_sub(self.warmup).max(1) as f64;
        let remaining = (1.0 - progress).max(0.0);
        match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear { end } => end + (1.0 - end) * remaining,
            // The cosine goes on past the last step, as the common implementations have it.
            Schedule::Cosine { end } => end + (1.0 - end) * 0.5 * (1.0 + (PI * progress).cos()),
            Schedule::CosineRestarts { .. } if progress >= 1.0 => 0.0,
            Schedule::CosineRestarts { cycles } => {
                0.5 * (1.0 + (PI * (f64::from(cycles) * progress).fract()).cos())
            }
            Schedule::Polynomial { power, end } => end + (1.0 - end) * remaining.powf(power),
            Schedule::InverseSqrt { timescale } => {
                let default = if self.warmup == 0 {
                    DEFAULT_TIMESCALE
                } else {
                    self.warmup
                };
                let timescale = timescale.unwrap_or(default).max(1) as f64;
                (timescale / (timescale + after)).sqrt()
            }
            Schedule::Trapezoid { decay, end } => {
                let left = self.total.saturating_sub(step) as f64;
                let share = if decay == 0 {
                    1.0
                } else {
                    (left / decay as f64).min(1.0)
                };
                end + (1.0 - end) * share
            }
            Schedule::Noam { .. } => unreachable!("returned above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trapezoid_rises_stays_and_falls() {
        let rate = LearningRate {
            schedule: Schedule::Trapezoid {
                decay: 10,
                end: 0.0,
            },
            warmup: 5,
            total: 50,
        };
        let at = |step| rate.factor(step);
        assert_eq!(
            [at(0), at(1), at(5), at(40), at(45), at(50), at(60)],
            [0.0, 0.2, 1.0, 1.0, 0.5, 0.0, 0.0]
        );
    }

    #[test]
    fn every_schedule_is_finite_for_degenerate_lengths() {
        let schedules = [
            Schedule::Constant,
            Schedule::Linear { end: 0.1 },
            Schedule::Cosine { end: 0.1 },
            Schedule::CosineRestarts { cycles: 0 },
            Schedule::Polynomial {
                power: 2.0,
                end: 0.0,
            },
            Schedule::InverseSqrt { timescale: None },
            Schedule::Trapezoid { decay: 0, end: 0.0 },
            Schedule::Noam { d_model: 0 },
        ];
        for schedule in schedules {
            for (warmup, total) in [(0, 0), (0, 1), (1, 1), (5, 3), (0, 10)] {
                for step in 0..12 {
                    let factor = LearningRate {
                        schedule,
                        warmup,
                        total,
                    }
                    .factor(step);
                    assert!(
                        (0.0..=1.0).contains(&factor),
                        "{schedule:?} {warmup} {total} {step}: {factor}"
                    );
                }
            }
        }
    }
}
