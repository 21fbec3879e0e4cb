//! ModernBERT, layer by layer.
//!
//! Normed token embeddings; pre-norm blocks with rotary positions and gated feed-forward layers, of which every third (by
//! default) sees the whole sequence and the others a window, each kind with frequencies of its own; no norm before the first
//! attention, whose input is normed already; a final norm. A layer with activation and norm stands before the vocabulary and before
//! every classifier. Where we differ from the published code: batches are packed, and vocabulary logits are computed only for the
//! rows that need them.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use malmoi_nn::layers::parameter;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    Activation, AttentionConfig, Biases, Block, BlockConfig, DropoutPlace, Embedding,
    FeedForwardConfig, FeedForwardKind, Linear, Norm, NormConfig, NormPlace, PackedBatch, Pairs,
    Pass, Positions, Stack,
};

use super::{ModernBertConfig, Pooling};
use crate::architecture::Network;
use crate::head::Head;
use crate::layers::{own_projection, projection};
use crate::reaches::Reach;

/// Token embeddings under a norm.
#[derive(Module, Debug)]
pub struct Embeddings {
    token: Embedding,
    norm: Norm,
}

/// Dense layer, activation and norm before the vocabulary or a classifier.
#[derive(Module, Debug)]
pub struct Prediction {
    dense: Linear,
    norm: Norm,
    #[module(skip)]
    activation: Activation,
}

/// The encoder with the heads that its task needs.
#[derive(Module, Debug)]
pub(super) struct ModernBert {
    embeddings: Embeddings,
    layers: Vec<Block>,
    norm: Norm,
    prediction: Option<Prediction>,
    vocabulary: Option<Linear>,
    vocabulary_bias: Option<Param<Tensor<1>>>,
    classifier: Option<Linear>,
    #[module(skip)]
    config: ModernBertConfig,
}

impl Prediction {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = ops::activation(self.dense.forward(x), self.activation);
        self.norm.forward(x)
    }
}

impl ModernBert {
    /// A model with weights yet to be filled.
    pub(super) fn new(config: &ModernBertConfig, head: Head) -> Self {
        let (sizes, tied) = (&config.common.sizes, config.common.tied);
        let (v, d) = (sizes.vocab_size, sizes.d_model);
        let norm = NormConfig {
            kind: config.norm,
            eps: config.norm_eps,
        };
        // One table of angles for the blocks of a kind.
        let [full, sliding] = [Reach::Everything, Reach::Window]
            .map(|reach| Positions::Rotary(config.rope(reach).rotary(sizes.d_head, Pairs::Halves)));
        let biases = |wanted| if wanted { Biases::All } else { Biases::None };
        let blocks = config
            .reaches
            .layers()
            .iter()
            .enumerate()
            .map(|(layer, reach)| {
                let attention = AttentionConfig {
                    positions: match reach {
                        Reach::Everything => full.clone(),
                        Reach::Window => sliding.clone(),
                    },
                    biases: biases(config.attention_bias),
                    dropout: config.attention_dropout,
                    ..AttentionConfig::new(d, sizes.n_heads, config.mask(*reach))
                };
                let feed_forward = FeedForwardConfig {
                    kind: FeedForwardKind::Gated,
                    biases: biases(config.feed_forward_bias),
                    dropout: config.feed_forward_dropout,
                    ..FeedForwardConfig::new(sizes.d_ff, config.activation)
                };
                let place = match layer {
                    0 => NormPlace::PreAfterNormed,
                    _ => NormPlace::Pre,
                };
                Block::new(&BlockConfig {
                    norm,
                    dropout: config.attention_dropout,
                    dropout_place: DropoutPlace::Attention,
                    ..BlockConfig::new(attention, feed_forward, place, config.norm_eps)
                })
            });
        let n_outputs = match head {
            Head::SequenceClassification | Head::TokenClassification => {
                Some(config.common.labels.n_labels)
            }
            Head::QuestionAnswering => Some(2),
            Head::MultipleChoice => Some(1),
            _ => None,
        };
        let predicts = head == Head::MaskedLm;
        Self {
            embeddings: Embeddings {
                token: Embedding::new(v, d),
                norm: Norm::new(d, norm),
            },
            layers: blocks.collect(),
            norm: Norm::new(d, norm),
            prediction: (head != Head::None).then(|| Prediction {
                dense: Linear::new(d, d, config.head_bias),
                norm: Norm::new(d, norm),
                activation: config.head_activation,
            }),
            vocabulary: own_projection(&config.common, head, config.vocabulary_bias),
            vocabulary_bias: (predicts && tied && config.vocabulary_bias)
                .then(|| parameter([v], 0.0)),
            classifier: n_outputs.map(|n| Linear::new(d, n, true)),
            config: config.clone(),
        }
    }

    /// Classifier logits of states, made ready and with dropout before them.
    fn classify(&self, states: Tensor<2>, pass: &Pass) -> Option<Tensor<2>> {
        let states = self.prediction.as_ref()?.forward(states);
        let dropped = ops::dropout(states, pass.dropout(self.config.classifier_dropout));
        Some(self.classifier.as_ref()?.forward(dropped))
    }
}

impl Network for ModernBert {
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let tokens = vec![self.embeddings.token.at(&batch.ids)];
        let tokens = ops::sum_of_embeddings(tokens, [self.config.common.tokens.pad]);
        let normed = self.embeddings.norm.forward(tokens);
        ops::dropout(normed, pass.dropout(self.config.embedding_dropout))
    }

    fn stack(&self) -> Stack<'_> {
        Stack::new(&self.layers)
    }

    fn finish(&self, hidden: Tensor<2>, _pass: &Pass) -> Tensor<2> {
        self.norm.forward(hidden)
    }

    fn sequence_outputs(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        pass: &Pass,
    ) -> Option<Tensor<2>> {
        let pooled = match self.config.pooling {
            Pooling::First => {
                let first: Arc<[u32]> = batch.cu_seqlens[..batch.n_sequences()].into();
                ops::gather_rows(hidden, first)
            }
            Pooling::Mean => ops::sequence_means(hidden, Arc::clone(&batch.cu_seqlens)),
        };
        self.classify(pooled, pass)
    }

    fn token_outputs(&self, hidden: Tensor<2>, pass: &Pass) -> Option<Tensor<2>> {
        self.classify(hidden, pass)
    }

    fn vocabulary_input(&self, rows: Tensor<2>) -> Tensor<2> {
        match &self.prediction {
            Some(prediction) => prediction.forward(rows),
            None => rows,
        }
    }

    fn projection(&self) -> Option<Projection> {
        let projection = projection(&self.vocabulary, &self.embeddings.token);
        let shared = self.vocabulary_bias.as_ref().map(Param::val);
        Some(Projection {
            bias: projection.bias.or(shared),
            ..projection
        })
    }
}
