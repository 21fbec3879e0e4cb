//! A phase of a model against the machine's roofs: predicted, measured, and what would help.

use malmoi_kernels::probe::Arithmetic;
use malmoi_models::ModelConfig;
use serde::Serialize;

use crate::cost::{CostError, Phase, Widths, Work, count};
use crate::machine::Machine;
use crate::predict::{Bound, Prediction, predict};

/// One phase of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Name of the model.
    pub model: String,
    /// The work.
    pub work: Work,
    /// Arithmetic of its products.
    pub precision: &'static str,
    /// Operations in matrix products.
    pub flops: u64,
    /// Operations outside of them.
    pub vector_flops: u64,
    /// Bytes read and written, wherever they lie.
    pub bytes: u64,
    /// Bytes from the memory behind the caches.
    pub memory_bytes: u64,
    /// Operations in products for each of those bytes.
    pub intensity: f64,
    /// Least seconds.
    pub predicted_s: f64,
    /// What it waits for.
    pub bound: Bound,
    /// Median seconds, when it was run.
    pub measured_s: Option<f64>,
    /// Predicted over measured seconds.
    pub share: Option<f64>,
    /// What would make it faster, and how much at most.
    pub advice: Vec<Advice>,
    /// The least time of every operation.
    pub ops: Vec<crate::predict::OpTime>,
}

/// A change and the most that it can gain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// The change, such as `int8 weights`.
    pub change: String,
    /// How many times faster at most.
    pub factor: f64,
}

impl Entry {
    /// Counts and predicts a phase.
    ///
    /// # Errors
    /// See [`count`].
    pub fn new(
        name: &str,
        config: &ModelConfig,
        work: &Work,
        arithmetic: Arithmetic,
        machine: &Machine,
    ) -> Result<Self, CostError> {
        let cost = count(config, work, Widths::of_phase(work.phase, arithmetic))?;
        let prediction = predict(&cost, machine, arithmetic);
        let advice = advice(config, work, arithmetic, machine, &prediction)?;
        Ok(Self {
            model: name.to_owned(),
            work: *work,
            precision: arithmetic.name(),
            flops: cost.flops(),
            vector_flops: cost.vector_flops(),
            bytes: cost.bytes(),
            memory_bytes: prediction.memory_bytes,
            intensity: prediction.intensity,
            predicted_s: prediction.seconds,
            bound: prediction.bound,
            measured_s: None,
            share: None,
            advice,
            ops: prediction.ops,
        })
    }

    /// Adds what was measured.
    pub fn measured(&mut self, seconds: f64) {
        self.measured_s = Some(seconds);
        self.share = Some(self.predicted_s / seconds);
    }

    /// `memory-bound: int8 weights give at most 3.6×, bf16 1.9×`.
    pub fn sentence(&self) -> String {
        let bound = format!("{}-bound", self.bound.name());
        if self.advice.is_empty() {
            return bound;
        }
        let gains = self.advice.iter().enumerate().map(|(i, advice)| {
            let verb = match i {
                0 if advice.change.starts_with("bf16") => "gives at most ",
                0 => "give at most ",
                _ => "",
            };
            format!("{} {verb}{:.1}×", advice.change, advice.factor)
        });
        format!("{bound}: {}", gains.collect::<Vec<_>>().join(", "))
    }
}

/// Sequences that decoding together with others is judged by.
const TOGETHER: usize = 8;

