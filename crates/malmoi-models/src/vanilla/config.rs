//! Configuration of the original Transformer. No published file format exists; the keys are those of the arguments of the
//! well-known PyTorch module, whose weight names the files have too.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::parameters::ParameterInfo;
use malmoi_nn::{Activation, NormPlace};
use serde_json::{Value, json};

use super::{model::Vanilla, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::common::{COMMON_KEYS, Common, CommonKeys, SideSizes, common_field};
use crate::config::{Sizes, SpecialTokens};
use crate::config_keys;
use crate::head::Head;
use crate::names::Rule;
use crate::published::Published;
use crate::side::Which;

/// Published sizes (table 3 of the paper): name, d_model, heads, d_ff, dropout. Both sides have six blocks.
const SIZES: &[(&str, usize, usize, usize, f64)] = &[
    ("transformer-base", 512, 8, 2048, 0.1),
    ("transformer-big", 1024, 16, 4096, 0.3),
];

/// Whether a norm follows the last block of each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalNorm {
    /// One does (the PyTorch module, and every pre-norm stack).
    Normed,
    /// None does (the paper).
    Bare,
}

/// Sizes and rates of an original Transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct VanillaConfig {
    /// What all architectures have. The usual length is what the model is meant for; sinusoids have no limit.
    pub common: Common,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Where the norms stand.
    pub norm_place: NormPlace,
    /// Whether a norm follows the last block of each side.
    pub final_norm: FinalNorm,
    /// Added to the variance in the norms.
    pub norm_eps: f32,
    /// Dropout everywhere.
    pub dropout: f32,
}

const KEYS: CommonKeys = CommonKeys {
    initializer: "initializer_factor",
    initializer_default: 1.0,
    ..COMMON_KEYS
};

impl Architecture for VanillaConfig {
    const MODEL_TYPES: &'static [&'static str] = &["vanilla-transformer"];

    fn presets() -> Vec<(&'static str, Value)> {
        let presets = SIZES.iter().map(|(name, d, heads, d_ff, dropout)| {
            let config = json!({
                // The shared English-German vocabulary has about 37,000 entries (section 5.1).
                "model_type": "vanilla-transformer", "vocab_size": 37000, "d_model": d, "nhead": heads,
                "num_encoder_layers": 6, "num_decoder_layers": 6, "dim_feedforward": d_ff, "dropout": dropout,
                "norm_first": false, "final_norm": false,
            });
            (*name, config)
        });
        presets.collect()
    }

    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let read = ConfigReader::new(config, "vanilla-transformer")?;
        read.refuse_unless("bias", true)?;
        read.refuse_unless("is_encoder_decoder", true)?;
        let keys = ("d_model", "nhead");
        let heads = config_keys::heads(&read, (keys.0, Some(512)), (keys.1, Some(8)), None)?;
        // Sines and cosines come in pairs.
        config_keys::divisible(&read, keys.0, heads.d_model, "elements of a pair", 2)?;
        let sizes = Sizes {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            max_len: config_keys::positive(&read, "max_position_embeddings", Some(512))?,
            n_layers: read.usize_or("num_decoder_layers", 6)?,
            d_ff: config_keys::positive(&read, "dim_feedforward", Some(2048))?,
            ..heads
        };
        let encoder = SideSizes {
            n_layers: read.usize_or("num_encoder_layers", 6)?,
            n_heads: sizes.n_heads,
            d_ff: sizes.d_ff,
        };
        let common = Common::read(&read, sizes, &KEYS)?;
        let pad = common.tokens.pad;
        let this = Self {
            common: common.with_source(&read, encoder, pad)?,
            activation: config_keys::activation(&read, "activation", "relu")?,
            norm_place: if read.bool_or("norm_first", false)? {
                NormPlace::Pre
            } else {
                NormPlace::Post
            },
            final_norm: if read.bool_or("final_norm", true)? {
                FinalNorm::Normed
            } else {
                FinalNorm::Bare
            },
            norm_eps: read.f64_or("layer_norm_eps", 1e-5)? as f32,
            dropout: config_keys::rate(&read, "dropout", 0.1)?,
        };
        read.finish(accept_unknown)?;
        Ok(this)
    }
}

impl Config for VanillaConfig {
    fn published(&self) -> &'static Published {
        &super::PUBLISHED
    }

    common_field!();

    fn to_json(&self) -> Value {
        let sizes = &self.common.sizes;
        let mut json = json!({
            "vocab_size": sizes.vocab_size,
            "d_model": sizes.d_model,
            "nhead": sizes.n_heads,
            "num_encoder_layers": self.common.side(Which::Encoder).n_layers,
            "num_decoder_layers": sizes.n_layers,
            "dim_feedforward": sizes.d_ff,
            "max_position_embeddings": sizes.max_len,
            "activation": config_keys::activation_name(self.activation),
            "norm_first": self.norm_place != NormPlace::Post,
            "final_norm": self.final_norm == FinalNorm::Normed,
            "layer_norm_eps": config_keys::decimal(self.norm_eps),
            "dropout": config_keys::decimal(self.dropout),
        });
        self.common.write(&mut json, &KEYS);
        json
    }

    // Sinusoids have no table that could end.
    fn position_limit(&self) -> usize {
        usize::MAX
    }

    fn set_dropout(&mut self, rate: f32) {
        self.dropout = rate;
    }

    fn set_special_tokens(&mut self, tokens: SpecialTokens) {
        self.common.set_tokens(tokens, tokens.bos.or(tokens.pad));
    }

    // Embeddings keep their variance under the factor √d_model; matrices are drawn with the mean of their two widths (Glorot and
    // Bengio, 2010), as the reference implementation did.
    fn initial_deviation(&self, parameter: &ParameterInfo) -> f32 {
        let variance = match (parameter.name.as_str(), &parameter.shape[..]) {
            ("token.weight", _) => 1.0 / self.common.sizes.d_model as f32,
            (_, [d_out, d_in]) => 2.0 / (d_in + d_out) as f32,
            _ => 1.0,
        };
        self.common.initializer_range * variance.sqrt()
    }

    fn rules(&self, _head: Head) -> Vec<&'static [Rule]> {
        weights::rules()
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(Vanilla::new(self, head))
    }
}
