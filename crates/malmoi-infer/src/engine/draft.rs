//! Guesses at the next tokens, which the model then checks all at once (Leviathan et al. 2023; prompt look-up: the guess is what
//! followed the same words earlier in the text). With greedy choice the result is the same as without; only the number of
//! passes changes.

use malmoi_models::{KvCache, Model, PackedBatch};

use crate::InferError;
use crate::sampling::argmax;

/// How tokens are guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drafting {
    /// Not at all.
    #[default]
    Off,
    /// What followed the last words where they stood before.
    LookUp {
        /// Guesses at a time.
        tokens: usize,
    },
    /// What the engine's draft model writes; without one, nothing.
    Model {
        /// Guesses at a time.
        tokens: usize,
    },
}

/// Longest repeated end that is looked for.
const LONGEST: usize = 4;

/// Up to `tokens` ids that followed the longest end of `ids` (at most 4 ids) where it occurred last.
pub fn look_up(ids: &[u32], tokens: usize) -> Vec<u32> {
    for length in (1..=LONGEST.min(ids.len().saturating_sub(1))).rev() {
        let (earlier, end) = (&ids[..ids.len() - 1], &ids[ids.len() - length..]);
        if let Some(at) = earlier.windows(length).rposition(|window| window == end) {
            let from = at + length;
            return ids[from..(from + tokens).min(ids.len())].to_vec();
        }
    }
    Vec::new()
}

/// The cache of a draft model for one text.
#[derive(Debug)]
pub(super) struct DraftCache {
    cache: KvCache,
    fed: usize,
}

impl DraftCache {
    pub(super) fn new(draft: &Model) -> Self {
        Self {
            cache: draft.new_cache(1),
            fed: 0,
        }
    }

    /// Up to `tokens` ids that the draft model would write behind `ids`.
    pub(super) fn guess(
        &mut self,
        draft: &Model,
        ids: &[u32],
        tokens: usize,
    ) -> Result<Vec<u32>, InferError> {
        let limit = draft.config().position_limit();
        let tokens = tokens.min(limit.saturating_sub(ids.len()));
        // Guesses of the last time that turned out wrong are forgotten.
        self.cache.truncate(0, self.fed);
        let mut guesses = Vec::with_capacity(tokens);
        let mut new = ids[self.fed..].to_vec();
        for _ in 0..tokens {
            let from = self.cache.lengths()[0] as u32;
            let positions: Vec<u32> = (from..from + new.len() as u32).collect();
            let batch = PackedBatch::from_sequences(&[&new]).with_positions(positions);
            let logits = draft.advance(&batch, &mut self.cache, &[new.len() as u32 - 1])?;
            let Some(best) = argmax(&logits) else { break };
            if guesses.is_empty() {
                self.fed = ids.len();
            }
            guesses.push(best as u32);
            new = vec![best as u32];
        }
        Ok(guesses)
    }
}

#[cfg(test)]
mod tests {
    use super::look_up;

    #[test]
    fn the_longest_and_latest_repetition_is_continued() {
        assert_eq!(look_up(&[1, 2, 3, 4, 1, 2], 2), [3, 4]);
        assert_eq!(look_up(&[1, 2, 3, 1, 2, 5, 1, 2], 3), [5, 1, 2]);
        assert_eq!(look_up(&[7, 7], 4), [7]);
        assert!(look_up(&[1, 2, 3], 4).is_empty() && look_up(&[1], 4).is_empty());
    }
}
