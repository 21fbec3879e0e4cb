//! Token, position, segment and language vectors under one norm.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops;
use malmoi_nn::{Embedding, Linear, Norm, PackedBatch, Pass};

use super::{EncoderConfig, Positions, Segments};

/// `dropout(norm(token + position + segment + language))`; a family has the tables that its axes name.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// `[V, E]`.
    pub token: Embedding,
    /// `[positions, E]`.
    pub position: Embedding,
    /// `[segments, E]`, where segments have vectors of their own.
    pub segment: Option<Embedding>,
    /// `[languages, E]`.
    pub language: Option<Embedding>,
    /// The norm over the sum.
    pub norm: Norm,
    #[module(skip)]
    positions: Positions,
    #[module(skip)]
    segments: Segments,
    #[module(skip)]
    pad_token_id: Option<u32>,
    #[module(skip)]
    dropout: f32,
}

impl Embeddings {
    /// Tables with values yet to be filled.
    pub fn new(config: &EncoderConfig) -> Self {
        let d = config.d_embedding;
        Self {
            token: Embedding::new(config.common.sizes.vocab_size, d),
            position: Embedding::new(config.n_position_rows(), d),
            segment: match config.segments {
                Segments::Table(n) => Some(Embedding::new(n, d)),
                Segments::None | Segments::Tokens => None,
            },
            language: (config.n_languages > 0).then(|| Embedding::new(config.n_languages, d)),
            norm: Norm::layer(d, config.norm_eps),
            positions: config.positions,
            segments: config.segments,
            pad_token_id: config.pad_token_id(),
            dropout: config.dropout,
        }
    }

    /// The vectors of a batch, `[N, E]`. The padding token's own vectors get no gradient, as published.
    pub fn forward(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let rows = self.position_rows(batch);
        let pad = self.pad_token_id;
        let padded = self.positions == Positions::LearnedAfterPadding;
        let mut tables = vec![self.token.at(&batch.ids), self.position.at(&rows)];
        let mut frozen = vec![pad, pad.filter(|_| padded)];
        match (self.segments, &self.segment, &batch.segments) {
            (_, Some(table), segments) => {
                let zeros = || vec![0; batch.n_tokens()].into();
                tables.push(table.at(&segments.clone().unwrap_or_else(zeros)));
                frozen.push(None);
            }
            (Segments::Tokens, None, Some(segments)) => {
                tables.push(self.token.at(segments));
                frozen.push(pad);
            }
            _ => {}
        }
        if let (Some(table), Some(languages)) = (&self.language, &batch.languages) {
            tables.push(table.at(languages));
        }
        let sum = self.norm.forward(ops::sum_of_embeddings(tables, frozen));
        ops::dropout(sum, pass.dropout(self.dropout))
    }

    /// The vectors of a batch as the first block wants them: through `projection` where there is one.
    pub fn projected(
        &self,
        projection: Option<&Linear>,
        batch: &PackedBatch,
        pass: &Pass,
    ) -> Tensor<2> {
        let embedded = self.forward(batch, pass);
        match projection {
            Some(projection) => projection.forward(embedded),
            None => embedded,
        }
    }

    /// Row of the position table for each token. Where the table starts after the padding token, padding sits at its own row
    /// and does not count as a position of its sequence.
    fn position_rows(&self, batch: &PackedBatch) -> Arc<[u32]> {
        if self.positions != Positions::LearnedAfterPadding {
            return Arc::clone(&batch.positions);
        }
        let pad = self.pad_token_id.unwrap_or(0);
        let mut rows = Vec::with_capacity(batch.n_tokens());
        for sequence in batch.sequences() {
            let mut padding = 0;
            for row in sequence {
                if batch.ids[row] == pad {
                    padding += 1;
                    rows.push(pad);
                } else {
                    rows.push(pad + 1 + batch.positions[row].saturating_sub(padding));
                }
            }
        }
        rows.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::ModelConfig;

    #[test]
    fn positions_of_roberta_count_behind_the_padding_row_and_skip_padding() {
        let json = json!({"model_type": "roberta", "vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 0,
                          "num_attention_heads": 2, "intermediate_size": 4, "max_position_embeddings": 12, "pad_token_id": 3});
        let Ok(ModelConfig::Encoder(config)) = ModelConfig::from_json(&json, false) else {
            panic!("an encoder");
        };
        assert_eq!(
            (config.common.sizes.max_len, config.n_position_rows()),
            (8, 12)
        );
        let embeddings = Embeddings::new(&config);
        let batch = PackedBatch::from_sequences(&[vec![5, 3, 6, 3, 3], vec![7, 8]]);
        assert_eq!(*embeddings.position_rows(&batch), [4, 3, 5, 3, 3, 4, 5]);
    }
}
