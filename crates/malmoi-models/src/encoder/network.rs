//! The network of every encoder: embeddings, a stack of post-norm blocks, and the heads that a family puts on it.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use malmoi_nn::layers::parameter;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{Activation, Block, Linear, Norm, PackedBatch, Pass, Sharing, Stack};

use super::{Embeddings, EncoderConfig};
use crate::architecture::Network;
use crate::electra::pair::Generator;
use crate::head::Head;
use crate::labels::VocabularyTargets;
use crate::layers::normed;

/// What turns hidden states into the input of the vocabulary projection, and the output bias. The weight is the token
/// embedding's.
#[derive(Module, Debug)]
pub struct VocabularyHead {
    /// `[E, D]`; absent where hidden states are projected as they are.
    pub dense: Option<Linear>,
    /// The norm behind the activation.
    pub norm: Option<Norm>,
    /// `[V]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    activation: Activation,
}

impl VocabularyHead {
    /// Dense layer to the width of the embeddings, activation, norm, projection.
    pub fn transformed(config: &EncoderConfig, activation: Activation) -> Self {
        Self {
            dense: Some(Linear::new(
                config.common.sizes.d_model,
                config.d_embedding,
                true,
            )),
            norm: Some(Norm::layer(config.d_embedding, config.norm_eps)),
            ..Self::plain(config, activation)
        }
    }

    /// The projection alone.
    pub fn plain(config: &EncoderConfig, activation: Activation) -> Self {
        Self {
            dense: None,
            norm: None,
            bias: parameter([config.common.sizes.vocab_size], 0.0),
            activation,
        }
    }

    /// The projection, whose weight is the token embedding's.
    pub fn projection(&self, embeddings: &Embeddings) -> Projection {
        Projection {
            weight: embeddings.token.weight.clone(),
            bias: Some(self.bias.val()),
        }
    }

    /// Rows `[M, D]` → `[M, E]`, ready for the projection.
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let rows = match &self.dense {
            Some(dense) => ops::activation(dense.forward(rows), self.activation),
            None => rows,
        };
        normed(self.norm.as_ref(), rows)
    }
}

/// Whether each token was replaced (ELECTRA): dense layer, activation, one logit.
#[derive(Module, Debug)]
pub struct Detector {
    /// `[D, D]`.
    pub dense: Linear,
    /// `[1, D]`.
    pub output: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Detector {
    /// A head with weights yet to be filled.
    pub fn new(config: &EncoderConfig) -> Self {
        let d = config.common.sizes.d_model;
        Self {
            dense: Linear::new(d, d, true),
            output: Linear::new(d, 1, true),
            activation: config.activation,
        }
    }
}

/// How the first token of a sequence becomes its vector: dropout, the pooler's dense layer, an activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pooling {
    /// Dropout before the dense layer.
    pub dropout: f32,
    /// The activation behind it.
    pub activation: Activation,
}

impl Pooling {
    /// No dropout.
    pub fn with(activation: Activation) -> Self {
        Self {
            dropout: 0.0,
            activation,
        }
    }
}

/// The encoder with the heads that its task needs.
#[derive(Module, Debug)]
pub struct Encoder {
    /// Tokens, positions, segments, languages.
    pub embeddings: Embeddings,
    /// From the width of the embeddings to that of the hidden states.
    pub projection: Option<Linear>,
    /// Blocks with parameters of their own; `sharing` says which runs where.
    pub layers: Vec<Block>,
    /// The dense layer on the first token.
    pub pooler: Option<Linear>,
    /// Masked (or causal) language modelling.
    pub vocabulary: Option<VocabularyHead>,
    /// Two classes of a pair of segments: next sentence, or sentence order.
    pub next_sentence: Option<Linear>,
    /// Classes of sequences or tokens, spans, choices.
    pub classifier: Option<Linear>,
    /// Replaced-token detection.
    pub detector: Option<Detector>,
    /// The generator that is trained with an ELECTRA discriminator.
    pub generator: Option<Generator>,
    #[module(skip)]
    pooling: Pooling,
    #[module(skip)]
    classifier_dropout: f32,
    #[module(skip)]
    pair_dropout: f32,
    #[module(skip)]
    sharing: Sharing,
    #[module(skip)]
    n_layers: usize,
}

impl Encoder {
    /// Embeddings and blocks, and the classifier that `head` asks for; a family adds its own parts.
    pub fn new(config: &EncoderConfig, head: Head) -> Self {
        let (sizes, sharing) = (&config.common.sizes, config.common.sharing);
        let (d, n_layers) = (sizes.d_model, sizes.n_layers);
        Self {
            embeddings: Embeddings::new(config),
            projection: None,
            layers: Stack::blocks_of(&config.block(), sharing, n_layers),
            pooler: None,
            vocabulary: None,
            next_sentence: None,
            classifier: config.n_outputs(head).map(|n| Linear::new(d, n, true)),
            detector: None,
            generator: None,
            pooling: Pooling::with(Activation::Tanh),
            classifier_dropout: config.dropout_before(head),
            pair_dropout: 0.0,
            sharing,
            n_layers,
        }
    }

