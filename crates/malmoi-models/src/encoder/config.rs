//! The configuration of any encoder, and the published keys that most families share.

use malmoi_checkpoint::{ConfigError, ConfigReader, directory};
use malmoi_nn::parameters::ParameterInfo;
use malmoi_nn::positions::{Sinusoid, sinusoids};
use malmoi_nn::{
    Activation, AttentionConfig, BlockConfig, DropoutPlace, FeedForwardConfig, Mask, NormPlace,
};
use serde_json::{Value, json};

use super::Family;
use super::family::ALL;
use crate::architecture::{Architecture, Config, Network};
use crate::common::{COMMON_KEYS, Common, common_field};
use crate::config::{Direction, Sizes, SpecialTokens};
use crate::config_keys;
use crate::electra::files;
use crate::head::Head;
use crate::names::Rule;
use crate::published::Published;

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

/// Ends of the names of buffers that old files hold: position and segment ids.
pub(crate) const BUFFERS: &[&str] = &["position_ids", "embeddings.token_type_ids"];

/// Sizes, rates and axes of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// The family: published names and composition.
    pub family: &'static Family,
    /// What all architectures have.
    pub common: Common,
    /// Width of the embeddings; projected to the hidden states where the two differ.
    pub d_embedding: usize,
    /// Where position vectors come from.
    pub positions: Positions,
    /// What segment ids mean.
    pub segments: Segments,
    /// Languages with a vector of their own; 0 for none.
    pub n_languages: usize,
    /// Which tokens a token sees.
    pub mask: Mask,
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
    /// Standard deviation of initial embeddings.
    pub embedding_range: f32,
    /// The generator that is trained with an ELECTRA discriminator; see [`crate::ModelConfig::with_generator`].
    pub generator: Option<Box<EncoderConfig>>,
}

/// Rates of dropout that all families have keys for.
pub(crate) struct Dropouts {
    pub everywhere: f32,
    pub attention: f32,
    pub classifier: f32,
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
        let family = Family::named(ALL, directory::model_type(config));
        let read = ConfigReader::new(config, family.published.model_type)?;
        read.refuse_unless("tie_word_embeddings", true)?;
        let this = Self {
            family,
            ..(family.read)(&read)?
        };
        if this.positions == Positions::Sinusoidal && !this.d_embedding.is_multiple_of(2) {
            let width = Value::from(this.d_embedding);
            return Err(read.unsupported("the width of sinusoids", &width, "an even number"));
        }
        read.finish(accept_unknown)?;
        Ok(this)
    }

    fn presets() -> Vec<(&'static str, Value)> {
        ALL.iter().flat_map(|family| family.presets()).collect()
    }
}

