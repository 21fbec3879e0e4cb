//! The configuration of any encoder, and the published keys that most families share.

use malmoi_checkpoint::{ConfigError, ConfigReader, directory};
use malmoi_nn::parameters::ParameterInfo;
use malmoi_nn::positions::{Sinusoid, sinusoids};
use malmoi_nn::{
    Activation, AttentionConfig, BlockConfig, DropoutPlace, FeedForwardConfig, Mask, NormPlace,
    Sharing,
};
use serde_json::{Value, json};

use super::Family;
use crate::architecture::{Architecture, Config, Network};
use crate::config::{Direction, Sizes, SpecialTokens};
use crate::config_keys::{self, LabelSet};
use crate::electra::files;
use crate::head::{Head, ProblemType};
use crate::names::NameTable;

/// Where the position vectors come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// A learned table, counted from 0.
    Learned,
    /// A learned table whose first rows belong to the padding token: a sequence starts at row `pad_token_id + 1` (RoBERTa).
    LearnedAfterPadding,
    /// A table that starts as sinusoids, sines and cosines interleaved (Vaswani et al., 2017, section 3.5). As in the published
    /// Python code of today, files hold the table and training moves it.
    Sinusoidal,
}

/// What segment ids mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    /// Nothing: there is one segment.
    None,
    /// Rows of a table of so many vectors.
    Table(usize),
    /// Rows of the token embedding (XLM, as in GPT).
    Tokens,
}

/// Sizes, rates and axes of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// The family: published names and composition.
    pub family: &'static Family,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the embeddings; projected to `d_model` where the two differ.
    pub d_embedding: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Layers.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Longest sequence.
    pub max_len: usize,
    /// Where position vectors come from.
    pub positions: Positions,
    /// What segment ids mean.
    pub segments: Segments,
    /// Languages with a vector of their own; 0 for none.
    pub n_languages: usize,
    /// Which tokens a token sees.
    pub mask: Mask,
    /// Which layers share their parameters.
    pub sharing: Sharing,
    /// Activation of the feed-forward layer and of the vocabulary head.
    pub activation: Activation,
    /// Added to the variance in the norms.
    pub norm_eps: f32,
    /// Dropout after embeddings, attention and feed-forward.
    pub dropout: f32,
    /// Which parts of a block have it on their output.
    pub dropout_place: DropoutPlace,
    /// Dropout on attention probabilities.
    pub attention_dropout: f32,
    /// Dropout before a classifier.
    pub classifier_dropout: f32,
    /// Dropout before the classifier of multiple choice.
    pub choice_dropout: f32,
    /// Dropout before the span head of question answering.
    pub question_dropout: f32,
    /// Standard deviation of initial weights.
    pub initializer_range: f32,
    /// Standard deviation of initial embeddings.
    pub embedding_range: f32,
    /// The padding token.
    pub pad_token_id: u32,
    /// Start-of-text token, written into `config.json`.
    pub bos_token_id: Option<u32>,
    /// End-of-text token, written into `config.json`.
    pub eos_token_id: Option<u32>,
    /// The generator that is trained with an ELECTRA discriminator; see [`crate::ModelConfig::with_generator`].
    pub generator: Option<Box<EncoderConfig>>,
    /// Outputs of a classifier.
    pub n_labels: usize,
    /// Their names, if any were published.
    pub labels: Vec<String>,
    /// How a sequence classifier's labels are read; by the number of labels when absent.
    pub problem_type: Option<ProblemType>,
}

impl Architecture for EncoderConfig {
    const MODEL_TYPES: &'static [&'static str] = &[
        "bert",
        "roberta",
        "xlm-roberta",
        "distilbert",
        "albert",
        "electra",
        "xlm",
    ];

    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let family = Family::named(directory::model_type(config));
        let read = ConfigReader::new(config, family.model_type)?;
        read.refuse_unless("tie_word_embeddings", true)?;
        let LabelSet {
            n_labels,
            labels,
            problem_type,
        } = config_keys::labels(&read)?;
        let mut this = Self {
            family,
            n_labels,
            labels,
            problem_type,
            ..(family.read)(&read)?
        };
        if this.sharing == Sharing::None {
            this.sharing = config_keys::sharing(&read, this.n_layers)?;
        }
        if this.positions == Positions::Sinusoidal && !this.d_embedding.is_multiple_of(2) {
            let width = Value::from(this.d_embedding);
            return Err(read.unsupported("the width of sinusoids", &width, "an even number"));
        }
        read.finish(accept_unknown)?;
        Ok(this)
    }

    fn presets() -> Vec<(&'static str, Value)> {
        let families = Family::ALL.into_iter();
        families.flat_map(Family::presets).collect()
    }
}

