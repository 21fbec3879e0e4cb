//! How often a masked language model finds the hidden token, next to what guessing gives.

use std::sync::Arc;

use malmoi_kernels::random::{Key, Purpose};
use malmoi_models::{Labels, Model, VocabularyTargets};
use serde::Serialize;

use crate::InferError;
use crate::embed::by_budget;
use crate::fill_mask::{Sequence, packed};

/// Result of hiding tokens and predicting them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MaskedAccuracy {
    /// Hidden tokens.
    pub hidden: usize,
    /// Share that the model's most probable token hits.
    pub accuracy: f64,
    /// Share that always answering with the commonest of the hidden tokens would hit: the best that frequency alone can do here.
    pub most_frequent: f64,
    /// Mean loss a hidden token, in nats.
    pub loss: f64,
}

/// Hides each token that isn't in `special` with probability `rate` (always by `mask_id`, so that the measure does not depend on
/// the training recipe) and asks the model for it.
///
/// # Errors
/// [`InferError::WrongModel`], [`InferError::Batch`], [`InferError::TooShort`] when nothing was hidden.
pub fn masked_accuracy(
    model: &Model,
    sequences: &[Sequence],
    mask_id: u32,
    special: &[u32],
    (rate, seed): (f64, u64),
    tokens_per_batch: usize,
) -> Result<MaskedAccuracy, InferError> {
    crate::needs_masked_lm(model, "masked accuracy")?;
    let key = Key::new(seed, Purpose::Masking, 0);
    let mut counts = vec![0usize; model.config().vocab_size()];
    let (mut hidden, mut correct, mut nats) = (0usize, 0.0, 0.0);
    let mut position = 0u64;
    for range in by_budget(sequences.iter().map(|s| s.ids.len()), tokens_per_batch) {
        let mut sequences = sequences[range].to_vec();
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (row, id) in sequences.iter_mut().flat_map(|s| &mut s.ids).enumerate() {
            position += 1;
            if !special.contains(id) && key.uniform_f64_at(position) < rate {
                rows.push(row as u32);
                targets.push(*id);
                if let Some(count) = counts.get_mut(*id as usize) {
                    *count += 1;
                }
                *id = mask_id;
            }
        }
        if rows.is_empty() {
            continue;
        }
        hidden += rows.len();
        let weights: Arc<[f32]> = vec![1.0; rows.len()].into();
        let targets = VocabularyTargets {
            rows: rows.into(),
            targets: targets.into(),
            weights,
        };
        let report = model.loss(&packed(&sequences), &Labels::Vocabulary(targets))?;
        nats += report.loss;
        correct += report
            .parts
            .iter()
            .filter_map(|part| part.correct)
            .sum::<f64>();
    }
    if hidden == 0 {
        return Err(InferError::TooShort {
            found: position as usize,
            expected: 10,
        });
    }
    let commonest = counts.into_iter().max().unwrap_or(0);
    let share = |count: f64| count / hidden as f64;
    Ok(MaskedAccuracy {
        hidden,
        accuracy: share(correct),
        most_frequent: share(commonest as f64),
        loss: share(nats),
    })
}
