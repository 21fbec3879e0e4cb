//! Examples that are made beforehand and held in memory.

use super::order::EpochOrder;
use super::{Example, Examples};
use crate::error::TrainError;

/// Every example once an epoch, in an order drawn for it.
#[derive(Debug)]
pub(crate) struct HeldExamples {
    examples: Vec<Example>,
    order: EpochOrder,
}

impl HeldExamples {
    /// Holds `examples`.
    pub(crate) fn new(examples: Vec<Example>) -> Self {
        Self {
            order: EpochOrder::new(examples.len()),
            examples,
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
        Ok(self.examples[place].clone())
    }

    fn evaluation(&self, n: u64) -> Result<Example, TrainError> {
        Ok(self.examples[n as usize].clone())
    }
}
