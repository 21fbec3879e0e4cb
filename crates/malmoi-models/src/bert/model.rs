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
    Activation, AttentionConfig, Block, BlockConfig, Embedding, FeedForwardConfig, Linear, Mask,
    Norm, NormPlace, PackedBatch, Pass, Stack,
};

use super::BertConfig;
use crate::architecture::Network;
use crate::head::Head;

/// Token, position and segment embeddings under one norm.
#[derive(Module, Debug)]
pub struct Embeddings {
    token: Embedding,
    position: Embedding,
    segment: Embedding,
    norm: Norm,
}

/// What turns hidden states into the input of the vocabulary projection: dense, activation, norm; and the output bias.
#[derive(Module, Debug)]
pub struct VocabularyHead {
    dense: Linear,
    norm: Norm,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    activation: Activation,
}

/// The encoder with the heads that its task needs.
#[derive(Module, Debug)]
pub(super) struct Bert {
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
    pub(super) fn new(config: &BertConfig, head: Head) -> Self {
        let d = config.d_model;
        let attention = AttentionConfig {
            dropout: config.attention_dropout,
            ..AttentionConfig::new(d, config.n_heads, Mask::Full)
        };
        let feed_forward = FeedForwardConfig::new(config.d_ff, config.activation);
        let block = BlockConfig {
            dropout: config.dropout,
            ..BlockConfig::new(attention, feed_forward, NormPlace::Post, config.norm_eps)
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
                norm: Norm::layer(d, config.norm_eps),
            },
            layers: (0..config.n_layers).map(|_| Block::new(&block)).collect(),
            pooler: pooled.then(|| Linear::new(d, d, true)),
            vocabulary: matches!(head, Head::MaskedLm | Head::Pretraining).then(|| {
                VocabularyHead {
                    dense: Linear::new(d, d, true),
                    norm: Norm::layer(d, config.norm_eps),
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

    /// The pooled first token of each sequence, `[B, D]`; for models without a pooler, nothing.
    fn pool(&self, hidden: Tensor<2>, batch: &PackedBatch) -> Option<Tensor<2>> {
        let first: Arc<[u32]> = batch.cu_seqlens[..batch.n_sequences()].into();
        let pooler = self.pooler.as_ref()?;
        let states = pooler.forward(ops::gather_rows(hidden, first));
        Some(ops::activation(states, Activation::Tanh))
    }

    /// Classifier logits of pooled or token states, with dropout before them.
    fn classify(&self, states: Tensor<2>, pass: &Pass) -> Option<Tensor<2>> {
        let dropped = ops::dropout(states, pass.dropout(self.config.classifier_dropout));
        Some(self.classifier.as_ref()?.forward(dropped))
    }
}

impl Network for Bert {
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
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

    fn stack(&self) -> Stack<'_> {
        Stack::new(&self.layers)
    }

    fn sequence_outputs(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        pass: &Pass,
    ) -> Option<Tensor<2>> {
        self.classify(self.pool(hidden, batch)?, pass)
    }

    fn token_outputs(&self, hidden: Tensor<2>, pass: &Pass) -> Option<Tensor<2>> {
        self.classify(hidden, pass)
    }

    fn next_sentence(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        _pass: &Pass,
    ) -> Option<Tensor<2>> {
        let pooled = self.pool(hidden, batch)?;
        Some(self.next_sentence.as_ref()?.forward(pooled))
    }

    fn vocabulary_input(&self, rows: Tensor<2>) -> Tensor<2> {
        match &self.vocabulary {
            Some(head) => head
                .norm
                .forward(ops::activation(head.dense.forward(rows), head.activation)),
            None => rows,
        }
    }

    fn projection(&self) -> Option<Projection> {
        let head = self.vocabulary.as_ref()?;
        Some(Projection {
            weight: self.embeddings.token.weight.val(),
            bias: Some(head.bias.val()),
        })
    }
}