/// Changes that gain at least a tenth.
fn advice(
    config: &ModelConfig,
    work: &Work,
    arithmetic: Arithmetic,
    machine: &Machine,
    now: &Prediction,
) -> Result<Vec<Advice>, CostError> {
    let least = |work: &Work, widths: Widths, arithmetic: Arithmetic| {
        count(config, work, widths).map(|cost| predict(&cost, machine, arithmetic))
    };
    let mut found = Vec::new();
    // Products of 8-bit weights with 16-bit activations are made in bf16; only training needs more than 8 bits.
    let narrower: &[(Arithmetic, Arithmetic, &str)] = &[
        (Arithmetic::Int8, Arithmetic::Bf16, "int8 weights"),
        (Arithmetic::Bf16, Arithmetic::Bf16, "bf16"),
    ];
    for &(stored, computed, change) in narrower {
        let trains = work.phase == Phase::Train && stored == Arithmetic::Int8;
        if trains || stored.bytes() >= arithmetic.bytes() {
            continue;
        }
        let then = least(work, Widths::of_phase(work.phase, stored), computed)?;
        // What no longer comes from memory gains more than its width.
        let cached = match (&now.bound, &then.bound) {
            (Bound::Level(before), Bound::Level(after)) if before != after => {
                format!(" (held by {after})")
            }
            _ => String::new(),
        };
        found.push(Advice {
            change: format!("{change}{cached}"),
            factor: now.seconds / then.seconds,
        });
    }
    if work.phase == Phase::Decode && work.batch < TOGETHER {
        let together = Work {
            batch: TOGETHER,
            ..*work
        };
        let seconds = least(
            &together,
            Widths::of_phase(work.phase, arithmetic),
            arithmetic,
        )?
        .seconds;
        found.push(Advice {
            change: format!("{TOGETHER} sequences at once"),
            factor: now.seconds / work.batch as f64 / (seconds / TOGETHER as f64),
        });
    }
    found.retain(|advice| advice.factor >= 1.1);
    // Weights so narrow that they gain no more than bf16 does are not worth their error.
    let bf16 = found
        .iter()
        .find(|advice| advice.change.starts_with("bf16"));
    if let Some(bf16) = bf16.map(|advice| advice.factor) {
        found.retain(|advice| !advice.change.starts_with("int8") || advice.factor > 1.05 * bf16);
    }
    found.sort_by(|a, b| b.factor.total_cmp(&a.factor));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::machine;

    fn entry(model: &str, phase: Phase, batch: usize) -> Entry {
        let config = ModelConfig::preset(model).expect("a preset");
        Entry::new(
            model,
            &config,
            &Work::new(phase, batch, 128),
            Arithmetic::F32,
            &machine(),
        )
        .expect("fits")
    }

    #[test]
    fn decoding_waits_for_memory_and_gains_by_narrow_weights_and_company() {
        let decode = entry("gpt2", Phase::Decode, 1);
        assert_eq!(decode.bound.name(), "memory");
        let factor = |name: &str| {
            let found = decode.advice.iter().find(|a| a.change.starts_with(name));
            found
                .unwrap_or_else(|| panic!("{:?}", decode.advice))
                .factor
        };
        // Nearly all traffic is weights: 4 bytes become 1 or 2.
        assert!((3.5..=4.0).contains(&factor("int8")), "{}", factor("int8"));
        assert!((1.9..=2.0).contains(&factor("bf16")), "{}", factor("bf16"));
        assert!((6.0..=8.0).contains(&factor("8 sequences")));
        let sentence = decode.sentence();
        assert!(sentence.starts_with("memory-bound: "), "{sentence}");
        assert!(
            sentence.contains("give at most") && sentence.contains(", bf16 2.0×"),
            "{sentence}"
        );
    }

    #[test]
    fn training_in_bf16_reads_its_weights_in_f32() {
        let config = ModelConfig::preset("bert-base").expect("a preset");
        let bytes = |arithmetic| {
            let work = Work::new(Phase::Train, 1, 8);
            let entry = Entry::new("bert-base", &config, &work, arithmetic, &machine());
            entry.expect("fits").bytes
        };
        // A few tokens: nearly all traffic is weights, gradients and moments.
        let ratio = bytes(Arithmetic::Bf16) as f64 / bytes(Arithmetic::F32) as f64;
        assert!((0.99..1.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn encoding_many_waits_for_arithmetic() {
        let encode = entry("bert-base", Phase::Encode, 32);
        assert_eq!(encode.bound, Bound::Compute);
        assert!(encode.intensity > 20.0 * entry("gpt2", Phase::Decode, 1).intensity);
        assert!(!encode.sentence().contains("sequences at once"));
    }

    #[test]
    fn a_measurement_is_compared_with_the_prediction() {
        let mut decode = entry("gpt2", Phase::Decode, 1);
        decode.measured(2.0 * decode.predicted_s);
        assert_eq!(decode.share, Some(0.5));
    }
}