impl Config for EncoderConfig {
    fn model_type(&self) -> &'static str {
        self.family.model_type
    }

    fn to_json(&self) -> Value {
        let mut config = (self.family.write)(self);
        config["model_type"] = self.family.model_type.into();
        config["tie_word_embeddings"] = true.into();
        config["pad_token_id"] = self.pad_token_id.into();
        config["bos_token_id"] = self.bos_token_id.into();
        config["eos_token_id"] = self.eos_token_id.into();
        config_keys::write_sharing(&mut config, self.sharing);
        config_keys::write_labels(&mut config, &self.labels, self.problem_type);
        config
    }

    fn heads(&self) -> &'static [(Head, &'static str)] {
        match self.mask {
            Mask::Causal => self.family.causal_heads,
            _ => self.family.heads,
        }
    }

    fn direction(&self) -> Direction {
        match self.mask {
            Mask::Causal => Direction::Decoder,
            _ => Direction::Encoder,
        }
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            max_len: self.max_len,
            d_model: self.d_model,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            n_kv_heads: self.n_heads,
            d_head: self.d_model / self.n_heads,
            d_ff: self.d_ff,
            n_segments: match self.segments {
                Segments::None => 1,
                Segments::Table(n) => n,
                Segments::Tokens => self.vocab_size,
            },
        }
    }

    /// Embeddings as wide as the hidden states stay so.
    fn set_sizes(&mut self, sizes: &Sizes) {
        if self.d_embedding == self.d_model {
            self.d_embedding = sizes.d_model;
        }
        if let Some(generator) = &mut self.generator {
            (generator.vocab_size, generator.max_len) = (sizes.vocab_size, sizes.max_len);
        }
        (self.vocab_size, self.max_len) = (sizes.vocab_size, sizes.max_len);
        (self.d_model, self.n_layers, self.n_heads) =
            (sizes.d_model, sizes.n_layers, sizes.n_heads);
        self.sharing = self.sharing.for_layers(sizes.n_layers);
        self.d_ff = match self.family.d_ff {
            Some(rule) => rule(self.d_model),
            None => sizes.d_ff,
        };
    }

    fn n_languages(&self) -> usize {
        self.n_languages
    }

    /// In XLM the caller has moved them.
    fn shifts_labels(&self) -> bool {
        false
    }

    fn pair_loss(&self) -> &'static str {
        self.family.pair_loss
    }

    fn projection_width(&self) -> usize {
        self.d_embedding
    }

    fn set_dropout(&mut self, rate: f32) {
        (self.dropout, self.attention_dropout) = (rate, rate);
        (self.classifier_dropout, self.choice_dropout) = (rate, rate);
        if let Some(generator) = &mut self.generator {
            generator.set_dropout(rate);
        }
    }

    fn set_special_tokens(&mut self, tokens: SpecialTokens) {
        self.pad_token_id = tokens.pad.unwrap_or(0);
        (self.bos_token_id, self.eos_token_id) = (tokens.bos, tokens.eos);
        if let Some(generator) = &mut self.generator {
            generator.set_special_tokens(tokens);
        }
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn initializer_range(&self) -> f32 {
        self.initializer_range
    }

    fn set_initializer_range(&mut self, deviation: f32) {
        (self.initializer_range, self.embedding_range) = (deviation, deviation);
        if let Some(generator) = &mut self.generator {
            generator.set_initializer_range(deviation);
        }
    }

    fn initial_deviation(&self, parameter: &ParameterInfo) -> f32 {
        match &self.generator {
            Some(generator) if parameter.name.starts_with(files::PREFIX) => {
                generator.initializer_range
            }
            _ if parameter.name.starts_with("embeddings.") => self.embedding_range,
            _ => self.initializer_range,
        }
    }

    fn initial_table(&self, parameter: &ParameterInfo) -> Option<Vec<f32>> {
        let computed = self.positions == Positions::Sinusoidal
            && parameter.name == "embeddings.position.weight";
        computed.then(|| sinusoids(self.max_len, self.d_embedding, Sinusoid::Interleaved))
    }

    fn prefix(&self) -> &'static str {
        self.family.prefix
    }

    fn names(&self, head: Head, prefixed: bool) -> NameTable {
        self.family.table(self, head, prefixed)
    }

    fn tied_copy(&self, parameter: &str) -> Option<&'static str> {
        let found = self
            .family
            .tied
            .iter()
            .find(|(ours, _)| *ours == parameter)?;
        Some(found.1)
    }

    /// Buffers of position and segment ids that old files hold.
    fn is_redundant(&self, name: &str) -> bool {
        name.ends_with("position_ids") || name.ends_with("embeddings.token_type_ids")
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new((self.family.build)(self, head))
    }
}

impl EncoderConfig {
    /// The block of every layer.
    pub fn block(&self) -> BlockConfig {
        let attention = AttentionConfig {
            dropout: self.attention_dropout,
            ..AttentionConfig::new(self.d_model, self.n_heads, self.mask)
        };
        let feed_forward = FeedForwardConfig::new(self.d_ff, self.activation);
        BlockConfig {
            dropout: self.dropout,
            dropout_place: self.dropout_place,
            ..BlockConfig::new(attention, feed_forward, NormPlace::Post, self.norm_eps)
        }
    }

