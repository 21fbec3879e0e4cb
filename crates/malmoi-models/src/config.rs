//! The configuration of any architecture, and presets of the published sizes.

use malmoi_checkpoint::directory;
use malmoi_nn::Mask;
use serde_json::{Value, json};

use crate::electra::pair;
use crate::encoder::{EncoderConfig, Family};
use crate::error::ModelError;
use crate::gpt1::Gpt1Config;
use crate::gpt2::Gpt2Config;
use crate::head::Head;

/// Configuration of a model of any architecture.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// BERT, RoBERTa, XLM-RoBERTa, DistilBERT, ALBERT, ELECTRA or XLM.
    Encoder(EncoderConfig),
    /// GPT-1.
    Gpt1(Gpt1Config),
    /// GPT-2 and dense GPT-3.
    Gpt2(Gpt2Config),
}

/// Evaluates an expression for the configuration or network of any architecture.
macro_rules! each {
    ($value:expr, $kind:ident, $inner:ident => $body:expr) => {
        match $value {
            $kind::Encoder($inner) => $body,
            $kind::Gpt1($inner) => $body,
            $kind::Gpt2($inner) => $body,
        }
    };
}
pub(crate) use each;

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

/// GPT-2 sizes (Radford et al., 2019, table 2): name, layers, d_model, heads.
const GPT2: &[(&str, usize, usize, usize)] = &[
    ("gpt2", 12, 768, 12),
    ("gpt2-medium", 24, 1024, 16),
    ("gpt2-large", 36, 1280, 20),
    ("gpt2-xl", 48, 1600, 25),
];

