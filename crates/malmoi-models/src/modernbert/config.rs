//! Published configuration of ModernBERT.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::{Activation, Mask, NormKind};
use serde_json::{Value, json};

use super::{model::ModernBert, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::config::{Direction, Sizes, SpecialTokens};
use crate::config_keys::{self, LabelSet};
use crate::head::{Head, ProblemType};
use crate::names::NameTable;
use crate::rope_keys::RopeConfig;

/// Published sizes (table 4 of the paper): name, layers, d_model, heads, d_ff.
const SIZES: &[(&str, usize, usize, usize, usize)] = &[
    ("modernbert-base", 22, 768, 12, 1152),
    ("modernbert-large", 28, 1024, 16, 2624),
];

/// What a token of a block sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The whole sequence.
    Full,
    /// Half a window on each side.
    Sliding,
}

/// Which state stands for a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// That of the first token.
    First,
    /// The mean of all.
    Mean,
}

/// Sizes and rates of a ModernBERT model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModernBertConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Longest sequence.
    pub max_len: usize,
    /// What each block sees.
    pub reaches: Vec<Reach>,
    /// Width of the window of sliding blocks: a token sees half of it on each side.
    pub window: usize,
    /// Rotary positions of blocks that see everything.
    pub full_rope: RopeConfig,
    /// Rotary positions of sliding blocks.
    pub sliding_rope: RopeConfig,
    /// Activation of the gate.
    pub activation: Activation,
    /// Layer norms, with or without a shift.
    pub norm: NormKind,
    /// Added to the variance in the norms.
    pub norm_eps: f32,
    /// Whether the projections of attention have biases.
    pub attention_bias: bool,
    /// Whether the feed-forward layer has biases.
    pub feed_forward_bias: bool,
    /// Whether the projection to the vocabulary has a bias.
    pub vocabulary_bias: bool,
    /// Whether it is the token embedding once more.
    pub tied: bool,
    /// Dropout after the embeddings.
    pub embedding_dropout: f32,
    /// Dropout on attention probabilities and on attention's output.
    pub attention_dropout: f32,
    /// Dropout inside the feed-forward layer.
    pub feed_forward_dropout: f32,
    /// Which state a classifier of sequences reads.
    pub pooling: Pooling,
    /// Activation of the layer before vocabulary and classifier.
    pub head_activation: Activation,
    /// Whether that layer has a bias.
    pub head_bias: bool,
    /// Dropout before a classifier.
    pub classifier_dropout: f32,
    /// Standard deviation of initial weights.
    pub initializer_range: f32,
    /// The padding token.
    pub pad_token_id: Option<u32>,
    /// Start-of-text token, written into `config.json`.
    pub bos_token_id: Option<u32>,
    /// End-of-text token, written into `config.json`.
    pub eos_token_id: Option<u32>,
    /// Outputs of a classifier.
    pub n_labels: usize,
    /// Their names, if any were published.
    pub labels: Vec<String>,
    /// How a sequence classifier's labels are read; by the number of labels when absent.
    pub problem_type: Option<ProblemType>,
}

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// What each block sees: a list, or in old files every how many blocks one sees everything.
fn reaches(read: &ConfigReader<'_>, n_layers: usize) -> Result<Vec<Reach>, ConfigError> {
    let every = config_keys::positive(read, "global_attn_every_n_layers", Some(3))?;
    let Some(names) = read.optional_strings("layer_types")? else {
        let reach = |layer: usize| match layer % every {
            0 => Reach::Full,
            _ => Reach::Sliding,
        };
        return Ok((0..n_layers).map(reach).collect());
    };
    let named = |name: &String| match name.as_str() {
        FULL => Ok(Reach::Full),
        SLIDING => Ok(Reach::Sliding),
        other => {
            let expected = format!("{FULL} or {SLIDING}");
            Err(read.unsupported("layer_types", &other.into(), &expected))
        }
    };
    if names.len() != n_layers {
        let expected = format!("as many entries as `num_hidden_layers` = {n_layers}");
        return Err(read.wrong_type("layer_types", &json!(names), &expected));
    }
    names.iter().map(named).collect()
}

