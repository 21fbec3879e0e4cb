//! BERT, layer by layer.
//!
//! Embeddings are the norm of token + position + segment; the encoder is a stack of post-norm blocks that see both
//! sides; the pooler is a tanh layer on the first token. Where we differ from the published code: batches are packed,
//! and vocabulary logits are computed only for the rows that need them.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use malmoi_nn::layers::parameter;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    Activation, AttentionConfig, Block, BlockConfig, Embedding, LayerNorm, Linear, Mask, NormPlace,
    PackedBatch, Pass,
};

use super::BertConfig;
use crate::head::Head;

/// Token, position and segment embeddings under one norm.
#[derive(Module, Debug)]
pub struct Embeddings {
    token: Embedding,
    position: Embedding,
    segment: Embedding,
    norm: LayerNorm,
}

/// What turns hidden states into the input of the vocabulary projection: dense, activation, norm; and the output bias.
#[derive(Module, Debug)]
pub struct VocabularyHead {
    dense: Linear,
    norm: LayerNorm,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    activation: Activation,
}

/// The encoder with the heads that its task needs.
#[derive(Module, Debug)]
pub struct Bert {
    embeddings: Embeddings,
    layers: Vec<Block>,
    pooler: Option<Linear>,
    vocabulary: Option<VocabularyHead>,
    next_sentence: Option<Linear>,
    classifier: Option<Linear>,
    #[module(skip)]
    config: BertConfig,
}

impl Bert {
    /// A model with weights yet to be filled.
    pub fn new(config: &BertConfig, head: Head) -> Self {
        let d = config.d_model;
        let block = BlockConfig {
            attention: AttentionConfig {
                d_model: d,
                n_heads: config.n_heads,
                n_kv_heads: config.n_heads,
                d_head: d / config.n_heads,
                scale: 1.0 / ((d / config.n_heads) as f32).sqrt(),
                mask: Mask::Full,
                bias: true,
                dropout: config.attention_dropout,
            },
            d_ff: config.d_ff,
            activation: config.activation,
            norm_place: NormPlace::Post,
            norm_eps: config.norm_eps,
            dropout: config.dropout,
        };
        let pooled = matches!(
            head,
            Head::None
                | Head::Pretraining
                | Head::NextSentence
                | Head::SequenceClassification
                | Head::MultipleChoice
        );
        let n_outputs = match head {
            Head::SequenceClassification | Head::TokenClassification => Some(config.n_labels),
            Head::QuestionAnswering => Some(2),
            Head::MultipleChoice => Some(1),
            _ => None,
        };
        Self {
            embeddings: Embeddings {
                token: Embedding::new(config.vocab_size, d),
                position: Embedding::new(config.max_len, d),
                segment: Embedding::new(config.n_segments, d),
                norm: LayerNorm::new(d, config.norm_eps),
            },
            layers: (0..config.n_layers).map(|_| Block::new(&block)).collect(),
            pooler: pooled.then(|| Linear::new(d, d, true)),
            vocabulary: matches!(head, Head::MaskedLm | Head::Pretraining).then(|| {
                VocabularyHead {
                    dense: Linear::new(d, d, true),
                    norm: LayerNorm::new(d, config.norm_eps),
                    bias: parameter([config.vocab_size], 0.0),
                    activation: config.activation,
                }
            }),
            next_sentence: matches!(head, Head::NextSentence | Head::Pretraining)
                .then(|| Linear::new(d, 2, true)),
            classifier: n_outputs.map(|n| Linear::new(d, n, true)),
            config: config.clone(),
        }
    }

    /// The embedding output, `[N, D]`.
    pub fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let segments = batch
            .segments
            .clone()
            .unwrap_or_else(|| vec![0; batch.n_tokens()].into());
        let sum = ops::sum_of_embeddings(
            vec![
                self.embeddings.token.at(&batch.ids),
                self.embeddings.position.at(&batch.positions),
                self.embeddings.segment.at(&segments),
            ],
            Some(self.config.pad_token_id),
        );
        let normed = self.embeddings.norm.forward(sum);
        ops::dropout(normed, pass.dropout(self.config.dropout))
    }

    /// The blocks of the encoder.
    pub fn layers(&self) -> &[Block] {
        &self.layers
    }

    /// The pooled first token of each sequence, `[B, D]`; for models without a pooler, nothing.
    pub fn pool(&self, hidden: Tensor<2>, batch: &PackedBatch) -> Option<Tensor<2>> {
        let first: Arc<[u32]> = batch.cu_seqlens[..batch.n_sequences()].into();
        let pooler = self.pooler.as_ref()?;
        Some(ops::activation(
            pooler.forward(ops::gather_rows(hidden, first)),
            Activation::Tanh,
        ))
    }

    /// Next-sentence logits of pooled states `[B, D]` → `[B, 2]`.
    pub fn next_sentence(&self, pooled: Tensor<2>) -> Option<Tensor<2>> {
        Some(self.next_sentence.as_ref()?.forward(pooled))
    }

    /// Classifier logits of pooled states `[B, D]` or token states `[N, D]`, with dropout before them.
    pub fn classify(&self, states: Tensor<2>, pass: &Pass) -> Option<Tensor<2>> {
        let dropped = ops::dropout(states, pass.dropout(self.config.classifier_dropout));
        Some(self.classifier.as_ref()?.forward(dropped))
    }

    /// Rows `[M, D]` of the last hidden state, made ready for the vocabulary projection.
    pub fn vocabulary_input(&self, rows: Tensor<2>) -> Tensor<2> {
        match &self.vocabulary {
            Some(head) => head
                .norm
                .forward(ops::activation(head.dense.forward(rows), head.activation)),
            None => rows,
        }
    }

    /// The tied projection to the vocabulary, if the model has one.
    pub fn projection(&self) -> Option<Projection> {
        let head = self.vocabulary.as_ref()?;
        Some(Projection {
            weight: self.embeddings.token.weight.val(),
            bias: Some(head.bias.val()),
        })
    }
}