impl ModelConfig {
    /// Names of all presets.
    pub fn preset_names() -> Vec<&'static str> {
        let encoders = Family::all()
            .into_iter()
            .flat_map(|family| (family.presets)());
        let mut names: Vec<&str> = encoders.map(|(name, _)| name).collect();
        names.push("gpt1");
        names.extend(GPT2.iter().map(|size| size.0));
        names.extend(GPT3.iter().map(|size| size.0));
        names
    }

    /// The published configuration of a preset, as `config.json` has it.
    pub fn preset_json(name: &str) -> Option<Value> {
        for family in Family::all() {
            let presets = (family.presets)();
            if let Some((_, mut config)) = presets.into_iter().find(|(preset, _)| *preset == name) {
                config["model_type"] = family.model_type.into();
                return Some(config);
            }
        }
        let gpt2 = |layers: &usize, d: &usize, heads: &usize, max_len: usize| {
            json!({
                "model_type": "gpt2", "vocab_size": 50257, "n_embd": d, "n_layer": layers, "n_head": heads,
                "n_positions": max_len, "bos_token_id": 50256, "eos_token_id": 50256,
            })
        };
        if let Some((_, layers, d, heads)) = GPT2.iter().find(|size| size.0 == name) {
            return Some(gpt2(layers, d, heads, 1024));
        }
        if let Some((_, layers, d, heads, d_head)) = GPT3.iter().find(|size| size.0 == name) {
            let mut config = gpt2(layers, d, heads, 2048);
            config["head_dim"] = (*d_head).into();
            return Some(config);
        }
        (name == "gpt1").then(|| {
            json!({
                "model_type": "openai-gpt", "vocab_size": 40478, "n_embd": 768, "n_layer": 12, "n_head": 12,
                "n_positions": 512,
            })
        })
    }

    /// A preset by name.
    pub fn preset(name: &str) -> Option<Self> {
        Some(Self::from_json(&Self::preset_json(name)?, false).expect("presets are valid"))
    }

    /// An ELECTRA discriminator with the generator that it is trained with: [`crate::Labels::ReplacedTokens`] trains a model of
    /// this configuration and [`Head::ReplacedTokens`].
    ///
    /// # Errors
    /// Another architecture, or sizes that keep the two from sharing their embeddings.
    pub fn with_generator(self, generator: Self) -> Result<Self, ModelError> {
        match (self, generator) {
            (Self::Encoder(mut config), Self::Encoder(generator))
                if [&config, &generator].iter().all(|config| {
                    config
                        .family
                        .heads
                        .iter()
                        .any(|(head, _)| *head == Head::ReplacedTokens)
                }) =>
            {
                pair::check_generator(&config, &generator)?;
                config.generator = Some(Box::new(generator));
                Ok(Self::Encoder(config))
            }
            (config, generator) => Err(ModelError::NoPair {
                discriminator: config.model_type(),
                generator: generator.model_type(),
            }),
        }
    }

    /// Reads `config.json` of any architecture.
    ///
    /// # Errors
    /// An unknown `model_type`, or what the architecture's own reader finds.
    pub fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ModelError> {
        let model_type = directory::model_type(config);
        if let Some(family) = Family::named(model_type) {
            let config = EncoderConfig::from_json(family, config, accept_unknown)?;
            return Ok(Self::Encoder(config));
        }
        Ok(match model_type {
            "openai-gpt" => Self::Gpt1(Gpt1Config::from_json(config, accept_unknown)?),
            "gpt2" => Self::Gpt2(Gpt2Config::from_json(config, accept_unknown)?),
            other => {
                return Err(ModelError::UnknownArchitecture {
                    found: other.to_owned(),
                });
            }
        })
    }

    /// `config.json` for a model with `head`, as Python reads it.
    pub fn to_json(&self, head: Head) -> Value {
        let mut config = each!(self, Self, config => config.to_json());
        config["architectures"] = json!([self.architecture_name(head)]);
        config["dtype"] = "float32".into();
        config
    }

    /// The published class name, such as `BertForMaskedLM`.
    pub fn architecture_name(&self, head: Head) -> &'static str {
        let names = self.architecture_names();
        names
            .iter()
            .find(|(known, _)| *known == head)
            .map_or(names[0].1, |(_, name)| name)
    }

    /// The head that a published class name stands for.
    pub fn head_named(&self, name: &str) -> Option<Head> {
        self.architecture_names()
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(head, _)| *head)
    }

    /// Heads of this architecture and the class names they are published under; the bare model first.
    pub fn architecture_names(&self) -> &'static [(Head, &'static str)] {
        match self {
            Self::Encoder(config) if self.is_causal() => config.family.causal_heads,
            Self::Encoder(config) => config.family.heads,
            Self::Gpt1(_) => &[
                (Head::None, "OpenAIGPTModel"),
                (Head::CausalLm, "OpenAIGPTLMHeadModel"),
                (Head::DoubleHeads, "OpenAIGPTDoubleHeadsModel"),
            ],
            Self::Gpt2(_) => &[
                (Head::None, "GPT2Model"),
                (Head::CausalLm, "GPT2LMHeadModel"),
                (
                    Head::SequenceClassification,
                    "GPT2ForSequenceClassification",
                ),
            ],
        }
    }

    /// The published `model_type`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Encoder(config) => config.family.model_type,
            Self::Gpt1(_) => "openai-gpt",
            Self::Gpt2(_) => "gpt2",
        }
    }

    /// All published values of `model_type` that are supported.
    pub fn model_types() -> Vec<&'static str> {
        let families = Family::all().into_iter().map(|family| family.model_type);
        families.chain(["openai-gpt", "gpt2"]).collect()
    }

    /// Whether a token sees only those before it.
    pub fn is_causal(&self) -> bool {
        match self {
            Self::Encoder(config) => config.mask == Mask::Causal,
            Self::Gpt1(_) | Self::Gpt2(_) => true,
        }
    }

    /// What the loss over pairs of segments is called: `sop` (sentence order) in ALBERT, `nsp` (next sentence) elsewhere.
    pub(crate) fn pair_loss(&self) -> &'static str {
        match self.model_type() {
            "albert" => "sop",
            _ => "nsp",
        }
    }

    /// Whether published code moves the labels of a causal model by one token; in XLM the caller has done so.
    pub fn shifts_labels(&self) -> bool {
        self.is_causal() && !matches!(self, Self::Encoder(_))
    }

    /// Entries of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        each!(self, Self, config => config.vocab_size)
    }

    /// The same configuration for another vocabulary.
    pub fn with_vocab_size(mut self, vocab_size: usize) -> Self {
        if let Self::Encoder(config) = &mut self
            && let Some(generator) = &mut config.generator
        {
            generator.vocab_size = vocab_size;
        }
        each!(&mut self, Self, config => config.vocab_size = vocab_size);
        self
    }

    /// Longest sequence.
    pub fn max_len(&self) -> usize {
        each!(self, Self, config => config.max_len)
    }

    /// Width of the hidden states.
    pub fn d_model(&self) -> usize {
        each!(self, Self, config => config.d_model)
    }

    /// Blocks.
    pub fn n_layers(&self) -> usize {
        each!(self, Self, config => config.n_layers)
    }

    /// Attention heads.
    pub fn n_heads(&self) -> usize {
        each!(self, Self, config => config.n_heads)
    }

    /// Blocks that a sequence passes; more than [`Self::n_layers`] where a layer is a group of blocks.
    pub fn depth(&self) -> usize {
        match self {
            Self::Encoder(config) => config.depth(),
            _ => self.n_layers(),
        }
    }

    /// Width of a head.
    pub fn d_head(&self) -> usize {
        match self {
            Self::Gpt2(config) => config.d_head,
            _ => self.d_model() / self.n_heads(),
        }
    }

    /// Width of the feed-forward layer.
    pub fn d_ff(&self) -> usize {
        match self {
            Self::Encoder(config) => config.d_ff,
            Self::Gpt1(config) => 4 * config.d_model,
            Self::Gpt2(config) => config.d_ff,
        }
    }

    /// Segment ids that a batch may use. GPT looks segments up in the token embedding.
    pub fn n_segments(&self) -> usize {
        match self {
            Self::Encoder(config) => config.n_segments(),
            _ => self.vocab_size(),
        }
    }

    /// Language ids that a batch may use; 0 without language embeddings.
    pub fn n_languages(&self) -> usize {
        match self {
            Self::Encoder(config) => config.n_languages,
            _ => 0,
        }
    }

    /// Names of the labels, empty when none were given.
    pub fn labels(&self) -> &[String] {
        each!(self, Self, config => &config.labels)
    }

    /// Standard deviation of initial weights.
    pub fn initializer_range(&self) -> f32 {
        each!(self, Self, config => config.initializer_range)
    }
}
