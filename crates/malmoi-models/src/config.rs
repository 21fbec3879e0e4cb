//! What all configurations have in common.

use malmoi_checkpoint::directory;
use malmoi_nn::parameters::ParameterInfo;
use serde_json::{Value, json};

use crate::electra::pair;
use crate::error::ModelError;
use crate::head::{Head, ProblemType};
use crate::names::NameTable;
pub use crate::registry::ModelConfig;

/// What a token sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Both sides (BERT).
    Encoder,
    /// What stands before it (GPT).
    Decoder,
    /// A decoder that also sees all of a source, which an encoder reads (T5).
    EncoderDecoder,
}

/// The sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Longest sequence.
    pub max_len: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Blocks; of the decoder, where there is an encoder too.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Segment ids that a batch may use.
    pub n_segments: usize,
}

impl Sizes {
    /// Hidden states whose width is divided among heads with keys of their own; one segment, and nothing else yet.
    ///
    /// # Panics
    /// Without heads.
    pub(crate) fn of_heads(d_model: usize, n_heads: usize) -> Self {
        Self {
            vocab_size: 0,
            max_len: 0,
            d_model,
            n_layers: 0,
            n_heads,
            n_kv_heads: n_heads,
            d_head: d_model / n_heads,
            d_ff: 0,
            n_segments: 1,
        }
    }
}

/// Special tokens of a tokenizer that configurations name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Padding.
    pub pad: Option<u32>,
    /// Start of text.
    pub bos: Option<u32>,
    /// End of text.
    pub eos: Option<u32>,
}