/// Rotary positions of full and sliding blocks: an object each, or in old files a number each.
fn ropes(read: &ConfigReader<'_>) -> Result<[RopeConfig; 2], ConfigError> {
    let full = read.f64_or("global_rope_theta", 160_000.0)? as f32;
    let sliding = read.f64_or("local_rope_theta", 10_000.0)? as f32;
    let given = read.value("rope_parameters");
    let one = |name: &str, theta: f32| match given.and_then(|all| all.get(name)) {
        None | Some(Value::Null) => Ok(RopeConfig::new(theta)),
        Some(value) => {
            RopeConfig::from_value(read, &format!("rope_parameters.{name}"), value, theta)
        }
    };
    if let Some(given) = given {
        let known = |object: &serde_json::Map<String, Value>| {
            object.keys().all(|key| key == FULL || key == SLIDING)
        };
        if !given.as_object().is_some_and(known) {
            let expected = format!("an object for {FULL} and one for {SLIDING}");
            return Err(read.wrong_type("rope_parameters", given, &expected));
        }
    }
    Ok([one(FULL, full)?, one(SLIDING, sliding)?])
}

impl Architecture for ModernBertConfig {
    const MODEL_TYPES: &'static [&'static str] = &["modernbert"];

    fn presets() -> Vec<(&'static str, Value)> {
        let presets = SIZES.iter().map(|(name, layers, d, heads, d_ff)| {
            let config = json!({
                "model_type": "modernbert", "vocab_size": 50368, "hidden_size": d, "num_hidden_layers": layers,
                "num_attention_heads": heads, "intermediate_size": d_ff, "max_position_embeddings": 8192,
                "pad_token_id": 50283, "bos_token_id": 50281, "eos_token_id": 50282,
            });
            (*name, config)
        });
        presets.collect()
    }

    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let read = ConfigReader::new(config, "modernbert")?;
        read.refuse_unless("position_embedding_type", "absolute")?;
        read.inert(&[
            // How published code computes the same: compiled, in another kernel, for masked positions alone.
            "reference_compile",
            "deterministic_flash_attn",
            "repad_logits_with_grad",
            "sparse_prediction",
            "sparse_pred_ignore_index",
            // The tails that initial values are cut at.
            "initializer_cutoff_factor",
            // A leftover beside `norm_eps`.
            "layer_norm_eps",
        ]);
        let d_model = config_keys::positive(&read, "hidden_size", None)?;
        let n_heads = config_keys::positive(&read, "num_attention_heads", None)?;
        // An even width a head, whose halves turn together.
        let by = "2 · num_attention_heads";
        config_keys::divisible(&read, "hidden_size", d_model, by, 2 * n_heads)?;
        let LabelSet {
            n_labels,
            labels,
            problem_type,
        } = config_keys::labels(&read)?;
        let pooling = match read.str_or("classifier_pooling", "cls")? {
            "cls" => Pooling::First,
            "mean" => Pooling::Mean,
            other => {
                let other = Value::from(other);
                return Err(read.unsupported("classifier_pooling", &other, "cls or mean"));
            }
        };
        let [full_rope, sliding_rope] = ropes(&read)?;
        let this = Self {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            d_model,
            n_heads,
            d_ff: config_keys::positive(&read, "intermediate_size", None)?,
            max_len: config_keys::positive(&read, "max_position_embeddings", Some(8192))?,
            reaches: reaches(&read, read.usize("num_hidden_layers")?)?,
            window: config_keys::positive(&read, "local_attention", Some(128))?,
            full_rope,
            sliding_rope,
            activation: config_keys::activation(&read, "hidden_activation", "gelu")?,
            norm: if read.bool_or("norm_bias", false)? {
                NormKind::Layer
            } else {
                NormKind::LayerWithoutShift
            },
            norm_eps: read.f64_or("norm_eps", 1e-5)? as f32,
            attention_bias: read.bool_or("attention_bias", false)?,
            feed_forward_bias: read.bool_or("mlp_bias", false)?,
            vocabulary_bias: read.bool_or("decoder_bias", true)?,
            tied: read.bool_or("tie_word_embeddings", true)?,
            embedding_dropout: config_keys::rate(&read, "embedding_dropout", 0.0)?,
            attention_dropout: config_keys::rate(&read, "attention_dropout", 0.0)?,
            feed_forward_dropout: config_keys::rate(&read, "mlp_dropout", 0.0)?,
            pooling,
            head_activation: config_keys::activation(&read, "classifier_activation", "gelu")?,
            head_bias: read.bool_or("classifier_bias", false)?,
            classifier_dropout: config_keys::rate(&read, "classifier_dropout", 0.0)?,
            initializer_range: read.f64_or("initializer_range", 0.02)? as f32,
            pad_token_id: config_keys::token(&read, "pad_token_id")?,
            bos_token_id: config_keys::token(&read, "bos_token_id")?,
            eos_token_id: config_keys::token(&read, "eos_token_id")?,
            n_labels,
            labels,
            problem_type,
        };
        read.finish(accept_unknown)?;
        Ok(this)
    }
}

