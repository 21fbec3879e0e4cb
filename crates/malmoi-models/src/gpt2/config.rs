//! Published configuration of GPT-2, with two keys of our own for GPT-3: `head_dim`, and `attention_band`, the tokens that every
//! other block sees.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::parameters::ParameterInfo;
use malmoi_nn::{Activation, Mask, Sharing};
use serde_json::{Value, json};

use super::{model::Gpt2, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::config::{Direction, Sizes, SpecialTokens};
use crate::config_keys::{self, LabelSet};
use crate::head::{Head, ProblemType};
use crate::names::NameTable;

/// GPT-2 sizes (Radford et al., 2019, table 2): name, layers, d_model, heads.
const GPT2: &[(&str, usize, usize, usize)] = &[
    ("gpt2", 12, 768, 12),
    ("gpt2-medium", 24, 1024, 16),
    ("gpt2-large", 36, 1280, 20),
    ("gpt2-xl", 48, 1600, 25),
];

/// GPT-3 sizes (Brown et al., 2020, table 2.1): name, layers, d_model, heads, d_head.
const GPT3: &[(&str, usize, usize, usize, usize)] = &[
    ("gpt3-125m", 12, 768, 12, 64),
    ("gpt3-350m", 24, 1024, 16, 64),
    ("gpt3-760m", 24, 1536, 16, 96),
    ("gpt3-1.3b", 24, 2048, 24, 128),
    ("gpt3-2.7b", 32, 2560, 32, 80),
    ("gpt3-6.7b", 32, 4096, 32, 128),
    ("gpt3-13b", 40, 5140, 40, 128),
    ("gpt3-175b", 96, 12288, 96, 128),
];

/// GPT-3 alternates dense and locally banded attention (section 2.1) without saying how wide the band is; this is the width that
/// its reproduction GPT-Neo published.
const GPT3_BAND: usize = 256;

/// Sizes and rates of a GPT-2 or GPT-3 model.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Layers that share their parameters.
    pub sharing: Sharing,
    /// Attention heads.
    pub n_heads: usize,
    /// Width of a head; `d_model / n_heads` unless the config says otherwise (`head_dim`).
    pub d_head: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Longest sequence.
    pub max_len: usize,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Added to the variance in the norms.
    pub norm_eps: f32,
    /// Dropout after the embeddings.
    pub embedding_dropout: f32,
    /// Dropout on attention probabilities.
    pub attention_dropout: f32,
    /// Dropout after attention and feed-forward.
    pub residual_dropout: f32,
    /// How many tokens, its own included, a token of every other block sees; all where absent.
    pub band: Option<usize>,
    /// Whether the output projection is the token embedding once more.
    pub tied: bool,
    /// Whether scores are divided by `√d_head`.
    pub scale_by_head: bool,
    /// Whether scores of layer l are further divided by `l + 1`.
    pub scale_by_layer: bool,
    /// Standard deviation of initial weights.
    pub initializer_range: f32,
    /// The padding token, which a classifier needs to find the last real one.
    pub pad_token_id: Option<u32>,
    /// Start-of-text token, written into `config.json`.
    pub bos_token_id: Option<u32>,
    /// End-of-text token, written into `config.json`.
    pub eos_token_id: Option<u32>,
    /// Outputs of a classifier.
    pub n_labels: usize,
    /// Their names, if any were published.
    pub labels: Vec<String>,
    /// How the classifier's labels are read; by the number of labels when absent.
    pub problem_type: Option<ProblemType>,
}

