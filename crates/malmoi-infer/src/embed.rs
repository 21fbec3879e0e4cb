//! One vector a text: pooled hidden states.

use malmoi_models::{Direction, Model, PackedBatch};

pub use malmoi_models::Pooling;

use crate::InferError;

/// How to embed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmbedOptions {
    /// How the token vectors become one.
    pub pooling: Pooling,
    /// Divide by the L2 norm, so that the dot product of two vectors is their cosine.
    pub normalize: bool,
    /// Tokens of a text, where less than the model and its tokenizer take.
    pub max_len: Option<usize>,
    /// Tokens that go through the model together, at most (a longer text goes alone).
    pub tokens_per_batch: usize,
    /// Which states are pooled: 0 for the embeddings, `n` for the output of block `n`; by default those of the last block.
    pub layer: Option<usize>,
    /// Language of the texts, for models that tell languages apart (XLM).
    pub language: Option<u32>,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        // 2,048 tokens keep the activations of a BERT-base layer (25 MB of d_ff) within a large shared cache.
        Self {
            pooling: Pooling::Mean,
            normalize: true,
            max_len: None,
            tokens_per_batch: 2048,
            layer: None,
            language: None,
        }
    }
}

/// Cuts a list of lengths into runs of at most `budget` tokens (and at least one text).
pub(crate) fn by_budget(
    lengths: impl IntoIterator<Item = usize>,
    budget: usize,
) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut tokens, mut end) = (0, 0, 0);
    for length in lengths {
        if end > start && tokens + length > budget {
            ranges.push(start..end);
            (start, tokens) = (end, 0);
        }
        tokens += length;
        end += 1;
    }
    if end > start {
        ranges.push(start..end);
    }
    ranges
}

/// A vector of `d_model` values for each sequence of ids, in order.
///
/// # Errors
/// [`InferError::Batch`] for empty or too long sequences, ids outside the vocabulary or a language that the model does not have;
/// [`InferError::Setting`] for a layer that it does not have.
pub fn embed<S: AsRef<[u32]>>(
    model: &Model,
    sequences: &[S],
    options: &EmbedOptions,
) -> Result<Vec<Vec<f32>>, InferError> {
    let d = model.config().d_model();
    let mut vectors = Vec::with_capacity(sequences.len());
    for range in by_budget(
        sequences.iter().map(|s| s.as_ref().len()),
        options.tokens_per_batch,
    ) {
        let mut batch = PackedBatch::from_sequences(&sequences[range]);
        if let Some(language) = options.language {
            let languages = vec![language; batch.n_tokens()];
            batch = batch.with_languages(languages);
        }
        let hidden = states(model, &batch, options.layer)?;
        for rows in batch.sequences() {
            let mut vector = options
                .pooling
                .pool(&hidden[rows.start * d..rows.end * d], d);
            if options.normalize {
                normalize(&mut vector);
            }
            vectors.push(vector);
        }
    }
    Ok(vectors)
}

/// The states that are pooled, `[N, D]`: of an encoder-decoder, those of its encoder.
fn states(
    model: &Model,
    batch: &PackedBatch,
    layer: Option<usize>,
) -> Result<Vec<f32>, InferError> {
    let source = model.direction() == Direction::EncoderDecoder;
    let mut all = match (source, layer) {
        (false, None) => return Ok(model.last_hidden(batch)?),
        (false, Some(_)) => model.hidden_states(batch)?,
        (true, _) => model.source_hidden_states(batch)?,
    };
    let layer = layer.unwrap_or(all.len() - 1);
    if layer < all.len() {
        return Ok(all.swap_remove(layer));
    }
    Err(InferError::Setting {
        name: "layer",
        value: layer.to_string(),
        expected: format!("from 0 to the number of blocks, {}", all.len() - 1),
    })
}

/// Divides by the L2 norm; a vector of zeros stays as it is.
pub fn normalize(vector: &mut [f32]) {
    let norm = vector
        .iter()
        .map(|x| f64::from(*x).powi(2))
        .sum::<f64>()
        .sqrt();
    if norm > 0.0 {
        vector
            .iter_mut()
            .for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// Cosine of the angle between two vectors of equal length; 0 when one of them is zero.
///
/// # Panics
/// When the lengths differ.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of equal length");
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_at_most_the_budget_and_a_long_text_goes_alone() {
        assert_eq!(by_budget([3, 3, 3, 9, 1], 6), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(by_budget([6], 6), std::iter::once(0..1).collect::<Vec<_>>());
        assert!(by_budget([], 6).is_empty());
    }

    #[test]
    fn a_normalised_vector_has_length_one_and_zero_stays_zero() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zero = [0.0; 2];
        normalize(&mut zero);
        assert_eq!(zero, [0.0; 2]);
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]) - 0.5f64.sqrt()).abs() < 1e-12);
    }
}
