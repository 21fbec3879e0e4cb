//! The Transformer block, whose axes are enums: one block for encoders and decoders of every family.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_kernels::activation::Activation;

use crate::attention::{AttentionConfig, Biases, Memory, MultiHeadAttention, Surroundings};
use crate::cache::SequenceCache;
use crate::layers::{Linear, Norm, NormConfig, NormKind};
use crate::ops;
use crate::pass::Pass;

/// Where the norms of a block stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlace {
    /// `norm(x + f(x))`: Vaswani et al. (2017), GPT-1, BERT.
    Post,
    /// `x + f(norm(x))`: GPT-2 and later.
    Pre,
    /// The same without a norm before self-attention: a first block whose input is normed already (ModernBERT).
    PreAfterNormed,
}

/// Which parts of a block have dropout on their output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropoutPlace {
    /// All of them.
    Everywhere,
    /// Attention alone (ModernBERT).
    Attention,
    /// The feed-forward layer alone (DistilBERT).
    FeedForward,
}

/// How the feed-forward layer widens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForwardKind {
    /// `down(f(up(x)))` (Vaswani et al., 2017).
    Plain,
    /// `down(f(gate(x)) · up(x))` (Shazeer, 2020).
    Gated,
}

/// Shape and behaviour of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeedForwardConfig {
    /// Width between its dense layers.
    pub d_ff: usize,
    /// Plain or gated.
    pub kind: FeedForwardKind,
    /// The activation.
    pub activation: Activation,
    /// Which of its dense layers have biases.
    pub biases: Biases,
    /// Dropout on what goes into the last dense layer.
    pub dropout: f32,
}

impl FeedForwardConfig {
    /// The feed-forward layer of the original Transformer: plain, with biases, no dropout inside. Change the fields for anything else.
    pub fn new(d_ff: usize, activation: Activation) -> Self {
        Self {
            d_ff,
            kind: FeedForwardKind::Plain,
            activation,
            biases: Biases::All,
            dropout: 0.0,
        }
    }
}

/// Everything that tells one block from another.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockConfig {
    /// Self-attention.
    pub attention: AttentionConfig,
    /// Attention over an encoder's output, for the decoder of a pair.
    pub cross: Option<AttentionConfig>,
    /// Position-wise feed-forward.
    pub feed_forward: FeedForwardConfig,
    /// The norms.
    pub norm: NormConfig,
    /// Where they stand.
    pub norm_place: NormPlace,
    /// Dropout on the output of attention and feed-forward, before the residual sum.
    pub dropout: f32,
    /// Which of them have it.
    pub dropout_place: DropoutPlace,
}

impl BlockConfig {
    /// A block of an encoder, or of a decoder without one, with layer norms; `norm_eps` is added to the variance. No dropout.
    /// Change the fields for anything else.
    pub fn new(
        attention: AttentionConfig,
        feed_forward: FeedForwardConfig,
        norm_place: NormPlace,
        norm_eps: f32,
    ) -> Self {
        Self {
            attention,
            cross: None,
            feed_forward,
            norm: NormConfig {
                kind: NormKind::Layer,
                eps: norm_eps,
            },
            norm_place,
            dropout: 0.0,
            dropout_place: DropoutPlace::Everywhere,
        }
    }
}

/// The position-wise layer: `down(activation(up(x)))`, or with a gate.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `[d_ff, d_model]`, for gated layers.
    pub gate: Option<Linear>,
    /// `[d_ff, d_model]`.
    pub up: Linear,
    /// `[d_model, d_ff]`.
    pub down: Linear,
    #[module(skip)]
    config: FeedForwardConfig,
}

impl FeedForward {
    /// A layer with weights yet to be filled.
    pub fn new(d_model: usize, config: FeedForwardConfig) -> Self {
        let inner = config.biases == Biases::All;
        let outer = config.biases != Biases::None;
        let gated = config.kind == FeedForwardKind::Gated;
        Self {
            gate: gated.then(|| Linear::new(d_model, config.d_ff, inner)),
            up: Linear::new(d_model, config.d_ff, inner),
            down: Linear::new(config.d_ff, d_model, outer),
            config,
        }
    }

    /// Its shape and behaviour.
    pub fn config(&self) -> &FeedForwardConfig {
        &self.config
    }

