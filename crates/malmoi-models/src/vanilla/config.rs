//! Configuration of the original Transformer. No published file format exists; the keys are those of the arguments of the
//! well-known PyTorch module, whose weight names the files have too.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::parameters::ParameterInfo;
use malmoi_nn::{Activation, NormPlace};
use serde_json::{Value, json};

use super::{model::Vanilla, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::config::{Direction, Sizes, SpecialTokens};
use crate::config_keys;
use crate::head::Head;
use crate::names::NameTable;

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
    /// Entries of the vocabulary, which both sides share.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Blocks of the encoder.
    pub n_encoder_layers: usize,
    /// Blocks of the decoder.
    pub n_decoder_layers: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Length that the model is meant for; sinusoids have no limit.
    pub max_len: usize,
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
    /// Whether the output projection is the token embedding once more.
    pub tied: bool,
    /// The padding token.
    pub pad_token_id: Option<u32>,
    /// End-of-text token.
    pub eos_token_id: Option<u32>,
    /// The token that the decoder starts with.
    pub decoder_start_token_id: u32,
    /// Factor on the deviations of initial weights.
    pub initializer_factor: f32,
}

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
        read.refuse_unless("is_encoder_decoder", true)?;
        read.refuse_unless("bias", true)?;
        let d_model = config_keys::positive(&read, "d_model", Some(512))?;
        let n_heads = config_keys::positive(&read, "nhead", Some(8))?;
        config_keys::divisible(&read, "d_model", d_model, "nhead", n_heads)?;
        // Sines and cosines come in pairs.
        config_keys::divisible(&read, "d_model", d_model, "elements of a pair", 2)?;
        let start = config_keys::token(&read, "decoder_start_token_id")?;
        let pad_token_id = config_keys::token(&read, "pad_token_id")?;
        let this = Self {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            d_model,
            n_heads,
            n_encoder_layers: read.usize_or("num_encoder_layers", 6)?,
            n_decoder_layers: read.usize_or("num_decoder_layers", 6)?,
            d_ff: config_keys::positive(&read, "dim_feedforward", Some(2048))?,
            max_len: config_keys::positive(&read, "max_position_embeddings", Some(512))?,
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
            tied: read.bool_or("tie_word_embeddings", true)?,
            pad_token_id,
            eos_token_id: config_keys::token(&read, "eos_token_id")?,
            decoder_start_token_id: start.or(pad_token_id).unwrap_or(0),
            initializer_factor: read.f64_or("initializer_factor", 1.0)? as f32,
        };
        read.finish(accept_unknown)?;
        Ok(this)
    }
}

impl Config for VanillaConfig {
    fn to_json(&self) -> Value {
        json!({
            "model_type": "vanilla-transformer",
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "nhead": self.n_heads,
            "num_encoder_layers": self.n_encoder_layers,
            "num_decoder_layers": self.n_decoder_layers,
            "dim_feedforward": self.d_ff,
            "max_position_embeddings": self.max_len,
            "activation": config_keys::activation_name(self.activation),
            "norm_first": self.norm_place != NormPlace::Post,
            "final_norm": self.final_norm == FinalNorm::Normed,
            "layer_norm_eps": config_keys::decimal(self.norm_eps),
            "dropout": config_keys::decimal(self.dropout),
            "tie_word_embeddings": self.tied,
            "is_encoder_decoder": true,
            "pad_token_id": self.pad_token_id,
            "eos_token_id": self.eos_token_id,
            "decoder_start_token_id": self.decoder_start_token_id,
            "initializer_factor": config_keys::decimal(self.initializer_factor),
        })
    }

    fn model_type(&self) -> &'static str {
        "vanilla-transformer"
    }

    fn heads(&self) -> &'static [(Head, &'static str)] {
        &[
            (Head::None, "VanillaTransformerModel"),
            (
                Head::Seq2SeqLm,
                "VanillaTransformerForConditionalGeneration",
            ),
        ]
    }

    fn direction(&self) -> Direction {
        Direction::EncoderDecoder
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            max_len: self.max_len,
            d_model: self.d_model,
            n_layers: self.n_decoder_layers,
            n_heads: self.n_heads,
            n_kv_heads: self.n_heads,
            d_head: self.d_model / self.n_heads,
            d_ff: self.d_ff,
            n_segments: 1,
        }
    }

    fn set_sizes(&mut self, sizes: &Sizes) {
        if sizes.n_layers != self.n_decoder_layers {
            (self.n_encoder_layers, self.n_decoder_layers) = (sizes.n_layers, sizes.n_layers);
        }
        (self.vocab_size, self.max_len) = (sizes.vocab_size, sizes.max_len);
        (self.d_model, self.n_heads, self.d_ff) = (sizes.d_model, sizes.n_heads, sizes.d_ff);
    }

    // Sinusoids have no table that could end.
    fn position_limit(&self) -> usize {
        usize::MAX
    }

    fn set_dropout(&mut self, rate: f32) {
        self.dropout = rate;
    }

    fn set_special_tokens(&mut self, tokens: SpecialTokens) {
        self.pad_token_id = tokens.pad;
        self.eos_token_id = tokens.eos;
        self.decoder_start_token_id = tokens.bos.or(tokens.pad).unwrap_or(0);
    }

    fn decoder_start(&self) -> Option<u32> {
        Some(self.decoder_start_token_id)
    }

    fn pad_token(&self) -> Option<u32> {
        self.pad_token_id
    }

    fn initializer_range(&self) -> f32 {
        self.initializer_factor
    }

    fn set_initializer_range(&mut self, deviation: f32) {
        self.initializer_factor = deviation;
    }

    // Embeddings keep their variance under the factor √d_model; matrices are drawn with the mean of their two widths (Glorot and
    // Bengio, 2010), as the reference implementation did.
    fn initial_deviation(&self, parameter: &ParameterInfo) -> f32 {
        let variance = match (parameter.name.as_str(), &parameter.shape[..]) {
            ("token.weight", _) => 1.0 / self.d_model as f32,
            (_, [d_out, d_in]) => 2.0 / (d_in + d_out) as f32,
            _ => 1.0,
        };
        self.initializer_factor * variance.sqrt()
    }

    fn prefix(&self) -> &'static str {
        ""
    }

    fn names(&self, _head: Head, _prefixed: bool) -> NameTable {
        weights::table()
    }

    fn tied_copy(&self, parameter: &str) -> Option<&'static str> {
        (self.tied && parameter == "token.weight").then_some("generator.weight")
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(Vanilla::new(self, head))
    }
}
