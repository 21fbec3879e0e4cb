//! The Transformer block, whose axes are enums: one block for encoders and decoders of every family.

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_kernels::activation::Activation;

use crate::attention::{AttentionConfig, MultiHeadAttention, SequenceCache};
use crate::batch::PackedBatch;
use crate::layers::{LayerNorm, Linear};
use crate::ops;
use crate::pass::Pass;

/// Where the norms of a block stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlace {
    /// `norm(x + f(x))`: Vaswani et al. (2017), GPT-1, BERT.
    Post,
    /// `x + f(norm(x))`: GPT-2 and later.
    Pre,
}

/// Everything that tells one block from another.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockConfig {
    /// The attention layer.
    pub attention: AttentionConfig,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Its activation.
    pub activation: Activation,
    /// Where the norms stand.
    pub norm_place: NormPlace,
    /// Added to the variance in the norms.
    pub norm_eps: f32,
    /// Dropout on the output of attention and feed-forward, before the residual sum.
    pub dropout: f32,
}

/// `down(activation(up(x)))`.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `[d_ff, d_model]`.
    pub up: Linear,
    /// `[d_model, d_ff]`.
    pub down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl FeedForward {
    /// A layer with weights yet to be filled.
    pub fn new(d_model: usize, d_ff: usize, activation: Activation) -> Self {
        Self {
            up: Linear::new(d_model, d_ff, true),
            down: Linear::new(d_ff, d_model, true),
            activation,
        }
    }

    /// `x [N, d_model]` → `[N, d_model]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.down
            .forward(ops::activation(self.up.forward(x), self.activation))
    }
}

/// Attention and feed-forward, each with a residual connection and a norm.
#[derive(Module, Debug)]
pub struct Block {
    /// Self-attention.
    pub attention: MultiHeadAttention,
    /// The norm that belongs to the attention.
    pub attention_norm: LayerNorm,
    /// Position-wise feed-forward.
    pub feed_forward: FeedForward,
    /// The norm that belongs to the feed-forward.
    pub feed_forward_norm: LayerNorm,
    #[module(skip)]
    norm_place: NormPlace,
    #[module(skip)]
    dropout: f32,
}

impl Block {
    /// A block with weights yet to be filled.
    pub fn new(config: &BlockConfig) -> Self {
        let d_model = config.attention.d_model;
        Self {
            attention: MultiHeadAttention::new(config.attention.clone()),
            attention_norm: LayerNorm::new(d_model, config.norm_eps),
            feed_forward: FeedForward::new(d_model, config.d_ff, config.activation),
            feed_forward_norm: LayerNorm::new(d_model, config.norm_eps),
            norm_place: config.norm_place,
            dropout: config.dropout,
        }
    }

    /// `x [N, d_model]`, packed by `batch` → `[N, d_model]`.
    pub fn forward(&self, x: Tensor<2>, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        self.compose(x, pass, |x| self.attention.forward(x, batch, pass))
    }

    /// The same for new tokens behind a cache; see [`MultiHeadAttention::forward_cached`].
    pub fn forward_cached(
        &self,
        x: Tensor<2>,
        batch: &PackedBatch,
        cache: &mut [SequenceCache],
    ) -> Tensor<2> {
        self.compose(x, &Pass::inference(), |x| {
            self.attention.forward_cached(x, batch, cache)
        })
    }

    /// Attention probabilities for the block's input; see [`MultiHeadAttention::probabilities`].
    pub fn attention_probabilities(&self, x: Tensor<2>, batch: &PackedBatch) -> Vec<f32> {
        let x = match self.norm_place {
            NormPlace::Post => x,
            NormPlace::Pre => self.attention_norm.forward(x),
        };
        self.attention.probabilities(x, batch)
    }

    fn compose(
        &self,
        x: Tensor<2>,
        pass: &Pass,
        attend: impl FnOnce(Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        match self.norm_place {
            NormPlace::Post => {
                let h =
                    self.attention_norm
                        .forward_residual(attend(x.clone()), x, self.dropout, pass);
                self.feed_forward_norm.forward_residual(
                    self.feed_forward.forward(h.clone()),
                    h,
                    self.dropout,
                    pass,
                )
            }
            NormPlace::Pre => {
                let attended = attend(self.attention_norm.forward(x.clone()));
                let h = ops::add_dropout(attended, x, pass.dropout(self.dropout));
                let fed = self
                    .feed_forward
                    .forward(self.feed_forward_norm.forward(h.clone()));
                ops::add_dropout(fed, h, pass.dropout(self.dropout))
            }
        }
    }
}