    /// `x [N, d_model]` → `[N, d_model]`.
    pub fn forward(&self, x: Tensor<2>, pass: &Pass) -> Tensor<2> {
        let FeedForwardConfig {
            activation,
            dropout,
            ..
        } = self.config;
        // Without a rate there is no dropout site: the sites behind it keep their numbers.
        let dropped = if dropout > 0.0 {
            pass.dropout(dropout)
        } else {
            None
        };
        // Dropout in the middle and biases on one side keep the parts apart.
        let whole = self.up.bias.is_some() == self.down.bias.is_some() && dropped.is_none();
        if self.gate.is_none() && whole {
            let (up, down) = (self.up.parameters(), self.down.parameters());
            return ops::feed_forward(x, up, down, activation);
        }
        let wide = match &self.gate {
            Some(gate) => ops::gated(gate.forward(x.clone()), self.up.forward(x), activation),
            None => ops::activation(self.up.forward(x), activation),
        };
        self.down.forward(ops::dropout(wide, dropped))
    }

    fn flops(&self) -> u64 {
        let gate = self.gate.as_ref().map_or(0, Linear::products);
        2 * (gate + self.up.products() + self.down.products())
    }
}

/// Self-attention, for some blocks cross-attention, and feed-forward, each with a residual connection and a norm.
#[derive(Module, Debug)]
pub struct Block {
    /// Self-attention.
    pub attention: MultiHeadAttention,
    /// The norm that belongs to the attention.
    pub attention_norm: Option<Norm>,
    /// Attention over an encoder's output.
    pub cross_attention: Option<MultiHeadAttention>,
    /// The norm that belongs to it.
    pub cross_attention_norm: Option<Norm>,
    /// Position-wise feed-forward.
    pub feed_forward: FeedForward,
    /// The norm that belongs to the feed-forward.
    pub feed_forward_norm: Norm,
    #[module(skip)]
    norm_place: NormPlace,
    #[module(skip)]
    dropout: f32,
    #[module(skip)]
    feed_forward_dropout: f32,
}

impl Block {
    /// A block with weights yet to be filled.
    pub fn new(config: &BlockConfig) -> Self {
        let d_model = config.attention.d_model;
        let norm = || Norm::new(d_model, config.norm);
        let (dropout, feed_forward_dropout) = match config.dropout_place {
            DropoutPlace::Everywhere => (config.dropout, config.dropout),
            DropoutPlace::Attention => (config.dropout, 0.0),
            DropoutPlace::FeedForward => (0.0, config.dropout),
        };
        Self {
            attention: MultiHeadAttention::new(config.attention.clone()),
            attention_norm: (config.norm_place != NormPlace::PreAfterNormed).then(norm),
            cross_attention: config.cross.clone().map(MultiHeadAttention::new),
            cross_attention_norm: config.cross.as_ref().map(|_| norm()),
            feed_forward: FeedForward::new(d_model, config.feed_forward),
            feed_forward_norm: norm(),
            norm_place: config.norm_place,
            dropout,
            feed_forward_dropout,
        }
    }

    /// Where its norms stand.
    pub fn norm_place(&self) -> NormPlace {
        self.norm_place
    }

    /// `x [N, d_model]` → `[N, d_model]`.
    ///
    /// # Panics
    /// When the block has cross-attention and `around` no memory.
    pub fn forward(&self, x: Tensor<2>, around: &Surroundings<'_>) -> Tensor<2> {
        self.compose(
            x,
            around.pass,
            |x| self.attention.forward(x, around),
            |cross, x| cross.forward_cross(x, memory(around), around),
        )
    }

    /// The same for new tokens behind caches; see [`MultiHeadAttention::forward_cached`].
    pub fn forward_cached(
        &self,
        x: Tensor<2>,
        around: &Surroundings<'_>,
        cache: &mut [SequenceCache],
        source: &[Arc<SequenceCache>],
    ) -> Tensor<2> {
        self.compose(
            x,
            around.pass,
            |x| self.attention.forward_cached(x, around, cache),
            |cross, x| cross.forward_cross_cached(x, around, source),
        )
    }

    /// Probabilities of self-attention for the block's input; see [`MultiHeadAttention::probabilities`].
    pub fn attention_probabilities(&self, x: Tensor<2>, around: &Surroundings<'_>) -> Vec<f32> {
        let x = self.before(self.attention_norm.as_ref(), x);
        self.attention.probabilities(x, around)
    }

    /// Probabilities of cross-attention for the block's input, when it has any.
    pub fn cross_attention_probabilities(
        &self,
        x: Tensor<2>,
        around: &Surroundings<'_>,
    ) -> Option<Vec<f32>> {
        let cross = self.cross_attention.as_ref()?;
        let norm = self.attention_norm.as_ref();
        let x = self.sublayer(x, norm, self.dropout, around.pass, |x| {
            self.attention.forward(x, around)
        });
        let x = self.before(self.cross_attention_norm.as_ref(), x);
        Some(cross.cross_probabilities(x, memory(around), around))
    }

