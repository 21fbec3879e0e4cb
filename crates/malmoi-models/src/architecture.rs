//! What an architecture is made of: a configuration, which knows its published form, and a network.

use std::fmt::Debug;

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_checkpoint::{ConfigError, Tensors};
use malmoi_nn::bridge::LeafGradients;
use malmoi_nn::ops::Projection;
use malmoi_nn::parameters::{self, Mode, ParameterInfo, ParameterValues};
use malmoi_nn::{PackedBatch, Pass, Stack};
use serde_json::Value;

use crate::both_sides::SequenceHead;
use crate::common::Common;
use crate::config::{Direction, Sizes, SpecialTokens};
use crate::head::Head;
use crate::labels::VocabularyTargets;
use crate::loss::NamedGradient;
use crate::names::Rule;
use crate::published::Published;

/// How the registry reaches a configuration: by its published `model_type`s and presets.
pub(crate) trait Architecture: Config + Sized {
    /// The published `model_type`s that belong to it.
    const MODEL_TYPES: &'static [&'static str];

    /// Reads `config.json`; keys that change the computation are implemented or refused by name.
    ///
    /// # Errors
    /// A missing, wrong, unsupported or unknown key.
    fn from_json(config: &Value, accept_unknown: bool) -> Result<Self, ConfigError>;

    /// Published sizes: names and what `config.json` says.
    fn presets() -> Vec<(&'static str, Value)>;
}

/// What every configuration answers. Most of it follows from its common part and from how it is published.
pub(crate) trait Config: Debug {
    /// How it is published.
    fn published(&self) -> &'static Published;

    /// What all architectures have.
    fn common(&self) -> &Common;

    /// The same, to be changed.
    fn common_mut(&mut self) -> &mut Common;

    /// `config.json` as Python reads it, without `architectures` and `model_type`.
    fn to_json(&self) -> Value;

    /// What a token sees: both sides, unless there is a decoder.
    fn direction(&self) -> Direction {
        match self.common().source {
            Some(_) => Direction::EncoderDecoder,
            None => Direction::Encoder,
        }
    }

    /// Sets every dropout rate.
    fn set_dropout(&mut self, rate: f32);

    /// The table of names for a head.
    fn rules(&self, head: Head) -> Vec<&'static [Rule]>;

    /// A network with weights yet to be filled.
    fn build(&self, head: Head) -> Box<dyn Network>;

    /// Heads and the class names they are published under; the bare model first.
    fn heads(&self) -> &'static [(Head, &'static str)] {
        self.published().heads
    }

    /// The sizes.
    fn sizes(&self) -> Sizes {
        self.common().sizes
    }

    /// Takes over sizes. An architecture that cannot have one of them keeps its own.
    fn set_sizes(&mut self, sizes: &Sizes) {
        self.common_mut().resize(sizes);
    }

    /// What files with this head put before the names of the base model.
    fn prefix(&self, _head: Head) -> &'static str {
        self.published().prefix
    }

    /// Language ids that a batch may use; 0 without language embeddings.
    fn n_languages(&self) -> usize {
        0
    }

    /// Whether published code moves the labels of the language model by one token.
    fn shifts_labels(&self) -> bool {
        self.direction() == Direction::Decoder
    }

    /// What the loss over pairs of segments is called: next sentence, unless a family asks for another thing.
    fn pair_loss(&self) -> &'static str {
        "nsp"
    }

    /// Width of what is projected to the vocabulary.
    fn projection_width(&self) -> usize {
        self.sizes().d_model
    }

    /// Positions up to which the computation is defined; beyond the usual length for schemes without a table.
    fn position_limit(&self) -> usize {
        self.sizes().max_len
    }

    /// Takes over the special tokens of a tokenizer.
    fn set_special_tokens(&mut self, tokens: SpecialTokens) {
        self.common_mut().tokens = tokens;
    }

    /// Sets the standard deviation of initial weights.
    fn set_initializer_range(&mut self, deviation: f32) {
        self.common_mut().initializer_range = deviation;
    }

    /// Standard deviation of the initial values of one weight.
    fn initial_deviation(&self, _parameter: &ParameterInfo) -> f32 {
        self.common().initializer_range
    }

    /// Initial values of a weight that are not drawn at random.
    fn initial_table(&self, _parameter: &ParameterInfo) -> Option<Vec<f32>> {
        None
    }

    /// Takes from a file what a published configuration leaves to its weights.
    fn settle(&mut self, _tensors: &Tensors) {}

    /// Whether a published tensor is read by no computation.
    fn is_redundant(&self, name: &str) -> bool {
        let mut ends = self.published().redundant.iter();
        ends.any(|end| name.ends_with(end))
    }
}

/// A network: an embedding, a stack of blocks and heads. What it does not have is `None`.
pub(crate) trait Network: Parameters + Debug + Send + Sync {
    /// The embedding output, `[N, D]`.
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2>;

    /// The blocks; of the decoder, where there is an encoder too.
    fn stack(&self) -> Stack<'_>;

