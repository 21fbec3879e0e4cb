//! The configuration of any decoder without an encoder.

use malmoi_checkpoint::{ConfigError, ConfigReader, directory};
use malmoi_nn::parameters::ParameterInfo;
use malmoi_nn::{
    Activation, AttentionConfig, BlockConfig, FeedForwardConfig, Mask, NormConfig, NormKind,
    NormPlace, Sharing,
};
use serde_json::Value;

use super::Family;
use super::family::{ALL, ResidualStart};
use crate::architecture::{Architecture, Config, Network};
use crate::common::{Common, common_field};
use crate::config::{Direction, Sizes};
use crate::head::Head;
use crate::names::Rule;
use crate::published::Published;
use crate::reaches::{Reach, Reaches};
use crate::rope_keys::RopeConfig;

/// Sizes, rates and choices of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// The family: published names and composition.
    pub family: &'static Family,
    /// What all architectures have.
    pub common: Common,
    /// What each block sees.
    pub reaches: Reaches,
    /// Tokens that a token of a block with a window sees, its own included.
    pub window: usize,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Added to the variance or the mean square in the norms.
    pub norm_eps: f32,
    /// Dropout after the embeddings.
    pub embedding_dropout: f32,
    /// Dropout on attention probabilities.
    pub attention_dropout: f32,
    /// Dropout after attention and feed-forward.
    pub residual_dropout: f32,
    /// Dropout before the choice head (GPT-1).
    pub classifier_dropout: f32,
    /// Whether scores are divided by `√d_head` (GPT-2 can do without).
    pub scale_by_head: bool,
    /// Whether scores of layer l are further divided by `l + 1` (GPT-2).
    pub scale_by_layer: bool,
    /// Rotary positions (LLaMA); a table of positions where absent.
    pub rope: Option<RopeConfig>,
    /// Whether the projections of attention have biases (LLaMA).
    pub attention_bias: bool,
    /// Whether the feed-forward layer has biases (LLaMA).
    pub feed_forward_bias: bool,
}

impl DecoderConfig {
    /// A configuration without dropout, windows or rotary positions, of GPT-2; the reader of a family sets what
    /// its files say, and the caller the family.
    pub fn plain(common: Common, activation: Activation, norm_eps: f32) -> Self {
        Self {
            family: &crate::gpt2::FAMILY,
            reaches: Reaches::every(1, common.sizes.n_layers),
            common,
            window: usize::MAX,
            activation,
            norm_eps,
            embedding_dropout: 0.0,
            attention_dropout: 0.0,
            residual_dropout: 0.0,
            classifier_dropout: 0.0,
            scale_by_head: true,
            scale_by_layer: false,
            rope: None,
            attention_bias: true,
            feed_forward_bias: true,
        }
    }

    /// Attention of a layer, counted from 0, with biases and positions outside.
    pub fn attention(&self, layer: usize) -> AttentionConfig {
        let sizes = &self.common.sizes;
        let mask = match self.reaches.of(layer) {
            Reach::Everything => Mask::Causal,
            Reach::Window => Mask::Window {
                left: self.window - 1,
                right: 0,
            },
        };
        let by_head = if self.scale_by_head {
            (sizes.d_head as f32).sqrt()
        } else {
            1.0
        };
        let by_layer = if self.scale_by_layer {
            (layer + 1) as f32
        } else {
            1.0
        };
        AttentionConfig {
            n_kv_heads: sizes.n_kv_heads,
            d_head: sizes.d_head,
            scale: 1.0 / (by_head * by_layer),
            dropout: self.attention_dropout,
            ..AttentionConfig::new(sizes.d_model, sizes.n_heads, mask)
        }
    }

    /// The token whose vector is not trained: LLaMA's padding, as published. Other decoders train all of them.
    pub fn frozen_token(&self) -> Option<u32> {
        self.common.tokens.pad.filter(|_| self.rope.is_some())
    }

    /// A layer norm.
    pub fn layer_norm(&self) -> NormConfig {
        NormConfig {
            kind: NormKind::Layer,
            eps: self.norm_eps,
        }
    }

    /// A block with this attention, plain feed-forward layers and layer norms.
    pub fn block(&self, attention: AttentionConfig, place: NormPlace) -> BlockConfig {
        let feed_forward = FeedForwardConfig::new(self.common.sizes.d_ff, self.activation);
        BlockConfig {
            dropout: self.residual_dropout,
            ..BlockConfig::new(attention, feed_forward, place, self.norm_eps)
        }
    }
}

impl Architecture for DecoderConfig {
    const MODEL_TYPES: &'static [&'static str] = &["openai-gpt", "gpt2", "gpt_neo", "llama"];

    fn presets() -> Vec<(&'static str, Value)> {
        ALL.iter().flat_map(|family| family.presets()).collect()
    }

    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let family = Family::named(ALL, directory::model_type(config));
        let read = ConfigReader::new(config, family.published.model_type)?;
        let this = Self {
            family,
            ..(family.read)(&read)?
        };
        let alike = this.reaches.are_alike() && !this.scale_by_layer;
        if let (Sharing::Groups { n_groups, .. }, false) = (this.common.sharing, alike) {
            let expected = "no groups where layers differ by `attention_band`, `attention_types` or `scale_attn_by_inverse_layer_idx`";
            return Err(read.unsupported("num_hidden_groups", &n_groups.into(), expected));
        }
        read.finish(accept_unknown)?;
        Ok(this)
    }
}

impl Config for DecoderConfig {
    fn published(&self) -> &'static Published {
        &self.family.published
    }

    common_field!();

    fn to_json(&self) -> Value {
        (self.family.write)(self)
    }

    fn direction(&self) -> Direction {
        Direction::Decoder
    }

    // Where there is a table of positions, segments are looked up in the token embedding.
    fn sizes(&self) -> Sizes {
        let sizes = self.common.sizes;
        Sizes {
            n_segments: if self.rope.is_some() {
                1
            } else {
                sizes.vocab_size
            },
            ..sizes
        }
    }

    fn set_sizes(&mut self, sizes: &Sizes) {
        self.common.resize(sizes);
        self.reaches = self.reaches.for_layers(sizes.n_layers);
    }

    fn set_dropout(&mut self, rate: f32) {
        self.attention_dropout = rate;
        // LLaMA has no other.
        if self.rope.is_none() {
            (self.embedding_dropout, self.residual_dropout) = (rate, rate);
        }
    }

    fn initial_deviation(&self, parameter: &ParameterInfo) -> f32 {
        let name = &parameter.name;
        let residual = name.ends_with(".attention.output.weight") || name.ends_with(".down.weight");
        let all = self.common.initializer_range;
        match self.family.own {
            ResidualStart::ByDepth if residual => {
                all * (1.0 / ((2 * self.common.sizes.n_layers) as f32).sqrt())
            }
            _ => all,
        }
    }

    fn rules(&self, head: Head) -> Vec<&'static [Rule]> {
        (self.family.rules)(head)
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new((self.family.build)(self, head))
    }
}
