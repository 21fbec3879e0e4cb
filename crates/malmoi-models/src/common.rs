//! What every configuration holds, under whatever keys it is published.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::Sharing;
use serde_json::Value;

use crate::config::{Sizes, SpecialTokens};
use crate::config_keys;
use crate::head::ProblemType;
use crate::side::Which;

/// Which sizes of its heads an architecture leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadSizes {
    /// None: heads divide `d_model` among them, and each has keys of its own.
    Even,
    /// Their width (GPT-3, T5).
    FreeWidth,
    /// Their width, and how many of them share keys (LLaMA).
    Free,
}

/// Whether the width of the feed-forward layers is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForwardSize {
    /// It is.
    Free,
    /// `4 · d_model` (GPT-1, XLM).
    FourTimes,
}

/// Sizes of which an encoder and its decoder may have their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideSizes {
    /// Blocks.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Width of the feed-forward layers.
    pub d_ff: usize,
}

/// An encoder in front of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its sizes.
    pub sizes: SideSizes,
    /// The token that the decoder starts with.
    pub decoder_start_token_id: u32,
}

/// Outputs of a classifier, as configurations describe them.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelSet {
    /// How many.
    pub n_labels: usize,
    /// Their names; empty when the config names none.
    pub labels: Vec<String>,
    /// How they are read; by their number when absent.
    pub problem_type: Option<ProblemType>,
}

/// The part of a configuration that is the same for all architectures.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// The sizes; of the decoder, where there is an encoder in front.
    pub sizes: Sizes,
    /// Which of the sizes of heads are free.
    pub heads: HeadSizes,
    /// Whether the width of the feed-forward layers is.
    pub feed_forward: FeedForwardSize,
    /// The encoder in front, if there is one.
    pub source: Option<Source>,
    /// Which layers share their parameters, in each stack.
    pub sharing: Sharing,
    /// Whether the output projection is the token embedding once more.
    pub tied: bool,
    /// Standard deviation of initial weights, or a factor on deviations that follow from the sizes.
    pub initializer_range: f32,
    /// Padding, start and end of texts.
    pub tokens: SpecialTokens,
    /// Outputs of a classifier.
    pub labels: LabelSet,
}

/// Keys of [`Common`] on which architectures differ.
#[derive(Clone, Copy, Debug)]
pub struct CommonKeys {
    /// The key of [`Common::initializer_range`].
    pub initializer: &'static str,
    /// What its absence means.
    pub initializer_default: f64,
    /// What an absent `tie_word_embeddings` means.
    pub tied: bool,
}

/// Of most architectures.
pub const COMMON_KEYS: CommonKeys = CommonKeys {
    initializer: "initializer_range",
    initializer_default: 0.02,
    tied: true,
};

/// The two methods of [`crate::architecture::Config`] that hand out a configuration's field `common`.
macro_rules! common_field {
    () => {
        fn common(&self) -> &$crate::common::Common {
            &self.common
        }

        fn common_mut(&mut self) -> &mut $crate::common::Common {
            &mut self.common
        }
    };
}

pub(crate) use common_field;

