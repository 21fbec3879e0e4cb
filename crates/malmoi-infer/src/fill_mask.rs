//! The most probable tokens at the blanks of a text.

use malmoi_models::{Model, PackedBatch};

use crate::InferError;
use crate::embed::by_budget;

/// A token with its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its probability at the blank, given everything else.
    pub probability: f64,
}

/// A blank of a sequence and what fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Blank {
    /// Index of the blank in its sequence.
    pub position: usize,
    /// Most probable first.
    pub candidates: Vec<Candidate>,
}

/// A sequence of ids with its segments (empty for none).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Segment of each token, or empty.
    pub segments: Vec<u32>,
}

/// Packs sequences; segments are given when every sequence has them.
pub(crate) fn packed(sequences: &[Sequence]) -> PackedBatch {
    let ids: Vec<&[u32]> = sequences.iter().map(|s| s.ids.as_slice()).collect();
    let batch = PackedBatch::from_sequences(&ids);
    if sequences.iter().all(|s| s.segments.len() == s.ids.len()) {
        batch.with_segments(
            sequences
                .iter()
                .flat_map(|s| s.segments.iter().copied())
                .collect::<Vec<_>>(),
        )
    } else {
        batch
    }
}

/// The `k` most probable tokens at every occurrence of `mask_id`, each blank on its own (the others stay blank). Tokens of
/// `excluded` are passed over; probabilities are over the whole vocabulary.
///
/// # Errors
/// [`InferError::WrongModel`] for a model without a masked-language-model head, [`InferError::Batch`].
pub fn fill_blanks(
    model: &Model,
    sequences: &[Sequence],
    mask_id: u32,
    k: usize,
    excluded: &[u32],
    tokens_per_batch: usize,
) -> Result<Vec<Vec<Blank>>, InferError> {
    crate::needs_masked_lm(model, "filling blanks")?;
    let vocab_size = model.config().vocab_size();
    let mut all = Vec::with_capacity(sequences.len());
    for range in by_budget(sequences.iter().map(|s| s.ids.len()), tokens_per_batch) {
        let batch = packed(&sequences[range]);
        let rows: Vec<u32> = (0..batch.n_tokens() as u32)
            .filter(|&row| batch.ids[row as usize] == mask_id)
            .collect();
        let logits = if rows.is_empty() {
            Vec::new()
        } else {
            model.logits(&batch, &rows)?
        };
        let mut found = rows.iter().zip(logits.chunks_exact(vocab_size)).peekable();
        for at in batch.sequences() {
            let mut blanks = Vec::new();
            while let Some((row, logits)) = found.next_if(|(row, _)| at.contains(&(**row as usize)))
            {
                blanks.push(Blank {
                    position: *row as usize - at.start,
                    candidates: top(logits, k, excluded),
                });
            }
            all.push(blanks);
        }
    }
    Ok(all)
}

/// The `k` most probable tokens of a row of logits; of equal ones the lower id first.
pub fn top(logits: &[f32], k: usize, excluded: &[u32]) -> Vec<Candidate> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    let mut ids: Vec<u32> = (0..logits.len() as u32)
        .filter(|id| !excluded.contains(id))
        .collect();
    let order = |a: &u32, b: &u32| {
        logits[*b as usize]
            .total_cmp(&logits[*a as usize])
            .then(a.cmp(b))
    };
    if k < ids.len() {
        ids.select_nth_unstable_by(k, order);
        ids.truncate(k);
    }
    ids.sort_unstable_by(order);
    ids.into_iter()
        .map(|id| Candidate {
            id,
            probability: f64::from(logits[id as usize] - max).exp() / total,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_probable_come_first_with_probabilities_over_everything() {
        let logits = [0.1f32.ln(), 0.4f32.ln(), 0.2f32.ln(), 0.3f32.ln()];
        let top = top(&logits, 2, &[3]);
        assert_eq!(top.iter().map(|c| c.id).collect::<Vec<_>>(), [1, 2]);
        assert!((top[0].probability - 0.4).abs() < 1e-6 && (top[1].probability - 0.2).abs() < 1e-6);
    }
}
