//! Masked language models: each token of a text is hidden in turn.

use malmoi_models::PackedBatch;

use super::{Pair, Pseudo, ScoreOptions, Sum, cost, target_scores};
use crate::embed::by_budget;
use crate::{InferError, Pipeline};

impl Pipeline {
    /// Pseudo-log-likelihoods of all pairs, in order.
    pub(super) fn masked(
        &self,
        pairs: &[Pair],
        options: &ScoreOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Sum>, InferError> {
        crate::needs_masked_lm(&self.model, "scoring text")?;
        let mask = (self.tokenizer.special().mask).ok_or(InferError::NoSpecialToken {
            work: "scoring text",
            token: "mask",
        })?;
        let mut sums = vec![Sum::default(); pairs.len()];
        // Which text, which of its tokens is predicted, and where the hidden tokens end.
        let mut blanks: Vec<(usize, usize, usize)> = Vec::new();
        for (index, pair) in pairs.iter().enumerate() {
            let ends = match options.pseudo {
                Pseudo::Token => (1..=pair.target.len()).collect(),
                Pseudo::Word => self.word_ends(pair),
            };
            blanks.extend((ends.into_iter().enumerate()).map(|(at, end)| (index, at, end)));
        }
        let (budget, vocab_size) = (options.tokens_per_batch, self.model.config().vocab_size());
        let length = |index: usize| {
            let pair: &Pair = &pairs[index];
            pair.context.len() + pair.target.len() + pair.after.len()
        };
        let costs = (blanks.iter()).map(|blank| cost(length(blank.0), 1, budget, vocab_size));
        for range in by_budget(costs, budget) {
            let (mut sequences, mut rows, mut targets) = (Vec::new(), Vec::new(), Vec::new());
            let mut base = 0;
            for &(index, at, end) in &blanks[range.clone()] {
                let pair = &pairs[index];
                let mut ids = [&pair.context[..], &pair.target, &pair.after].concat();
                let first = pair.context.len();
                ids[first + at..first + end].fill(mask);
                rows.push((base + first + at) as u32);
                targets.push(pair.target[at]);
                base += ids.len();
                sequences.push(ids);
            }
            let logits = (self.model).logits(&PackedBatch::from_sequences(&sequences), &rows)?;
            let scores = target_scores(&logits, &targets)?;
            for (&(index, _, _), score) in blanks[range.clone()].iter().zip(scores) {
                sums[index].add(score);
            }
            progress(blanks[range.end - 1].0);
        }
        progress(pairs.len());
        Ok(sums)
    }

    /// For each token of the target, where its word ends in the target.
    fn word_ends(&self, pair: &Pair) -> Vec<usize> {
        let first = pair.context.len();
        let ids = [&pair.context[..], &pair.target].concat();
        let mut ends: Vec<usize> = (1..=pair.target.len()).collect();
        for word in self.tokenizer.whole_words(&ids) {
            for at in word.start.max(first)..word.end {
                ends[at - first] = word.end - first;
            }
        }
        ends
    }
}