impl Common {
    /// Reads what is common to all; the sizes, whose keys are not, have been read before.
    ///
    /// # Errors
    /// A value of the wrong kind.
    pub fn read(
        read: &ConfigReader<'_>,
        sizes: Sizes,
        keys: &CommonKeys,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            sizes,
            heads: HeadSizes::Even,
            feed_forward: FeedForwardSize::Free,
            source: None,
            sharing: config_keys::sharing(read, sizes.n_layers)?,
            tied: read.bool_or("tie_word_embeddings", keys.tied)?,
            initializer_range: read.f64_or(keys.initializer, keys.initializer_default)? as f32,
            tokens: SpecialTokens {
                pad: config_keys::token(read, "pad_token_id")?,
                bos: config_keys::token(read, "bos_token_id")?,
                eos: config_keys::token(read, "eos_token_id")?,
            },
            labels: config_keys::labels(read)?,
        })
    }

    /// Takes `default` for the padding token where the configuration does not speak of it. Where it says null there is none, and every
    /// token's vector is trained.
    pub(crate) fn pad_with(&mut self, read: &ConfigReader<'_>, default: u32) {
        if !read.is_null("pad_token_id") {
            self.tokens.pad.get_or_insert(default);
        }
    }

    /// Writes what [`Common::read`] reads.
    pub fn write(&self, config: &mut Value, keys: &CommonKeys) {
        config[keys.initializer] = config_keys::decimal(self.initializer_range).into();
        config["tie_word_embeddings"] = self.tied.into();
        config["pad_token_id"] = self.tokens.pad.into();
        config["bos_token_id"] = self.tokens.bos.into();
        config["eos_token_id"] = self.tokens.eos.into();
        if let Some(source) = self.source {
            config["is_encoder_decoder"] = true.into();
            config["decoder_start_token_id"] = source.decoder_start_token_id.into();
        }
        config_keys::write_sharing(config, self.sharing);
        config_keys::write_labels(config, &self.labels);
    }

    /// Puts an encoder in front. The decoder starts with what `decoder_start_token_id` says, else with `start`, else with token 0.
    ///
    /// # Errors
    /// A value of the wrong kind.
    pub(crate) fn with_source(
        mut self,
        read: &ConfigReader<'_>,
        sizes: SideSizes,
        start: Option<u32>,
    ) -> Result<Self, ConfigError> {
        let given = config_keys::token(read, "decoder_start_token_id")?;
        self.source = Some(Source {
            sizes,
            decoder_start_token_id: given.or(start).unwrap_or(0),
        });
        Ok(self)
    }

    /// Takes over the tokens of a tokenizer, and which of them a decoder behind an encoder starts with.
    pub(crate) fn set_tokens(&mut self, tokens: SpecialTokens, start: Option<u32>) {
        self.tokens = tokens;
        if let Some(source) = &mut self.source {
            source.decoder_start_token_id = start.unwrap_or(0);
        }
    }

    /// The sizes of one of the two sides.
    pub(crate) fn side(&self, which: Which) -> SideSizes {
        let own = SideSizes {
            n_layers: self.sizes.n_layers,
            n_heads: self.sizes.n_heads,
            d_ff: self.sizes.d_ff,
        };
        match (which, self.source) {
            (Which::Encoder, Some(source)) => source.sizes,
            _ => own,
        }
    }

    /// Takes over sizes, but for those that follow from others. An encoder in front takes what changes.
    pub fn resize(&mut self, sizes: &Sizes) {
        let old = self.sizes;
        if let Some(source) = &mut self.source {
            let take = |own: &mut usize, before: usize, now: usize| {
                if before != now {
                    *own = now;
                }
            };
            take(&mut source.sizes.n_layers, old.n_layers, sizes.n_layers);
            take(&mut source.sizes.n_heads, old.n_heads, sizes.n_heads);
            take(&mut source.sizes.d_ff, old.d_ff, sizes.d_ff);
        }
        let even = Sizes::of_heads(sizes.d_model, sizes.n_heads);
        let free_width = self.heads != HeadSizes::Even;
        self.sharing = self.sharing.for_layers(sizes.n_layers);
        self.sizes = Sizes {
            n_segments: old.n_segments,
            d_head: if free_width {
                sizes.d_head
            } else {
                even.d_head
            },
            n_kv_heads: match self.heads {
                HeadSizes::Free => sizes.n_kv_heads,
                HeadSizes::Even | HeadSizes::FreeWidth => even.n_kv_heads,
            },
            d_ff: match self.feed_forward {
                FeedForwardSize::Free => sizes.d_ff,
                FeedForwardSize::FourTimes => 4 * sizes.d_model,
            },
            ..*sizes
        };
    }
}
