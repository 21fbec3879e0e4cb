//! T5, layer by layer.
//!
//! One token embedding for both sides; pre-norm blocks with root-mean-square norms and no biases; a learned bias by bucket of
//! relative position, shared by the blocks of a side, instead of positions in the embedding; scores that are not divided by
//! anything; a decoder whose blocks also attend to the encoder's output, without a position bias; a final norm and dropout on each
//! side. Version 1.0 multiplies the decoder's output by `1 / √d_model` and projects it with the embedding; version 1.1 gates the
//! feed-forward layers and has a projection of its own. Where we differ from the published code: batches are packed.

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    AttentionConfig, Biases, BlockConfig, Embedding, FeedForwardConfig, Linear, NormConfig,
    NormKind, NormPlace, PackedBatch, Pass, RelativeBias, Sides, Stack,
};

use super::{OutputScale, T5Config};
use crate::architecture::Network;
use crate::both_sides::SequenceHead;
use crate::head::Head;
use crate::layers::{own_projection, projection};
use crate::side::{Side, Which};

/// Encoder and decoder, with the heads that a task needs; tokens are classified by the encoder alone.
#[derive(Module, Debug)]
pub(super) struct T5 {
    token: Embedding,
    encoder: Side,
    decoder: Option<Side>,
    vocabulary: Option<Linear>,
    sequence: Option<SequenceHead>,
    classifier: Option<Linear>,
    #[module(skip)]
    config: T5Config,
}

/// One side: blocks without biases, a position bias and a final norm.
fn side(config: &T5Config, which: Which) -> Side {
    let sizes = &config.common.sizes;
    let norm = NormConfig {
        kind: NormKind::Rms,
        eps: config.norm_eps,
    };
    let side = Side::new(
        &config.common,
        which,
        |side, mask| AttentionConfig {
            d_head: sizes.d_head,
            scale: 1.0,
            biases: Biases::None,
            dropout: config.dropout,
            ..AttentionConfig::new(sizes.d_model, side.n_heads, mask)
        },
        |side, attention| {
            let feed_forward = FeedForwardConfig {
                kind: config.feed_forward,
                biases: Biases::None,
                dropout: config.dropout,
                ..FeedForwardConfig::new(side.d_ff, config.activation)
            };
            BlockConfig {
                norm,
                dropout: config.dropout,
                ..BlockConfig::new(attention, feed_forward, NormPlace::Pre, config.norm_eps)
            }
        },
    );
    let sides = match which {
        Which::Encoder => Sides::Both,
        Which::Decoder => Sides::Left,
    };
    let (n_buckets, max_distance) = (config.n_buckets, config.max_distance);
    let relative = RelativeBias::new(n_buckets, sizes.n_heads, max_distance, sides);
    side.with_relative(relative).with_norm(sizes.d_model, norm)
}

impl T5 {
    /// A model with weights yet to be filled.
    pub(super) fn new(config: &T5Config, head: Head) -> Self {
        let sizes = &config.common.sizes;
        let (d, n_labels) = (sizes.d_model, config.common.labels.n_labels);
        let encodes = matches!(head, Head::EncoderOnly | Head::TokenClassification);
        Self {
            token: Embedding::new(sizes.vocab_size, d),
            encoder: side(config, Which::Encoder),
            decoder: (!encodes).then(|| side(config, Which::Decoder)),
            vocabulary: own_projection(&config.common, head, false),
            sequence: SequenceHead::of(&config.common, head, config.classifier_dropout),
            classifier: (head == Head::TokenClassification).then(|| Linear::new(d, n_labels, true)),
            config: config.clone(),
        }
    }

    fn dropout(&self, x: Tensor<2>, pass: &Pass) -> Tensor<2> {
        ops::dropout(x, pass.dropout(self.config.dropout))
    }
}

impl Network for T5 {
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let tokens = ops::sum_of_embeddings(vec![self.token.at(&batch.ids)], None);
        self.dropout(tokens, pass)
    }

    fn stack(&self) -> Stack<'_> {
        self.decoder.as_ref().unwrap_or(&self.encoder).stack()
    }

    fn finish(&self, hidden: Tensor<2>, pass: &Pass) -> Tensor<2> {
        let last = self.decoder.as_ref().unwrap_or(&self.encoder);
        self.dropout(last.finish(hidden), pass)
    }

    fn embed_source(&self, source: &PackedBatch, pass: &Pass) -> Option<Tensor<2>> {
        self.decoder.as_ref().map(|_| self.embed(source, pass))
    }

    fn source_stack(&self) -> Option<Stack<'_>> {
        self.decoder.as_ref().map(|_| self.encoder.stack())
    }

    fn finish_source(&self, hidden: Tensor<2>, pass: &Pass) -> Tensor<2> {
        self.dropout(self.encoder.finish(hidden), pass)
    }

    fn both_sides(&self) -> Option<&SequenceHead> {
        self.sequence.as_ref()
    }

    fn token_outputs(&self, hidden: Tensor<2>, pass: &Pass) -> Option<Tensor<2>> {
        let dropped = ops::dropout(hidden, pass.dropout(self.config.classifier_dropout));
        Some(self.classifier.as_ref()?.forward(dropped))
    }

    fn vocabulary_input(&self, rows: Tensor<2>) -> Tensor<2> {
        match self.config.output_scale {
            OutputScale::One => rows,
            OutputScale::ByWidth => {
                rows.mul_scalar((self.config.common.sizes.d_model as f32).sqrt().recip())
            }
        }
    }

    fn projection(&self) -> Option<Projection> {
        Some(projection(&self.vocabulary, &self.token))
    }
}
