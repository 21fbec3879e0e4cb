//! Cases of a task as training examples.

use malmoi_tasks::{Case, Truth};

use crate::data::{EpochOrder, Example, Examples};
use crate::error::TrainError;

/// A case as an example. `start` is the token that a decoder behind an encoder begins with; without one, source and target are a
/// single sequence, of which the target is predicted.
pub fn example(case: &Case, start: Option<u32>) -> Example {
    let input = &case.input;
    let mut example = Example {
        ids: input.ids.clone(),
        starts: vec![0],
        segments: input
            .segments
            .iter()
            .any(|&segment| segment > 0)
            .then(|| input.segments.clone()),
        ..Example::default()
    };
    match &case.truth {
        None => {}
        Some(Truth::Class(class)) => example.class = Some(*class),
        Some(Truth::Value(value)) => example.value = Some(*value as f32),
        Some(Truth::Text(_, target)) if start.is_none() => {
            // The last token of the source predicts the first of the target; the last of the target predicts nothing.
            let first = input.ids.len().saturating_sub(1);
            example.targets = target
                .iter()
                .enumerate()
                .map(|(place, &token)| (first + place, token))
                .collect();
            let seen = target.len().saturating_sub(1);
            example.ids.extend(&target[..seen]);
        }
        Some(Truth::Text(_, target)) => {
            example.decoder = Some(start.iter().chain(target).copied().collect());
        }
    }
    example.positions = (0..example.ids.len() as u32).collect();
    example
}

/// Training examples of a data set: every row once an epoch, in an order drawn for it.
#[derive(Debug)]
pub(super) struct CaseExamples {
    examples: Vec<Example>,
    order: EpochOrder,
}

impl CaseExamples {
    pub(super) fn new(cases: &[Case], start: Option<u32>) -> Self {
        Self {
            examples: cases.iter().map(|case| example(case, start)).collect(),
            order: EpochOrder::new(cases.len()),
        }
    }

    /// Tokens of all examples.
    pub(super) fn tokens(&self) -> u64 {
        let target = |example: &Example| example.decoder.as_ref().map_or(0, Vec::len);
        let lengths =
            (self.examples.iter()).map(|example| (example.ids.len() + target(example)) as u64);
        lengths.sum()
    }
}

impl Examples for CaseExamples {
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

    fn evaluation_count(&self) -> u64 {
        self.per_epoch()
    }

    fn evaluation(&self, n: u64) -> Result<Example, TrainError> {
        Ok(self.examples[n as usize].clone())
    }
}