    /// With a dense layer from the embeddings to the hidden states.
    pub fn with_projection(mut self, config: &EncoderConfig) -> Self {
        self.projection = Some(Linear::new(
            config.d_embedding,
            config.common.sizes.d_model,
            true,
        ));
        self
    }

    /// With a dense layer on the first token.
    pub fn with_pooler(mut self, config: &EncoderConfig, pooling: Pooling) -> Self {
        let d = config.common.sizes.d_model;
        self.pooler = Some(Linear::new(d, d, true));
        self.pooling = pooling;
        self
    }

    /// With a head that predicts tokens.
    pub fn with_vocabulary(mut self, head: VocabularyHead) -> Self {
        self.vocabulary = Some(head);
        self
    }

    /// With two classes of a pair of segments, behind `dropout`.
    pub fn with_pair_classes(mut self, config: &EncoderConfig, dropout: f32) -> Self {
        self.next_sentence = Some(Linear::new(config.common.sizes.d_model, 2, true));
        self.pair_dropout = dropout;
        self
    }

    /// With a head that tells replaced tokens.
    pub fn with_detector(mut self, config: &EncoderConfig) -> Self {
        self.detector = Some(Detector::new(config));
        self
    }

    /// With a generator that is trained along.
    pub fn with_generator(mut self, generator: Option<Generator>) -> Self {
        self.generator = generator;
        self
    }

    /// With another dropout before the classifier.
    pub fn with_classifier_dropout(mut self, dropout: f32) -> Self {
        self.classifier_dropout = dropout;
        self
    }

    /// The vector of each sequence, `[B, D]`: its first token, through the pooler where there is one.
    fn pool(&self, hidden: Tensor<2>, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let first: Arc<[u32]> = batch.cu_seqlens[..batch.n_sequences()].into();
        let first = ops::gather_rows(hidden, first);
        match &self.pooler {
            Some(pooler) => {
                let first = ops::dropout(first, pass.dropout(self.pooling.dropout));
                ops::activation(pooler.forward(first), self.pooling.activation)
            }
            None => first,
        }
    }

    /// Classifier logits of pooled states `[B, D]` or token states `[N, D]`, with dropout before them.
    fn classify(&self, states: Tensor<2>, pass: &Pass) -> Option<Tensor<2>> {
        let dropped = ops::dropout(states, pass.dropout(self.classifier_dropout));
        Some(self.classifier.as_ref()?.forward(dropped))
    }
}

impl Network for Encoder {
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        self.embeddings
            .projected(self.projection.as_ref(), batch, pass)
    }

    fn stack(&self) -> Stack<'_> {
        Stack::shared(&self.layers, self.sharing, self.n_layers)
    }

    fn sequence_outputs(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        pass: &Pass,
    ) -> Option<Tensor<2>> {
        self.classify(self.pool(hidden, batch, pass), pass)
    }

    /// Of a discriminator: above zero where the token looks replaced.
    fn token_outputs(&self, hidden: Tensor<2>, pass: &Pass) -> Option<Tensor<2>> {
        match &self.detector {
            Some(head) => {
                let dense = ops::activation(head.dense.forward(hidden), head.activation);
                Some(head.output.forward(dense))
            }
            None => self.classify(hidden, pass),
        }
    }

    fn next_sentence(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        pass: &Pass,
    ) -> Option<Tensor<2>> {
        let pooled = self.pool(hidden, batch, pass);
        let dropped = ops::dropout(pooled, pass.dropout(self.pair_dropout));
        Some(self.next_sentence.as_ref()?.forward(dropped))
    }

    fn fill_blanks(
        &self,
        batch: &PackedBatch,
        targets: &VocabularyTargets,
        pass: &Pass,
        format: &dyn Fn(Tensor<2>) -> Tensor<2>,
    ) -> Option<(Tensor<2>, Projection)> {
        let generator = self.generator.as_ref()?;
        let embedded = generator.embed(&self.embeddings, batch, pass);
        generator.forward(format(embedded), &self.embeddings, batch, targets, pass)
    }

    fn vocabulary_input(&self, rows: Tensor<2>) -> Tensor<2> {
        match &self.vocabulary {
            Some(head) => head.forward(rows),
            None => rows,
        }
    }

    fn projection(&self) -> Option<Projection> {
        Some(self.vocabulary.as_ref()?.projection(&self.embeddings))
    }
}
