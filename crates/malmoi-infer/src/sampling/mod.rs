//! From one row of logits to the next token: penalties, cut-offs, and a draw.
//!
//! The draw is a function of the key, the row and the position, so the same seed gives the same text whatever else is
//! generated at the same time.

mod filters;
mod row;
#[cfg(test)]
mod tests;

pub use filters::{Filter, History};
pub use row::{Row, sample, softmax};

use malmoi_kernels::random::{Key, Purpose};
use serde::{Deserialize, Serialize};

/// Why no token can be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A setting is outside its range.
    #[error("{name} is {value}: expected {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// The model produced a value that is no number.
    #[error(
        "the model produced {value} as the logit of token {id}: its weights or its input are damaged"
    )]
    NotFinite {
        /// The token.
        id: usize,
        /// The logit.
        value: f32,
    },
    /// The rules removed every token.
    #[error(
        "every token is excluded by the sampling rules: allow repeated n-grams or shorten the list of bad words"
    )]
    NothingLeft,
}

/// How the next token is chosen. Unset rules do not apply; the default is greedy choice.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingSettings {
    /// Draw from the distribution; otherwise take the most probable token.
    pub do_sample: bool,
    /// Factor on the logits of ids already seen, above 0; 1 has no effect.
    pub repetition_penalty: Option<f64>,
    /// Length of the n-grams that must not occur twice.
    pub no_repeat_ngram_size: Option<usize>,
    /// Added to the logits of these ids.
    pub logit_bias: Vec<(u32, f64)>,
    /// Taken from the logit of an id once for every time that it was generated.
    pub frequency_penalty: Option<f64>,
    /// Taken from the logit of every id that was generated.
    pub presence_penalty: Option<f64>,
    /// Sequences of ids that must not be produced.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Tokens to generate before an end token is allowed.
    pub min_new_tokens: Option<usize>,
    /// Divisor of the logits, above 0.
    pub temperature: Option<f64>,
    /// Number of tokens to keep.
    pub top_k: Option<usize>,
    /// Probability mass to keep, in (0, 1].
    pub top_p: Option<f64>,
    /// Fraction of the largest probability that a token needs, in [0, 1].
    pub min_p: Option<f64>,
    /// Mass of the most typical tokens to keep, in (0, 1].
    pub typical_p: Option<f64>,
    /// Probability that a token needs, in [0, 1).
    pub epsilon_cutoff: Option<f64>,
    /// Entropy-dependent cut-off, in [0, 1).
    pub eta_cutoff: Option<f64>,
}

fn check(
    name: &'static str,
    value: Option<f64>,
    valid: impl Fn(f64) -> bool,
    expected: &'static str,
) -> Result<(), SamplingError> {
    match value {
        Some(value) if !valid(value) => Err(SamplingError::Setting {
            name,
            value: value.to_string(),
            expected,
        }),
        _ => Ok(()),
    }
}

impl SamplingSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`SamplingError::Setting`] names the first setting that is out of range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let share = |x: f64| x > 0.0 && x <= 1.0;
        check(
            "repetition_penalty",
            self.repetition_penalty,
            positive,
            "a number above 0",
        )?;
        check(
            "temperature",
            self.temperature,
            positive,
            "a number above 0 (greedy choice: leave sampling off)",
        )?;
        check("top_p", self.top_p, share, "a number above 0, at most 1")?;
        check(
            "min_p",
            self.min_p,
            |x| (0.0..=1.0).contains(&x),
            "a number from 0 to 1",
        )?;
        check(
            "typical_p",
            self.typical_p,
            share,
            "a number above 0, at most 1",
        )?;
        check(
            "epsilon_cutoff",
            self.epsilon_cutoff,
            |x| (0.0..1.0).contains(&x),
            "a number from 0, below 1",
        )?;
        check(
            "eta_cutoff",
            self.eta_cutoff,
            |x| (0.0..1.0).contains(&x),
            "a number from 0, below 1",
        )?;
        for (name, value) in [
            ("frequency_penalty", self.frequency_penalty),
            ("presence_penalty", self.presence_penalty),
        ] {
            check(name, value, |x| x.abs() <= 2.0, "a number from -2 to 2")?;
        }
        if let Some((_, bias)) = self.logit_bias.iter().find(|(_, bias)| bias.is_nan()) {
            return Err(SamplingError::Setting {
                name: "logit_bias",
                value: bias.to_string(),
                expected: "numbers",
            });
        }
        let at_least_one = |x: f64| x >= 1.0;
        check(
            "top_k",
            self.top_k.map(|k| k as f64),
            at_least_one,
            "1 or more",
        )?;
        check(
            "no_repeat_ngram_size",
            self.no_repeat_ngram_size.map(|n| n as f64),
            at_least_one,
            "1 or more",
        )?;
        if self.bad_words_ids.iter().any(Vec::is_empty) {
            return Err(SamplingError::Setting {
                name: "bad_words_ids",
                value: "an empty sequence".into(),
                expected: "sequences of at least one id",
            });
        }
        Ok(())
    }

    /// The rules that hold for every way of choosing (greedy, beams, sampling), in their order: bias, repetition penalty,
    /// penalties on what was generated, n-gram blocking, bad words, minimum of new tokens.
    pub fn constraints(&self, end_ids: &[u32]) -> Vec<Filter> {
        let mut filters = Vec::new();
        if !self.logit_bias.is_empty() {
            filters.push(Filter::LogitBias(self.logit_bias.clone()));
        }
        filters.extend(self.repetition_penalty.map(Filter::RepetitionPenalty));
        let (frequency, presence) = (self.frequency_penalty, self.presence_penalty);
        if frequency.is_some() || presence.is_some() {
            filters.push(Filter::GeneratedPenalty {
                frequency: frequency.unwrap_or(0.0),
                presence: presence.unwrap_or(0.0),
            });
        }
        filters.extend(self.no_repeat_ngram_size.map(Filter::NoRepeatNgram));
        if !self.bad_words_ids.is_empty() {
            filters.push(Filter::BadWords(self.bad_words_ids.clone()));
        }
        filters.extend(self.min_new_tokens.map(|count| Filter::MinNewTokens {
            count,
            end_ids: end_ids.to_vec(),
        }));
        filters
    }

    /// The rules that shape the distribution to draw from, in their order: temperature, top-k, top-p, min-p, typical, cut-offs.
    pub fn shaping(&self) -> Vec<Filter> {
        let mut filters = Vec::new();
        filters.extend(self.temperature.map(Filter::Temperature));
        filters.extend(self.top_k.map(Filter::TopK));
        filters.extend(self.top_p.map(Filter::TopP));
        filters.extend(self.min_p.map(Filter::MinP));
        filters.extend(self.typical_p.map(Filter::TypicalP));
        filters.extend(self.epsilon_cutoff.map(Filter::EpsilonCutoff));
        filters.extend(self.eta_cutoff.map(Filter::EtaCutoff));
        filters
    }
}

