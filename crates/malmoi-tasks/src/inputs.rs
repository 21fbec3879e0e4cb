//! Task inputs of the first GPT (Radford et al. 2018, figure 1): structured inputs as one sequence with a start, a delimiter and
//! an extract token, whose last hidden state feeds the classifier.

use serde::{Deserialize, Serialize};

/// Ids of the three added tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskTokens {
    /// First token.
    pub start: u32,
    /// Between two texts.
    pub delimiter: u32,
    /// Last token.
    pub extract: u32,
}

impl TaskTokens {
    /// `start text extract`.
    pub fn single(&self, text: &[u32]) -> Vec<u32> {
        let mut ids = vec![self.start];
        ids.extend(text);
        ids.push(self.extract);
        ids
    }

    /// `start a delimiter b extract`: premise and hypothesis.
    pub fn pair(&self, a: &[u32], b: &[u32]) -> Vec<u32> {
        let mut ids = vec![self.start];
        ids.extend(a);
        ids.push(self.delimiter);
        ids.extend(b);
        ids.push(self.extract);
        ids
    }

    /// Both orders: similarity has no direction.
    pub fn similarity(&self, a: &[u32], b: &[u32]) -> [Vec<u32>; 2] {
        [self.pair(a, b), self.pair(b, a)]
    }

    /// One sequence for each answer.
    pub fn multiple_choice<A: AsRef<[u32]>>(
        &self,
        context: &[u32],
        answers: &[A],
    ) -> Vec<Vec<u32>> {
        answers
            .iter()
            .map(|answer| self.pair(context, answer.as_ref()))
            .collect()
    }
}