impl ModelConfig {
    /// Names of all presets.
    pub fn preset_names() -> Vec<&'static str> {
        Self::presets().into_iter().map(|(name, _)| name).collect()
    }

    /// The published configuration of a preset, as `config.json` has it.
    pub fn preset_json(name: &str) -> Option<Value> {
        let mut presets = Self::presets().into_iter();
        Some(presets.find(|(preset, _)| *preset == name)?.1)
    }

    /// A preset by name.
    pub fn preset(name: &str) -> Option<Self> {
        Some(Self::from_json(&Self::preset_json(name)?, false).expect("presets are valid"))
    }

    /// Reads `config.json` of any architecture.
    ///
    /// # Errors
    /// An unknown `model_type`, or what the architecture's own reader finds.
    pub fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ModelError> {
        let model_type = directory::model_type(config);
        match Self::read(model_type, config, accept_unknown) {
            Some(config) => Ok(config?),
            None => Err(ModelError::UnknownArchitecture {
                found: model_type.to_owned(),
                expected: Self::model_types().join(", "),
            }),
        }
    }

    /// `config.json` for a model with `head`, as Python reads it.
    pub fn to_json(&self, head: Head) -> Value {
        let mut config = self.get().to_json();
        config["model_type"] = self.model_type().into();
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
        self.get().heads()
    }

    /// The published `model_type`.
    pub fn model_type(&self) -> &'static str {
        self.get().published().model_type
    }

    /// What a token sees.
    pub fn direction(&self) -> Direction {
        self.get().direction()
    }

    /// The head under which a pretrained model of this architecture is usually counted: the bare encoder, or the language model.
    pub fn usual_head(&self) -> Head {
        match self.direction() {
            Direction::Encoder => Head::None,
            Direction::Decoder => Head::CausalLm,
            Direction::EncoderDecoder => Head::Seq2SeqLm,
        }
    }

    /// Whether a token sees only those before it (and a source, where there is an encoder too).
    pub fn is_causal(&self) -> bool {
        self.direction() != Direction::Encoder
    }

    /// All sizes.
    pub fn sizes(&self) -> Sizes {
        self.get().sizes()
    }

    /// The same configuration with other sizes. Compare [`ModelConfig::sizes`] afterwards: an architecture that cannot have one of
    /// them keeps its own.
    pub fn with_sizes(mut self, sizes: &Sizes) -> Self {
        self.get_mut().set_sizes(sizes);
        self
    }

    /// Entries of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.sizes().vocab_size
    }

    /// The same configuration for another vocabulary.
    pub fn with_vocab_size(self, vocab_size: usize) -> Self {
        let sizes = Sizes {
            vocab_size,
            ..self.sizes()
        };
        self.with_sizes(&sizes)
    }

    /// Longest sequence.
    pub fn max_len(&self) -> usize {
        self.sizes().max_len
    }

    /// Positions up to which the computation is defined: beyond [`ModelConfig::max_len`] for schemes without a table of positions.
    pub fn position_limit(&self) -> usize {
        self.get().position_limit()
    }

    /// Width of the hidden states.
    pub fn d_model(&self) -> usize {
        self.sizes().d_model
    }

    /// Blocks; of the decoder, where there is an encoder too.
    pub fn n_layers(&self) -> usize {
        self.sizes().n_layers
    }

    /// Attention heads.
    pub fn n_heads(&self) -> usize {
        self.sizes().n_heads
    }

    /// Key and value heads.
    pub fn n_kv_heads(&self) -> usize {
        self.sizes().n_kv_heads
    }

    /// Width of a head.
    pub fn d_head(&self) -> usize {
        self.sizes().d_head
    }

    /// Width of the feed-forward layer.
    pub fn d_ff(&self) -> usize {
        self.sizes().d_ff
    }

    /// Segment ids that a batch may use. GPT looks segments up in the token embedding.
    pub fn n_segments(&self) -> usize {
        self.sizes().n_segments
    }

    /// Language ids that a batch may use; 0 without language embeddings.
    pub fn n_languages(&self) -> usize {
        self.get().n_languages()
    }

    /// Whether published code moves the labels of the language model by one token; in XLM the caller has done so.
    pub fn shifts_labels(&self) -> bool {
        self.get().shifts_labels()
    }

    /// An ELECTRA discriminator with the generator that it is trained with: [`crate::Labels::ReplacedTokens`] trains a model of
    /// this configuration and [`Head::ReplacedTokens`].
    ///
    /// # Errors
    /// Another architecture, or sizes that keep the two from sharing their embeddings.
    pub fn with_generator(self, generator: Self) -> Result<Self, ModelError> {
        let detects = |config: &Self| {
            let mut heads = config.architecture_names().iter();
            heads.any(|(head, _)| *head == Head::ReplacedTokens)
        };
        let fits = detects(&self) && detects(&generator);
        match (self, generator) {
            (Self::Encoder(mut config), Self::Encoder(generator)) if fits => {
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

    /// The same configuration with one dropout rate everywhere.
    pub fn with_dropout(mut self, rate: f32) -> Self {
        self.get_mut().set_dropout(rate);
        self
    }

    /// The same configuration with the special tokens of a tokenizer.
    pub fn with_special_tokens(mut self, tokens: SpecialTokens) -> Self {
        self.get_mut().set_special_tokens(tokens);
        self
    }

    /// The token that a decoder behind an encoder starts with.
    pub fn decoder_start(&self) -> Option<u32> {
        Some(self.get().common().source?.decoder_start_token_id)
    }

    /// The padding token, which also stands where a decoder behind an encoder has nothing to read.
    pub fn pad_token(&self) -> Option<u32> {
        self.get().common().tokens.pad
    }

    /// How the labels of a sequence classifier are read; by their number where the configuration does not say it.
    pub fn problem_type(&self) -> ProblemType {
        let labels = &self.get().common().labels;
        labels.problem_type.unwrap_or(match labels.n_labels {
            1 => ProblemType::Regression,
            _ => ProblemType::SingleLabel,
        })
    }

    /// Names of the labels, empty when none were given.
    pub fn labels(&self) -> &[String] {
        &self.get().common().labels.labels
    }

    /// Standard deviation of initial weights.
    pub fn initializer_range(&self) -> f32 {
        self.get().common().initializer_range
    }

    /// The same configuration with another standard deviation of initial weights.
    pub fn with_initializer_range(mut self, deviation: f32) -> Self {
        self.get_mut().set_initializer_range(deviation);
        self
    }

    /// Where parameters live in a file whose base-model names do or don't carry the prefix.
    pub(crate) fn names(&self, head: Head, prefixed: bool) -> NameTable {
        let (published, common) = (self.get().published(), self.get().common());
        let prefix = if prefixed {
            self.get().prefix(head)
        } else {
            ""
        };
        let rules = self.get().rules(head);
        let table = NameTable::new(&rules, prefix, published.unprefixed);
        let n_layers = common.sizes.n_layers;
        match common.source {
            None => table.sharing_in("layers.", common.sharing, n_layers),
            Some(source) => table
                .sharing_in("encoder.layers.", common.sharing, source.sizes.n_layers)
                .sharing_in("decoder.layers.", common.sharing, n_layers),
        }
    }

    /// The published name of the tensor that is tied to a parameter of ours, when there is one.
    pub(crate) fn tied_copy(&self, parameter: &str) -> Option<&'static str> {
        let mut tied = self.get().published().tied.iter();
        let (_, copy) = tied.find(|(ours, _)| *ours == parameter)?;
        self.get().common().tied.then_some(*copy)
    }

    /// Standard deviation of the initial values of one weight.
    pub(crate) fn initial_deviation(&self, parameter: &ParameterInfo) -> f32 {
        self.get().initial_deviation(parameter)
    }
}