    /// Rows of the position table.
    pub fn n_position_rows(&self) -> usize {
        self.max_len + self.position_offset() as usize
    }

    /// Row of the position table at which a sequence starts.
    pub fn position_offset(&self) -> u32 {
        match self.positions {
            Positions::LearnedAfterPadding => self.pad_token_id + 1,
            Positions::Learned | Positions::Sinusoidal => 0,
        }
    }

    /// Outputs of the classifier that `head` has, if it has one.
    pub fn n_outputs(&self, head: Head) -> Option<usize> {
        match head {
            Head::SequenceClassification | Head::TokenClassification => Some(self.n_labels),
            Head::QuestionAnswering => Some(2),
            Head::MultipleChoice => Some(1),
            _ => None,
        }
    }

    /// Dropout before the classifier of `head`: none before spans, unless the family says so.
    pub fn dropout_before(&self, head: Head) -> f32 {
        match head {
            Head::QuestionAnswering => self.question_dropout,
            Head::MultipleChoice => self.choice_dropout,
            _ => self.classifier_dropout,
        }
    }
}

/// What an absent key means, by family.
pub(crate) struct BertDefaults {
    pub max_positions: usize,
    pub positions: Positions,
    pub n_segments: usize,
    pub activation: &'static str,
    pub norm_eps: f64,
    pub dropout: f64,
    pub pad_token_id: usize,
}

/// Reads the keys that BERT introduced and RoBERTa, ALBERT and ELECTRA took over.
pub(crate) fn read_bert_keys(
    read: &ConfigReader<'_>,
    defaults: &BertDefaults,
) -> Result<EncoderConfig, ConfigError> {
    read.refuse_unless("position_embedding_type", "absolute")?;
    let dropout = config_keys::rate(read, "hidden_dropout_prob", defaults.dropout)?;
    let d_model = config_keys::positive(read, "hidden_size", None)?;
    let n_heads = config_keys::positive(read, "num_attention_heads", None)?;
    config_keys::divisible(read, "hidden_size", d_model, "num_attention_heads", n_heads)?;
    let classifier_dropout = config_keys::rate(read, "classifier_dropout", f64::from(dropout))?;
    let initializer_range = read.f64_or("initializer_range", 0.02)? as f32;
    let max_key = "max_position_embeddings";
    let mut this = EncoderConfig {
        // The caller knows its family and replaces these.
        family: &crate::bert::FAMILY,
        generator: None,
        n_labels: 2,
        labels: Vec::new(),
        problem_type: None,
        vocab_size: config_keys::positive(read, "vocab_size", None)?,
        d_embedding: d_model,
        d_model,
        n_layers: read.usize("num_hidden_layers")?,
        n_heads,
        d_ff: config_keys::positive(read, "intermediate_size", None)?,
        max_len: config_keys::positive(read, max_key, Some(defaults.max_positions))?,
        positions: defaults.positions,
        segments: Segments::Table(config_keys::positive(
            read,
            "type_vocab_size",
            Some(defaults.n_segments),
        )?),
        n_languages: 0,
        mask: Mask::Full,
        sharing: Sharing::None,
        activation: config_keys::activation(read, "hidden_act", defaults.activation)?,
        norm_eps: read.f64_or("layer_norm_eps", defaults.norm_eps)? as f32,
        dropout,
        dropout_place: DropoutPlace::Everywhere,
        attention_dropout: config_keys::rate(
            read,
            "attention_probs_dropout_prob",
            defaults.dropout,
        )?,
        classifier_dropout,
        choice_dropout: classifier_dropout,
        question_dropout: 0.0,
        initializer_range,
        embedding_range: initializer_range,
        pad_token_id: read.usize_or("pad_token_id", defaults.pad_token_id)? as u32,
        bos_token_id: read.optional_usize("bos_token_id")?.map(|id| id as u32),
        eos_token_id: read.optional_usize("eos_token_id")?.map(|id| id as u32),
    };
    let offset = this.position_offset() as usize;
    if this.max_len <= offset {
        let expected = format!("more than pad_token_id + 1 = {offset}");
        return Err(read.wrong_type(max_key, &Value::from(this.max_len), &expected));
    }
    this.max_len -= offset;
    Ok(this)
}

/// Writes what [`read_bert_keys`] reads.
pub(crate) fn bert_json(config: &EncoderConfig) -> Value {
    json!({
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.n_position_rows(),
        "type_vocab_size": config.sizes().n_segments,
        "hidden_act": config_keys::activation_name(config.activation),
        "layer_norm_eps": config_keys::decimal(config.norm_eps),
        "hidden_dropout_prob": config_keys::decimal(config.dropout),
        "attention_probs_dropout_prob": config_keys::decimal(config.attention_dropout),
        "classifier_dropout": config_keys::decimal(config.classifier_dropout),
        "initializer_range": config_keys::decimal(config.initializer_range),
        "position_embedding_type": "absolute",
    })
}
