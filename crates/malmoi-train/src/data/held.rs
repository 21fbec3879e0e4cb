//! Examples that are made beforehand and held in memory.

use super::order::EpochOrder;
use super::subwords::SUBWORDS;
use super::{Draws, Example, Examples, SubwordDropout};
use crate::error::TrainError;

/// Every example once an epoch, in an order drawn for it.
#[derive(Debug)]
pub(crate) struct HeldExamples {
    examples: Vec<Example>,
    order: EpochOrder,
    /// How tokens are taken apart, and how many a sequence may have.
    subwords: Option<(SubwordDropout, usize)>,
}

impl HeldExamples {
    /// Holds `examples`.
    pub(crate) fn new(examples: Vec<Example>) -> Self {
        Self {
            order: EpochOrder::new(examples.len()),
            examples,
            subwords: None,
        }
    }

    /// The same examples; with `subwords`, their tokens are taken apart while they are learned from, to at most `max_len` a sequence.
    pub(crate) fn with_subwords(self, subwords: Option<SubwordDropout>, max_len: usize) -> Self {
        Self {
            subwords: subwords.map(|subwords| (subwords, max_len)),
            ..self
        }
    }

    /// Tokens of all examples, those of decoders among them.
    pub(crate) fn tokens(&self) -> u64 {
        let target = |example: &Example| example.decoder.as_ref().map_or(0, Vec::len);
        let lengths =
            (self.examples.iter()).map(|example| (example.ids.len() + target(example)) as u64);
        lengths.sum()
    }
}

impl Examples for HeldExamples {
    fn per_epoch(&self) -> u64 {
        self.examples.len() as u64
    }

    fn mean_tokens(&self) -> f64 {
        self.tokens() as f64 / self.examples.len() as f64
    }

    fn training(&self, seed: u64, n: u64) -> Result<Example, TrainError> {
        let (_, place) = self.order.place(seed, n);
        let example = &self.examples[place];
        Ok(match &self.subwords {
            None => example.clone(),
            Some((subwords, max_len)) => {
                subwords.example(example, *max_len, Draws::Training(seed).key(SUBWORDS, n))
            }
        })
    }

    fn evaluation(&self, n: u64) -> Result<Example, TrainError> {
        Ok(self.examples[n as usize].clone())
    }
}