    /// Operations of one token in a sequence of `context` tokens (and as many of the source), multiply-adds counted as two.
    pub fn flops(&self, context: usize) -> u64 {
        let cross = self
            .cross_attention
            .as_ref()
            .map_or(0, |c| c.flops(context));
        self.attention.flops(context) + cross + self.feed_forward.flops()
    }

    fn compose(
        &self,
        x: Tensor<2>,
        pass: &Pass,
        attend: impl FnOnce(Tensor<2>) -> Tensor<2>,
        attend_to_source: impl FnOnce(&MultiHeadAttention, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let norm = self.attention_norm.as_ref();
        let mut x = self.sublayer(x, norm, self.dropout, pass, attend);
        if let Some(cross) = &self.cross_attention {
            let norm = self.cross_attention_norm.as_ref();
            x = self.sublayer(x, norm, self.dropout, pass, |x| attend_to_source(cross, x));
        }
        let norm = Some(&self.feed_forward_norm);
        let dropout = self.feed_forward_dropout;
        self.sublayer(x, norm, dropout, pass, |x| {
            self.feed_forward.forward(x, pass)
        })
    }

    /// One part with its residual connection and its norm.
    fn sublayer(
        &self,
        x: Tensor<2>,
        norm: Option<&Norm>,
        dropout: f32,
        pass: &Pass,
        part: impl FnOnce(Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        match (self.norm_place, norm) {
            (NormPlace::Post, Some(norm)) => {
                norm.forward_residual(part(x.clone()), x, dropout, pass)
            }
            _ => {
                let branch = part(self.before(norm, x.clone()));
                ops::add_dropout(branch, x, pass.dropout(dropout))
            }
        }
    }

    /// What goes into a part.
    fn before(&self, norm: Option<&Norm>, x: Tensor<2>) -> Tensor<2> {
        match (self.norm_place, norm) {
            (NormPlace::Pre | NormPlace::PreAfterNormed, Some(norm)) => norm.forward(x),
            _ => x,
        }
    }
}

fn memory<'a>(around: &'a Surroundings<'_>) -> &'a Memory {
    (around.memory.as_ref()).expect("cross-attention is given the source's states")
}

#[cfg(test)]
mod tests {
    use malmoi_kernels::attention::Mask;
    use malmoi_kernels::random::{Key, Purpose};

    use super::*;
    use crate::batch::PackedBatch;
    use crate::host;
    use crate::parameters::{Mode, fill};
    use crate::stack::Stack;

    /// Whether dropout changes what a block computes whose layers other than `part` put out nothing.
    fn is_dropped(part: &str, dropout_place: DropoutPlace) -> bool {
        let attention = AttentionConfig::new(8, 2, Mask::Full);
        let feed_forward = FeedForwardConfig::new(16, Activation::Relu);
        let block = Block::new(&BlockConfig {
            dropout: 0.5,
            dropout_place,
            ..BlockConfig::new(attention, feed_forward, NormPlace::Post, 1e-5)
        });
        let block = fill(block, Mode::Inference, |info| {
            let mut values = vec![1.0; info.len()];
            let writes = info.name.contains("output") || info.name.contains("down");
            if writes && !info.name.starts_with(part) {
                values.fill(0.0);
            } else {
                let key = Key::new(1, Purpose::Initialisation, 0);
                key.fold_name(&info.name).fill_normal(0, &mut values);
            }
            Ok::<_, ()>(values)
        });
        let blocks = [block.expect("filled")];
        let batch = PackedBatch::from_sequences(&[vec![0; 4]]);
        let run = |pass: &Pass| {
            let x = (0..32).map(|i| (i as f32).sin()).collect();
            let x = host::tensor(x, [4, 8]);
            let out = Stack::new(&blocks).forward(x, &batch, None, pass, &mut |_| ());
            host::values(out)
        };
        let key = Key::new(2, Purpose::Dropout, 0);
        run(&Pass::training(key)) != run(&Pass::inference())
    }

    #[test]
    fn dropout_falls_where_its_place_says() {
        for (place, on_attention, on_feed_forward) in [
            (DropoutPlace::Everywhere, true, true),
            (DropoutPlace::Attention, true, false),
            (DropoutPlace::FeedForward, false, true),
        ] {
            assert_eq!(is_dropped("attention", place), on_attention, "{place:?}");
            assert_eq!(
                is_dropped("feed_forward", place),
                on_feed_forward,
                "{place:?}"
            );
        }
    }
}
