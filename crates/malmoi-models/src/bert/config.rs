//! Published configuration of BERT.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::Activation;
use serde_json::{Value, json};

use super::{model::Bert, weights};
use crate::architecture::{Architecture, Config, Network};
use crate::config::{Direction, Sizes, SpecialTokens};
use crate::config_keys::{self, LabelSet};
use crate::head::{Head, ProblemType};
use crate::names::NameTable;

/// Published sizes (Devlin et al., 2018, section 3): name, layers, d_model, heads.
const SIZES: &[(&str, usize, usize, usize)] =
    &[("bert-base", 12, 768, 12), ("bert-large", 24, 1024, 16)];

/// Sizes and rates of a BERT model.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Longest sequence.
    pub max_len: usize,
    /// Segments (token types).
    pub n_segments: usize,
    /// Activation of feed-forward and vocabulary head.
    pub activation: Activation,
    /// Added to the variance in the norms.
    pub norm_eps: f32,
    /// Dropout after embeddings, attention and feed-forward.
    pub dropout: f32,
    /// Dropout on attention probabilities.
    pub attention_dropout: f32,
    /// Dropout before a classifier.
    pub classifier_dropout: f32,
    /// Standard deviation of initial weights.
    pub initializer_range: f32,
    /// The padding token.
    pub pad_token_id: u32,
    /// Outputs of a classifier.
    pub n_labels: usize,
    /// Their names, if any were published.
    pub labels: Vec<String>,
    /// How a sequence classifier's labels are read; by the number of labels when absent.
    pub problem_type: Option<ProblemType>,
}

impl Architecture for BertConfig {
    const MODEL_TYPES: &'static [&'static str] = &["bert"];

    fn presets() -> Vec<(&'static str, Value)> {
        let config = |(name, layers, d, heads): &(&'static str, usize, usize, usize)| {
            let config = json!({
                "model_type": "bert", "vocab_size": 30522, "hidden_size": d, "num_hidden_layers": layers,
                "num_attention_heads": heads, "intermediate_size": 4 * d, "max_position_embeddings": 512,
            });
            (*name, config)
        };
        SIZES.iter().map(config).collect()
    }

    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError> {
        let read = ConfigReader::new(config, "bert")?;
        read.refuse_unless("position_embedding_type", "absolute")?;
        read.refuse_unless("tie_word_embeddings", true)?;
        // Leftovers of the first release, which no published code reads.
        read.inert(&[
            "directionality",
            "pooler_fc_size",
            "pooler_num_attention_heads",
            "pooler_num_fc_layers",
            "pooler_size_per_head",
            "pooler_type",
        ]);
        let dropout = config_keys::rate(&read, "hidden_dropout_prob", 0.1)?;
        let LabelSet {
            n_labels,
            labels,
            problem_type,
        } = config_keys::labels(&read)?;
        let this = Self {
            vocab_size: config_keys::positive(&read, "vocab_size", None)?,
            d_model: config_keys::positive(&read, "hidden_size", None)?,
            n_layers: read.usize("num_hidden_layers")?,
            n_heads: config_keys::positive(&read, "num_attention_heads", None)?,
            d_ff: config_keys::positive(&read, "intermediate_size", None)?,
            max_len: config_keys::positive(&read, "max_position_embeddings", Some(512))?,
            n_segments: config_keys::positive(&read, "type_vocab_size", Some(2))?,
            activation: config_keys::activation(&read, "hidden_act", "gelu")?,
            norm_eps: read.f64_or("layer_norm_eps", 1e-12)? as f32,
            dropout,
            attention_dropout: config_keys::rate(&read, "attention_probs_dropout_prob", 0.1)?,
            classifier_dropout: config_keys::rate(&read, "classifier_dropout", f64::from(dropout))?,
            initializer_range: read.f64_or("initializer_range", 0.02)? as f32,
            pad_token_id: read.usize_or("pad_token_id", 0)? as u32,
            n_labels,
            labels,
            problem_type,
        };
        config_keys::divisible(
            &read,
            "hidden_size",
            this.d_model,
            "num_attention_heads",
            this.n_heads,
        )?;
        read.finish(accept_unknown)?;
        Ok(this)
    }
}

impl Config for BertConfig {
    fn to_json(&self) -> Value {
        let mut config = json!({
            "model_type": "bert",
            "vocab_size": self.vocab_size,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "intermediate_size": self.d_ff,
            "max_position_embeddings": self.max_len,
            "type_vocab_size": self.n_segments,
            "hidden_act": config_keys::activation_name(self.activation),
            "layer_norm_eps": config_keys::decimal(self.norm_eps),
            "hidden_dropout_prob": config_keys::decimal(self.dropout),
            "attention_probs_dropout_prob": config_keys::decimal(self.attention_dropout),
            "classifier_dropout": config_keys::decimal(self.classifier_dropout),
            "initializer_range": config_keys::decimal(self.initializer_range),
            "pad_token_id": self.pad_token_id,
            "position_embedding_type": "absolute",
            "tie_word_embeddings": true,
        });
        config_keys::write_labels(&mut config, &self.labels, self.problem_type);
        config
    }

    fn model_type(&self) -> &'static str {
        "bert"
    }

    fn heads(&self) -> &'static [(Head, &'static str)] {
        &[
            (Head::None, "BertModel"),
            (Head::Pretraining, "BertForPreTraining"),
            (Head::MaskedLm, "BertForMaskedLM"),
            (Head::NextSentence, "BertForNextSentencePrediction"),
            (
                Head::SequenceClassification,
                "BertForSequenceClassification",
            ),
            (Head::TokenClassification, "BertForTokenClassification"),
            (Head::QuestionAnswering, "BertForQuestionAnswering"),
            (Head::MultipleChoice, "BertForMultipleChoice"),
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
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            n_kv_heads: self.n_heads,
            d_head: self.d_model / self.n_heads,
            d_ff: self.d_ff,
            n_segments: self.n_segments,
        }
    }

    fn set_sizes(&mut self, sizes: &Sizes) {
        (self.vocab_size, self.max_len) = (sizes.vocab_size, sizes.max_len);
        (self.d_model, self.n_layers, self.n_heads) =
            (sizes.d_model, sizes.n_layers, sizes.n_heads);
        (self.d_ff, self.n_segments) = (sizes.d_ff, sizes.n_segments);
    }

    fn set_dropout(&mut self, rate: f32) {
        self.dropout = rate;
        self.attention_dropout = rate;
        self.classifier_dropout = rate;
    }

    fn set_special_tokens(&mut self, tokens: SpecialTokens) {
        self.pad_token_id = tokens.pad.unwrap_or(0);
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
        "bert."
    }

    fn names(&self, head: Head, prefixed: bool) -> NameTable {
        weights::table(head, if prefixed { self.prefix() } else { "" })
    }

    fn tied_copy(&self, parameter: &str) -> Option<&'static str> {
        match parameter {
            "embeddings.token.weight" => Some("cls.predictions.decoder.weight"),
            "vocabulary.bias" => Some("cls.predictions.decoder.bias"),
            _ => None,
        }
    }

    fn is_redundant(&self, name: &str) -> bool {
        weights::is_redundant(name)
    }

    fn build(&self, head: Head) -> Box<dyn Network> {
        Box::new(Bert::new(self, head))
    }
}