/// One row of logits (`[V]`) after rules, in order.
///
/// # Errors
/// [`SamplingError::NotFinite`] for a NaN or plus infinity (minus infinity is a token the model itself excludes).
pub fn filtered(
    logits: &[f32],
    filters: &[Filter],
    history: &History<'_>,
) -> Result<Row, SamplingError> {
    filtered_in(Vec::new(), logits, filters, history)
}

/// [`filtered`] in memory that was used before.
fn filtered_in(
    mut memory: Vec<f64>,
    logits: &[f32],
    filters: &[Filter],
    history: &History<'_>,
) -> Result<Row, SamplingError> {
    check_finite(logits)?;
    memory.clear();
    memory.extend(logits.iter().map(|&x| f64::from(x)));
    let mut row = Row::new(memory);
    filters
        .iter()
        .for_each(|filter| filter.apply(&mut row, history));
    Ok(row)
}

/// Refuses a NaN and plus infinity.
fn check_finite(logits: &[f32]) -> Result<(), SamplingError> {
    // All of them without an early end, which the compiler turns into vectors; then, if need be, which one it is.
    let finite = |x: f32| x < f32::INFINITY;
    if logits.iter().fold(true, |all, &x| all & finite(x)) {
        return Ok(());
    }
    match logits.iter().enumerate().find(|(_, x)| !finite(**x)) {
        Some((id, &value)) => Err(SamplingError::NotFinite { id, value }),
        None => Ok(()),
    }
}

/// The index of the largest value, the first of several; `None` when all are minus infinity or there is none. NaN is no value.
pub fn argmax<T: PartialOrd + Copy + From<f32>>(row: &[T]) -> Option<usize> {
    let largest = row::largest(row);
    if largest > T::from(f32::NEG_INFINITY) {
        row.iter().position(|&x| x == largest)
    } else {
        None
    }
}

/// Chooses tokens.
#[derive(Debug, Clone)]
pub struct Sampler {
    do_sample: bool,
    filters: Vec<Filter>,
    key: Key,
    /// Kept from row to row: the operating system takes as long to hand out new memory as the rules take to fill it.
    memory: Vec<f64>,
}

impl Sampler {
    /// A sampler with these settings; `end_ids` are the tokens that `min_new_tokens` holds back.
    ///
    /// # Errors
    /// [`SamplingError::Setting`] when a setting is out of range.
    pub fn new(
        settings: &SamplingSettings,
        end_ids: &[u32],
        seed: u64,
    ) -> Result<Self, SamplingError> {
        settings.validate()?;
        let mut filters = settings.constraints(end_ids);
        if settings.do_sample {
            filters.extend(settings.shaping());
        }
        Ok(Self {
            do_sample: settings.do_sample,
            filters,
            key: Key::new(seed, Purpose::Sampling, 0),
            memory: Vec::new(),
        })
    }

    /// The next token of row `row` of a batch, from its logits (`[V]`) and its history. The same arguments give the same token.
    ///
    /// # Errors
    /// [`SamplingError::NotFinite`] or [`SamplingError::NothingLeft`].
    pub fn choose(
        &mut self,
        logits: &[f32],
        history: &History<'_>,
        row: u64,
    ) -> Result<u32, SamplingError> {
        if !self.do_sample && self.filters.is_empty() {
            check_finite(logits)?;
            let id = argmax(logits).ok_or(SamplingError::NothingLeft)?;
            return Ok(id as u32);
        }
        let memory = std::mem::take(&mut self.memory);
        let mut left = filtered_in(memory, logits, &self.filters, history)?;
        let choice = if self.do_sample {
            let key = self.key.fold(row);
            left.sample(key.uniform_f64_at(history.new_tokens() as u64))
        } else {
            argmax(left.logits()).map(|place| left.id(place))
        };
        self.memory = left.into_memory();
        choice.ok_or(SamplingError::NothingLeft)
    }
}