impl ModernBertConfig {
    /// Which keys a token of a block sees.
    pub fn mask(&self, reach: Reach) -> Mask {
        let half = self.window / 2;
        match reach {
            Reach::Full => Mask::Full,
            Reach::Sliding => Mask::Window {
                left: half,
                right: half,
            },
        }
    }

    /// Rotary positions of a block.
    pub fn rope(&self, reach: Reach) -> &RopeConfig {
        match reach {
            Reach::Full => &self.full_rope,
            Reach::Sliding => &self.sliding_rope,
        }
    }
}

impl Config for ModernBertConfig {
    fn to_json(&self) -> Value {
        let names = self.reaches.iter().map(|reach| match reach {
            Reach::Full => FULL,
            Reach::Sliding => SLIDING,
        });
        let decimal = config_keys::decimal;
        let mut config = json!({
            "model_type": "modernbert",
            "vocab_size": self.vocab_size,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.reaches.len(),
            "num_attention_heads": self.n_heads,
            "intermediate_size": self.d_ff,
            "max_position_embeddings": self.max_len,
            "layer_types": names.collect::<Vec<_>>(),
            "local_attention": self.window,
            "rope_parameters": {FULL: self.full_rope.to_value(), SLIDING: self.sliding_rope.to_value()},
            "hidden_activation": config_keys::activation_name(self.activation),
            "norm_bias": self.norm == NormKind::Layer,
            "norm_eps": decimal(self.norm_eps),
            "attention_bias": self.attention_bias,
            "mlp_bias": self.feed_forward_bias,
            "decoder_bias": self.vocabulary_bias,
            "tie_word_embeddings": self.tied,
            "embedding_dropout": decimal(self.embedding_dropout),
            "attention_dropout": decimal(self.attention_dropout),
            "mlp_dropout": decimal(self.feed_forward_dropout),
            "classifier_pooling": match self.pooling {
                Pooling::First => "cls",
                Pooling::Mean => "mean",
            },
            "classifier_activation": config_keys::activation_name(self.head_activation),
            "classifier_bias": self.head_bias,
            "classifier_dropout": decimal(self.classifier_dropout),
            "initializer_range": decimal(self.initializer_range),
            "pad_token_id": self.pad_token_id,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
        });
        config_keys::write_labels(&mut config, &self.labels, self.problem_type);
        config
    }

    fn model_type(&self) -> &'static str {
        "modernbert"
    }

    fn heads(&self) -> &'static [(Head, &'static str)] {
        &[
            (Head::None, "ModernBertModel"),
            (Head::MaskedLm, "ModernBertForMaskedLM"),
            (
                Head::SequenceClassification,
                "ModernBertForSequenceClassification",
            ),
            (
                Head::TokenClassification,
                "ModernBertForTokenClassification",
            ),
            (Head::QuestionAnswering, "ModernBertForQuestionAnswering"),
            (Head::MultipleChoice, "ModernBertForMultipleChoice"),
        ]
    }

    fn direction(&self) -> Direction {
        Direction::Encoder
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            max_len: self.max_len,
            d_model: self.d_model,
            n_layers: self.reaches.len(),
            n_heads: self.n_heads,
            n_kv_heads: self.n_heads,
            d_head: self.d_model / self.n_heads,
            d_ff: self.d_ff,
            n_segments: 1,
        }
    }

    fn set_sizes(&mut self, sizes: &Sizes) {
        (self.vocab_size, self.max_len) = (sizes.vocab_size, sizes.max_len);
        (self.d_model, self.n_heads, self.d_ff) = (sizes.d_model, sizes.n_heads, sizes.d_ff);
        // The pattern goes on: it repeats from one block that sees everything to the next.
        let is_full = |reach: &Reach| *reach == Reach::Full;
        let period = (self.reaches.iter().skip(1)).position(is_full);
        let period = period.map_or(self.reaches.len(), |at| at + 1);
        let pattern = self.reaches[..period].to_vec();
        self.reaches = (pattern.into_iter().cycle().take(sizes.n_layers)).collect();
    }

    fn set_dropout(&mut self, rate: f32) {
        self.embedding_dropout = rate;
        self.attention_dropout = rate;
        self.feed_forward_dropout = rate;
        self.classifier_dropout = rate;
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

    fn prefix(&self) -> &'static str {
        "model."
    }

    fn names(&self, _head: Head, prefixed: bool) -> NameTable {
        weights::table(if prefixed { self.prefix() } else { "" })
    }

    fn tied_copy(&self, parameter: &str) -> Option<&'static str> {
        (self.tied && parameter == "embeddings.token.weight").then_some("decoder.weight")
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(ModernBert::new(self, head))
    }
}
