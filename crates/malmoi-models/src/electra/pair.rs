//! Training by replaced-token detection: generator and discriminator as one model.
//!
//! The generator fills blanks; its samples replace the hidden tokens, and the discriminator says of every token whether it
//! was replaced. Both losses are minimised together, `generator + 50 · discriminator` (Clark et al., 2020, section 3.1); no
//! gradient passes through the sampling. The two share their embeddings (token, position, segment and norm), which
//! belong to the discriminator here: one set of parameters, looked up twice.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{Block, Key, Linear, PackedBatch, Pass, Sharing, Stack, host};

use super::model;
use crate::architecture::Config;
use crate::encoder::{Embeddings, EncoderConfig, VocabularyHead};
use crate::error::ModelError;
use crate::head::Head;
use crate::labels::{ReplacedTokens, VocabularyTargets};

/// Rows whose logits are held at a time while sampling.
const SAMPLED_ROWS: usize = 128;

/// The generator without embeddings of its own.
#[derive(Module, Debug)]
pub struct Generator {
    projection: Option<Linear>,
    layers: Vec<Block>,
    vocabulary: Option<VocabularyHead>,
    #[module(skip)]
    sharing: Sharing,
    #[module(skip)]
    n_layers: usize,
}

impl Generator {
    /// A generator with weights yet to be filled.
    pub fn new(config: &EncoderConfig) -> Self {
        let whole = model::build(config, Head::MaskedLm);
        Self {
            projection: whole.projection,
            layers: whole.layers,
            vocabulary: whole.vocabulary,
            sharing: config.common.sharing,
            n_layers: config.common.sizes.n_layers,
        }
    }

    /// The input of the first block, from the discriminator's embeddings.
    pub fn embed(&self, embeddings: &Embeddings, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        embeddings.projected(self.projection.as_ref(), batch, pass)
    }

    /// The states at the hidden tokens of a batch, ready for the projection that comes with them.
    pub fn forward(
        &self,
        embedded: Tensor<2>,
        embeddings: &Embeddings,
        batch: &PackedBatch,
        targets: &VocabularyTargets,
        pass: &Pass,
    ) -> Option<(Tensor<2>, Projection)> {
        let stack = Stack::shared(&self.layers, self.sharing, self.n_layers);
        let hidden = stack.forward(embedded, batch, None, pass, &mut |_| ());
        let rows = ops::gather_rows(hidden, Arc::clone(&targets.rows));
        let head = self.vocabulary.as_ref()?;
        Some((head.forward(rows), head.projection(embeddings)))
    }
}

/// One token for each row of `states [M, E]`, drawn from the softmax of its logits; the draw of row i depends on `key` and i.
pub(crate) fn sample(states: &Tensor<2>, projection: &Projection, key: Key) -> Vec<u32> {
    // Plain tensors: nothing here is differentiated.
    let states = host::plain(states.clone());
    let weight = host::plain(projection.weight.val());
    let bias = projection.bias.clone().map(host::plain);
    let [m, vocab_size] = [states.dims()[0], weight.dims()[0]];
    let mut tokens = Vec::with_capacity(m);
    for start in (0..m).step_by(SAMPLED_ROWS) {
        let rows = (start..m.min(start + SAMPLED_ROWS)).map(|row| row as u32);
        let rows = ops::gather_rows(states.clone(), rows.collect());
        let logits = host::values(ops::linear(rows, weight.clone(), bias.clone()));
        for logits in logits.chunks_exact(vocab_size) {
            let draw = key.uniform_f64_at(tokens.len() as u64);
            tokens.push(pick(logits, draw));
        }
    }
    tokens
}

/// The first token at which the cumulative softmax exceeds `draw`, uniform in `[0, 1)`.
fn pick(logits: &[f32], draw: f64) -> u32 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: &f32| f64::from(logit - top).exp();
    let mut left = draw * logits.iter().map(weight).sum::<f64>();
    let mut last = 0;
    for (token, logit) in logits.iter().enumerate() {
        let weight = weight(logit);
        if weight > 0.0 {
            last = token as u32;
            if left < weight {
                return last;
            }
        }
        left -= weight;
    }
    // Rounding left a sliver behind the last token that has any probability.
    last
}

/// What the discriminator sees and what it should say of each token.
pub(crate) fn corrupt(
    batch: &PackedBatch,
    labels: &ReplacedTokens,
    sampled: &[u32],
) -> (PackedBatch, Vec<f32>) {
    let mut ids = batch.ids.to_vec();
    let mut replaced = vec![0.0; ids.len()];
    let hidden = labels.vocabulary.rows.iter();
    let originals = labels.vocabulary.targets.iter();
    for ((row, original), token) in hidden.zip(originals).zip(sampled) {
        ids[*row as usize] = *token;
        replaced[*row as usize] = f32::from(token != original);
    }
    let batch = PackedBatch {
        ids: ids.into(),
        ..batch.clone()
    };
    (batch, replaced)
}

/// Refuses a generator whose embeddings cannot be the discriminator's.
pub(crate) fn check_generator(
    discriminator: &EncoderConfig,
    generator: &EncoderConfig,
) -> Result<(), ModelError> {
    let sizes = |config: &EncoderConfig| {
        let sizes = config.sizes();
        [
            ("vocab_size", sizes.vocab_size),
            ("embedding_size", config.d_embedding),
            ("max_position_embeddings", sizes.max_len),
            ("type_vocab_size", sizes.n_segments),
            (
                "pad_token_id",
                config.pad_token_id().map_or(0, |id| id as usize),
            ),
        ]
    };
    let pairs = sizes(discriminator).into_iter().zip(sizes(generator));
    match pairs.into_iter().find(|(ours, theirs)| ours != theirs) {
        Some(((key, expected), (_, found))) => Err(ModelError::GeneratorMismatch {
            key,
            expected,
            found,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn a_draw_picks_by_cumulative_probability() {
        let logits = [0.0, (2.0_f32).ln(), 1.0_f32.ln()];
        // Probabilities 1/4, 1/2, 1/4.
        assert_eq!(pick(&logits, 0.0), 0);
        assert_eq!(pick(&logits, 0.24), 0);
        assert_eq!(pick(&logits, 0.26), 1);
        assert_eq!(pick(&logits, 0.74), 1);
        assert_eq!(pick(&logits, 0.999_999), 2);
        assert_eq!(
            pick(&[5.0, f32::NEG_INFINITY], 0.999_999_999),
            0,
            "a token without probability is never drawn"
        );
    }
}
