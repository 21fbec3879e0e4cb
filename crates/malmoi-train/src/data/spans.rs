//! Examples of span corruption (Raffel et al. 2020, section 3.1.4).

use std::sync::Arc;

use malmoi_kernels::random::{Key, Purpose};
use malmoi_text::Tokenizer;

use super::order::EpochOrder;
use super::{Draws, Example, Examples, Tokens};
use crate::error::TrainError;
use crate::objectives::span_corruption::{SpanRates, corrupt};

/// Name of a sentinel.
pub fn sentinel(number: usize) -> String {
    format!("<extra_id_{number}>")
}

/// The sentinels of a tokenizer: `<extra_id_0>` has the largest id, and the others follow downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sentinels {
    /// Id of `<extra_id_0>`.
    pub first: u32,
    /// How many there are.
    pub count: usize,
}

impl Sentinels {
    /// Those of a tokenizer.
    ///
    /// # Errors
    /// [`TrainError::NoToken`] without the first.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, TrainError> {
        let first = tokenizer
            .token_to_id(&sentinel(0))
            .ok_or_else(|| TrainError::NoToken { token: sentinel(0) })?;
        let follows = |number: usize| {
            let id = tokenizer.token_to_id(&sentinel(number));
            id.is_some() && id == first.checked_sub(number as u32)
        };
        let count = (0..).take_while(|&number| follows(number)).count();
        Ok(Self { first, count })
    }
}

/// What is corrupted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpanOptions {
    /// Tokens of a corrupted input, the end token included.
    pub max_len: usize,
    /// How much is noise.
    pub rates: SpanRates,
}

/// Cuts the joined documents into blocks of such a length that the corrupted input fills `max_len` tokens, and corrupts them. Every
/// block once an epoch, in random order; what is left over at the end moves the blocks by a few tokens in every epoch.
pub struct SpanData {
    tokens: Arc<dyn Tokens>,
    rates: SpanRates,
    /// Tokens of a block.
    length: u64,
    sentinels: Sentinels,
    end: u32,
    start: u32,
    order: EpochOrder,
}

impl SpanData {
    /// Examples of a tokenised corpus. `name` stands in messages; the decoder begins with `start`.
    ///
    /// # Errors
    /// [`TrainError::Corpus`] for a corpus too short or too few sentinels, [`TrainError::NoToken`], [`TrainError::Objective`].
    pub fn new(
        tokens: Arc<dyn Tokens>,
        tokenizer: &Tokenizer,
        name: &str,
        start: u32,
        options: SpanOptions,
    ) -> Result<Self, TrainError> {
        let SpanOptions { max_len, rates } = options;
        let (length, _) = rates.raw_length(max_len)?;
        let sentinels = Sentinels::of(tokenizer)?;
        let end = tokenizer.special().eos.ok_or_else(|| TrainError::NoToken {
            token: "</s>".into(),
        })?;
        let problem = |problem: String| TrainError::Corpus {
            corpus: name.to_string(),
            problem,
        };
        let spans = rates.counts(length).1;
        if spans > sentinels.count {
            return Err(problem(format!(
                "inputs of {max_len} tokens have {spans} spans, but the tokenizer has {} sentinels ({} and on); \
                 lower objective.max_len, raise objective.mean_span, or take a tokenizer with more of them",
                sentinels.count,
                sentinel(0)
            )));
        }
        let length = (length as u64).min(tokens.n_tokens());
        if length < 2 {
            return Err(problem(format!(
                "{} tokens, expected at least 2: one to hide and one to keep; add text",
                tokens.n_tokens()
            )));
        }
        let blocks = tokens.n_tokens() / length;
        if u32::try_from(blocks).is_err() {
            return Err(problem("more than 2^32 blocks; split the corpus".into()));
        }
        Ok(Self {
            order: EpochOrder::new(blocks as usize),
            tokens,
            rates,
            length,
            sentinels,
            end,
            start,
        })
    }

    fn example(&self, start: u64, key: Key) -> Result<Example, TrainError> {
        let mut ids = Vec::new();
        self.tokens.read(start..start + self.length, &mut ids);
        let noise = self.rates.noise_mask(ids.len(), key);
        let corrupted = corrupt(&ids, &noise, self.sentinels.first, self.end)?;
        Ok(Example {
            positions: (0..corrupted.inputs.len() as u32).collect(),
            ids: corrupted.inputs,
            starts: vec![0],
            decoder: Some([&[self.start], &*corrupted.targets].concat()),
            ..Example::default()
        })
    }
}

impl Examples for SpanData {
    fn per_epoch(&self) -> u64 {
        self.tokens.n_tokens() / self.length
    }

    fn mean_tokens(&self) -> f64 {
        let (tokens, spans) = self.rates.counts(self.length as usize);
        // Input and target together: every token once, and sentinels and an end token in both.
        (self.length as usize - tokens + spans + 1 + tokens + spans + 1) as f64
    }

    fn training(&self, seed: u64, n: u64) -> Result<Example, TrainError> {
        let (epoch, block) = self.order.place(seed, n);
        let draws = Draws::Training(seed);
        let slack = self.tokens.n_tokens() % self.length;
        let offset = draws.key(Purpose::Other(2), epoch).below_at(0, slack + 1);
        let start = offset + block as u64 * self.length;
        self.example(start, draws.key(Purpose::Masking, n))
    }

    fn evaluation(&self, n: u64) -> Result<Example, TrainError> {
        self.example(n * self.length, Draws::Evaluation.key(Purpose::Masking, n))
    }
}