    /// What follows the last block, `[N, D]` → `[N, D]`.
    fn finish(&self, hidden: Tensor<2>, _pass: &Pass) -> Tensor<2> {
        hidden
    }

    /// The embedding output of an encoder in front, `[M, D]`.
    fn embed_source(&self, _source: &PackedBatch, _pass: &Pass) -> Option<Tensor<2>> {
        None
    }

    /// The blocks of an encoder in front.
    fn source_stack(&self) -> Option<Stack<'_>> {
        None
    }

    /// What follows the last block of an encoder in front.
    fn finish_source(&self, hidden: Tensor<2>, _pass: &Pass) -> Tensor<2> {
        hidden
    }

    /// What classifies texts that an encoder-decoder reads on both sides.
    fn both_sides(&self) -> Option<&SequenceHead> {
        None
    }

    /// Logits or values of each sequence from hidden states `[N, D]`: `[B, K]`.
    fn sequence_outputs(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        pass: &Pass,
    ) -> Option<Tensor<2>> {
        self.both_sides()?.outputs(hidden, batch, pass)
    }

    /// Logits of each token: `[N, K]`.
    fn token_outputs(&self, _hidden: Tensor<2>, _pass: &Pass) -> Option<Tensor<2>> {
        None
    }

    /// Logits of whether the second segment follows the first: `[B, 2]`.
    fn next_sentence(
        &self,
        _hidden: Tensor<2>,
        _batch: &PackedBatch,
        _pass: &Pass,
    ) -> Option<Tensor<2>> {
        None
    }

    /// Choice logits of hidden rows `[B, D]` → `[B, 1]`.
    fn choice_scores(&self, _rows: Tensor<2>, _pass: &Pass) -> Option<Tensor<2>> {
        None
    }

    /// What a generator makes of the hidden tokens of a batch, ready for the projection that comes with it (ELECTRA). `format`
    /// puts the embedding output into the format in which the model computes.
    fn fill_blanks(
        &self,
        _batch: &PackedBatch,
        _targets: &VocabularyTargets,
        _pass: &Pass,
        _format: &dyn Fn(Tensor<2>) -> Tensor<2>,
    ) -> Option<(Tensor<2>, Projection)> {
        None
    }

    /// Rows `[M, D]` of the last hidden state, made ready for the vocabulary projection.
    fn vocabulary_input(&self, rows: Tensor<2>) -> Tensor<2> {
        rows
    }

    /// The projection to the vocabulary.
    fn projection(&self) -> Option<Projection> {
        None
    }
}

/// The parameters of a network, whichever it is. Every Burn module has this.
pub(crate) trait Parameters {
    fn list(&self) -> Vec<ParameterInfo>;
    fn read(&self, f: &mut dyn FnMut(&ParameterInfo, &[f32]));
    fn gradients(&self, gradients: &mut LeafGradients) -> Vec<NamedGradient>;
    fn update(self: Box<Self>, f: &mut dyn FnMut(&ParameterInfo, &mut [f32])) -> Box<dyn Network>;
    fn freeze(self: Box<Self>, frozen: &mut dyn FnMut(&ParameterInfo) -> bool) -> Box<dyn Network>;
    /// `None` from `source` stops.
    fn fill(
        self: Box<Self>,
        mode: Mode,
        source: &mut dyn FnMut(&ParameterInfo) -> Option<ParameterValues>,
    ) -> Option<Box<dyn Network>>;
    /// The same values without a graph.
    fn plain(&self) -> Box<dyn Network>;
    fn boxed_clone(&self) -> Box<dyn Network>;
}

impl<M: Module + Network + 'static> Parameters for M {
    fn list(&self) -> Vec<ParameterInfo> {
        parameters::list(self)
    }

    fn read(&self, f: &mut dyn FnMut(&ParameterInfo, &[f32])) {
        parameters::read(self, f);
    }

    fn gradients(&self, gradients: &mut LeafGradients) -> Vec<NamedGradient> {
        parameters::gradients(self, gradients)
    }

    fn update(self: Box<Self>, f: &mut dyn FnMut(&ParameterInfo, &mut [f32])) -> Box<dyn Network> {
        Box::new(parameters::update(*self, f))
    }

    fn freeze(self: Box<Self>, frozen: &mut dyn FnMut(&ParameterInfo) -> bool) -> Box<dyn Network> {
        Box::new(parameters::freeze(*self, frozen))
    }

    fn fill(
        self: Box<Self>,
        mode: Mode,
        source: &mut dyn FnMut(&ParameterInfo) -> Option<ParameterValues>,
    ) -> Option<Box<dyn Network>> {
        let filled = parameters::fill(*self, mode, |info| source(info).ok_or(()));
        Some(Box::new(filled.ok()?))
    }

    fn plain(&self) -> Box<dyn Network> {
        Box::new(self.valid())
    }

    fn boxed_clone(&self) -> Box<dyn Network> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Network> {
    fn clone(&self) -> Self {
        (**self).boxed_clone()
    }
}