impl Architecture for Gpt2Config {
    const MODEL_TYPES: &'static [&'static str] = &["gpt2"];

    fn presets() -> Vec<(&'static str, Value)> {
        let config = |layers: &usize, d: &usize, heads: &usize, max_len: usize| {
            json!({
                "model_type": "gpt2", "vocab_size": 50257, "n_embd": d, "n_layer": layers, "n_head": heads,
                "n_positions": max_len, "bos_token_id": 50256, "eos_token_id": 50256,
            })
        };
        let gpt2 = GPT2
            .iter()
            .map(|(name, layers, d, heads)| (*name, config(layers, d, heads, 1024)));
        let gpt3 = GPT3.iter().map(|(name, layers, d, heads, d_head)| {
            let mut config = config(layers, d, heads, 2048);
            config["head_dim"] = (*d_head).into();
            config["attention_band"] = GPT3_BAND.into();
            (*name, config)
        });
        gpt2.chain(gpt3).collect()
    }

    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let read = ConfigReader::new(config, "gpt2")?;
        // Only the double-heads variant of GPT-2 reads these, and it is refused by its name.
        read.inert(&[
            "summary_type",
            "summary_use_proj",
            "summary_activation",
            "summary_proj_to_labels",
            "summary_first_dropout",
            // The order of two exact operations in half precision.
            "reorder_and_upcast_attn",
        ]);
        let d_model = config_keys::positive(&read, "n_embd", None)?;
        let n_heads = config_keys::positive(&read, "n_head", None)?;
        let d_head = match read.optional_usize("head_dim")? {
            Some(d_head) => d_head,
            None => {
                config_keys::divisible(&read, "n_embd", d_model, "n_head", n_heads)?;
                d_model / n_heads
            }
        };
        let max_len = config_keys::positive(&read, "n_positions", None)?;
        read.refuse_unless("n_ctx", max_len)?;
        let LabelSet {
            n_labels,
            labels,
            problem_type,
        } = config_keys::labels(&read)?;
        let this = Self {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            d_model,
            n_layers: read.usize("n_layer")?,
            sharing: config_keys::sharing(&read, read.usize("n_layer")?)?,
            n_heads,
            d_head,
            d_ff: config_keys::positive(&read, "n_inner", Some(4 * d_model))?,
            max_len,
            activation: config_keys::activation(&read, "activation_function", "gelu_new")?,
            norm_eps: read.f64_or("layer_norm_epsilon", 1e-5)? as f32,
            embedding_dropout: config_keys::rate(&read, "embd_pdrop", 0.1)?,
            attention_dropout: config_keys::rate(&read, "attn_pdrop", 0.1)?,
            residual_dropout: config_keys::rate(&read, "resid_pdrop", 0.1)?,
            band: read
                .has("attention_band")
                .then(|| config_keys::positive(&read, "attention_band", None))
                .transpose()?,
            tied: read.bool_or("tie_word_embeddings", true)?,
            scale_by_head: read.bool_or("scale_attn_weights", true)?,
            scale_by_layer: read.bool_or("scale_attn_by_inverse_layer_idx", false)?,
            initializer_range: read.f64_or("initializer_range", 0.02)? as f32,
            pad_token_id: config_keys::token(&read, "pad_token_id")?,
            bos_token_id: config_keys::token(&read, "bos_token_id")?,
            eos_token_id: config_keys::token(&read, "eos_token_id")?,
            n_labels,
            labels,
            problem_type,
        };
        let alike = this.band.is_none() && !this.scale_by_layer;
        if let (Sharing::Groups { n_groups, .. }, false) = (this.sharing, alike) {
            let expected = "no groups where layers differ by `attention_band` or `scale_attn_by_inverse_layer_idx`";
            return Err(read.unsupported("num_hidden_groups", &Value::from(n_groups), expected));
        }
        read.finish(accept_unknown)?;
        Ok(this)
    }
}

impl Config for Gpt2Config {
    // A head width of its own and a band are keys that Python does not know.
    fn to_json(&self) -> Value {
        let mut config = json!({
            "model_type": "gpt2",
            "vocab_size": self.vocab_size,
            "n_positions": self.max_len,
            "n_embd": self.d_model,
            "n_layer": self.n_layers,
            "n_head": self.n_heads,
            "n_inner": self.d_ff,
            "activation_function": config_keys::activation_name(self.activation),
            "layer_norm_epsilon": config_keys::decimal(self.norm_eps),
            "embd_pdrop": config_keys::decimal(self.embedding_dropout),
            "attn_pdrop": config_keys::decimal(self.attention_dropout),
            "resid_pdrop": config_keys::decimal(self.residual_dropout),
            "scale_attn_weights": self.scale_by_head,
            "scale_attn_by_inverse_layer_idx": self.scale_by_layer,
            "initializer_range": config_keys::decimal(self.initializer_range),
            "tie_word_embeddings": self.tied,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
        });
        if self.d_head * self.n_heads != self.d_model {
            config["head_dim"] = self.d_head.into();
        }
        if let Some(band) = self.band {
            config["attention_band"] = band.into();
        }
        config_keys::write_sharing(&mut config, self.sharing);
        config_keys::write_labels(&mut config, &self.labels, self.problem_type);
        config
    }