impl Config for EncoderConfig {
    fn published(&self) -> &'static Published {
        &self.family.published
    }

    common_field!();

    fn to_json(&self) -> Value {
        (self.family.write)(self)
    }

    fn heads(&self) -> &'static [(Head, &'static str)] {
        match self.mask {
            Mask::Causal => self.family.own.causal_heads,
            _ => self.family.published.heads,
        }
    }

    fn direction(&self) -> Direction {
        match self.mask {
            Mask::Causal => Direction::Decoder,
            _ => Direction::Encoder,
        }
    }

    fn sizes(&self) -> Sizes {
        let sizes = self.common.sizes;
        Sizes {
            n_segments: match self.segments {
                Segments::None => 1,
                Segments::Table(n) => n,
                Segments::Tokens => sizes.vocab_size,
            },
            ..sizes
        }
    }

    /// Embeddings as wide as the hidden states stay so.
    fn set_sizes(&mut self, sizes: &Sizes) {
        if self.d_embedding == self.common.sizes.d_model {
            self.d_embedding = sizes.d_model;
        }
        self.common.resize(sizes);
        if let Some(generator) = &mut self.generator {
            let own = &mut generator.common.sizes;
            (own.vocab_size, own.max_len) = (sizes.vocab_size, sizes.max_len);
        }
    }

    fn n_languages(&self) -> usize {
        self.n_languages
    }

    /// In XLM the caller has moved them.
    fn shifts_labels(&self) -> bool {
        false
    }

    fn pair_loss(&self) -> &'static str {
        self.family.own.pair_loss
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
        self.common.tokens = SpecialTokens {
            pad: tokens.pad.or(Some(0)),
            ..tokens
        };
        if let Some(generator) = &mut self.generator {
            generator.set_special_tokens(tokens);
        }
    }

    fn set_initializer_range(&mut self, deviation: f32) {
        (self.common.initializer_range, self.embedding_range) = (deviation, deviation);
        if let Some(generator) = &mut self.generator {
            generator.set_initializer_range(deviation);
        }
    }

    fn initial_deviation(&self, parameter: &ParameterInfo) -> f32 {
        match &self.generator {
            Some(generator) if parameter.name.starts_with(files::PREFIX) => {
                generator.common.initializer_range
            }
            _ if parameter.name.starts_with("embeddings.") => self.embedding_range,
            _ => self.common.initializer_range,
        }
    }

    fn initial_table(&self, parameter: &ParameterInfo) -> Option<Vec<f32>> {
        let computed = self.positions == Positions::Sinusoidal
            && parameter.name == "embeddings.position.weight";
        computed.then(|| {
            sinusoids(
                self.common.sizes.max_len,
                self.d_embedding,
                Sinusoid::Interleaved,
            )
        })
    }

    fn rules(&self, head: Head) -> Vec<&'static [Rule]> {
        (self.family.rules)(head)
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new((self.family.build)(self, head))
    }
}

impl EncoderConfig {
    /// A configuration with what is the same in most families: BERT's positions and axes, no segments. The reader of a family sets what
    /// its files say, and the caller the family.
    pub(crate) fn plain(
        common: Common,
        activation: Activation,
        norm_eps: f32,
        dropouts: &Dropouts,
    ) -> Self {
        Self {
            family: &crate::bert::FAMILY,
            d_embedding: common.sizes.d_model,
            positions: Positions::Learned,
            segments: Segments::None,
            n_languages: 0,
            mask: Mask::Full,
            activation,
            norm_eps,
            dropout: dropouts.everywhere,
            dropout_place: DropoutPlace::Everywhere,
            attention_dropout: dropouts.attention,
            classifier_dropout: dropouts.classifier,
            choice_dropout: dropouts.classifier,
            question_dropout: 0.0,
            embedding_range: common.initializer_range,
            generator: None,
            common,
        }
    }

    /// The padding token, whose vector is not trained.
    pub fn pad_token_id(&self) -> Option<u32> {
        self.common.tokens.pad
    }

    /// The block of every layer.
    pub fn block(&self) -> BlockConfig {
        let sizes = &self.common.sizes;
        let attention = AttentionConfig {
            dropout: self.attention_dropout,
            ..AttentionConfig::new(sizes.d_model, sizes.n_heads, self.mask)
        };
        let feed_forward = FeedForwardConfig::new(sizes.d_ff, self.activation);
        BlockConfig {
            dropout: self.dropout,
            dropout_place: self.dropout_place,
            ..BlockConfig::new(attention, feed_forward, NormPlace::Post, self.norm_eps)
        }
    }

    /// Rows of the position table.
    pub fn n_position_rows(&self) -> usize {
        self.common.sizes.max_len + self.position_offset() as usize
    }

    /// Row of the position table at which a sequence starts.
    pub fn position_offset(&self) -> u32 {
        match self.positions {
            Positions::LearnedAfterPadding => self.pad_token_id().unwrap_or(0) + 1,
            Positions::Learned | Positions::Sinusoidal => 0,
        }
    }