    fn model_type(&self) -> &'static str {
        "gpt2"
    }

    fn heads(&self) -> &'static [(Head, &'static str)] {
        &[
            (Head::None, "GPT2Model"),
            (Head::CausalLm, "GPT2LMHeadModel"),
            (
                Head::SequenceClassification,
                "GPT2ForSequenceClassification",
            ),
        ]
    }

    fn is_tied(&self) -> bool {
        self.tied
    }

    fn direction(&self) -> Direction {
        Direction::Decoder
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            max_len: self.max_len,
            d_model: self.d_model,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            n_kv_heads: self.n_heads,
            d_head: self.d_head,
            d_ff: self.d_ff,
            n_segments: self.vocab_size,
        }
    }

    fn set_sizes(&mut self, sizes: &Sizes) {
        (self.vocab_size, self.max_len) = (sizes.vocab_size, sizes.max_len);
        (self.d_model, self.n_layers, self.n_heads) =
            (sizes.d_model, sizes.n_layers, sizes.n_heads);
        self.sharing = self.sharing.for_layers(sizes.n_layers);
        (self.d_head, self.d_ff) = (sizes.d_head, sizes.d_ff);
    }

    fn set_dropout(&mut self, rate: f32) {
        self.embedding_dropout = rate;
        self.attention_dropout = rate;
        self.residual_dropout = rate;
    }

    fn set_special_tokens(&mut self, tokens: SpecialTokens) {
        self.bos_token_id = tokens.bos;
        self.eos_token_id = tokens.eos;
        self.pad_token_id = tokens.pad;
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn initializer_range(&self) -> f32 {
        self.initializer_range
    }

    fn set_initializer_range(&mut self, deviation: f32) {
        self.initializer_range = deviation;
    }

    // The layers that write into the residual stream start smaller by `√(2 n_layers)` (Radford et al., 2019, section 2.3).
    fn initial_deviation(&self, parameter: &ParameterInfo) -> f32 {
        let name = &parameter.name;
        if name.ends_with(".attention.output.weight") || name.ends_with(".down.weight") {
            self.initializer_range * (1.0 / ((2 * self.n_layers) as f32).sqrt())
        } else {
            self.initializer_range
        }
    }

    fn prefix(&self) -> &'static str {
        "transformer."
    }

    fn names(&self, _head: Head, prefixed: bool) -> NameTable {
        weights::table(if prefixed { self.prefix() } else { "" })
            .sharing(self.sharing, self.n_layers)
    }

    fn tied_copy(&self, parameter: &str) -> Option<&'static str> {
        (self.tied && parameter == "token.weight").then_some("lm_head.weight")
    }

    fn is_redundant(&self, name: &str) -> bool {
        weights::is_redundant(name)
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(Gpt2::new(self, head))
    }
}

impl Gpt2Config {
    /// Which keys a token of a layer sees, counted from 0.
    pub fn mask(&self, layer: usize) -> Mask {
        match self.band {
            Some(band) if layer % 2 == 1 => Mask::Window {
                left: band - 1,
                right: 0,
            },
            _ => Mask::Causal,
        }
    }

    /// Factor on the attention scores of a layer, counted from 0.
    pub fn attention_scale(&self, layer: usize) -> f32 {
        let by_head = if self.scale_by_head {
            (self.d_head as f32).sqrt()
        } else {
            1.0
        };
        let by_layer = if self.scale_by_layer {
            (layer + 1) as f32
        } else {
            1.0
        };
        1.0 / (by_head * by_layer)
    }
}