    /// Outputs of the classifier that `head` has, if it has one.
    pub fn n_outputs(&self, head: Head) -> Option<usize> {
        match head {
            Head::SequenceClassification | Head::TokenClassification => {
                Some(self.common.labels.n_labels)
            }
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
    pub pad_token_id: u32,
}

/// What they mean in BERT.
pub(crate) const BERT_DEFAULTS: BertDefaults = BertDefaults {
    max_positions: 512,
    positions: Positions::Learned,
    n_segments: 2,
    activation: "gelu",
    norm_eps: 1e-12,
    dropout: 0.1,
    pad_token_id: 0,
};

/// Reads the keys that BERT introduced and RoBERTa, ALBERT and ELECTRA took over.
pub(crate) fn read_bert_keys(
    read: &ConfigReader<'_>,
    defaults: &BertDefaults,
) -> Result<EncoderConfig, ConfigError> {
    read.refuse_unless("position_embedding_type", "absolute")?;
    let keys = ("hidden_size", "num_attention_heads");
    let heads = config_keys::heads(read, (keys.0, None), (keys.1, None), None)?;
    let max_key = "max_position_embeddings";
    let rows = config_keys::positive(read, max_key, Some(defaults.max_positions))?;
    let sizes = Sizes {
        vocab_size: config_keys::positive(read, "vocab_size", None)?,
        max_len: rows,
        n_layers: read.usize("num_hidden_layers")?,
        d_ff: config_keys::positive(read, "intermediate_size", None)?,
        ..heads
    };
    let mut common = Common::read(read, sizes, &COMMON_KEYS)?;
    common.pad_with(read, defaults.pad_token_id);
    if common.tokens.pad.is_none() && defaults.positions == Positions::LearnedAfterPadding {
        // Positions are counted from it.
        return Err(read.unsupported("pad_token_id", &Value::Null, "a token id"));
    }
    let everywhere = config_keys::rate(read, "hidden_dropout_prob", defaults.dropout)?;
    let dropouts = Dropouts {
        everywhere,
        attention: config_keys::rate(read, "attention_probs_dropout_prob", defaults.dropout)?,
        classifier: config_keys::rate(read, "classifier_dropout", f64::from(everywhere))?,
    };
    let activation = config_keys::activation(read, "hidden_act", defaults.activation)?;
    let norm_eps = read.f64_or("layer_norm_eps", defaults.norm_eps)? as f32;
    let n_segments = Some(defaults.n_segments);
    let mut this = EncoderConfig {
        positions: defaults.positions,
        segments: Segments::Table(config_keys::positive(read, "type_vocab_size", n_segments)?),
        ..EncoderConfig::plain(common, activation, norm_eps, &dropouts)
    };
    let offset = this.position_offset() as usize;
    if rows <= offset {
        let expected = format!("more than pad_token_id + 1 = {offset}");
        return Err(read.wrong_type(max_key, &Value::from(rows), &expected));
    }
    this.common.sizes.max_len = rows - offset;
    Ok(this)
}

/// Writes what [`read_bert_keys`] reads.
pub(crate) fn bert_json(config: &EncoderConfig) -> Value {
    let sizes = config.sizes();
    let mut json = json!({
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.d_model,
        "num_hidden_layers": sizes.n_layers,
        "num_attention_heads": sizes.n_heads,
        "intermediate_size": sizes.d_ff,
        "max_position_embeddings": config.n_position_rows(),
        "type_vocab_size": sizes.n_segments,
        "hidden_act": config_keys::activation_name(config.activation),
        "layer_norm_eps": config_keys::decimal(config.norm_eps),
        "hidden_dropout_prob": config_keys::decimal(config.dropout),
        "attention_probs_dropout_prob": config_keys::decimal(config.attention_dropout),
        "classifier_dropout": config_keys::decimal(config.classifier_dropout),
        "position_embedding_type": "absolute",
    });
    config.common.write(&mut json, &COMMON_KEYS);
    json
}
