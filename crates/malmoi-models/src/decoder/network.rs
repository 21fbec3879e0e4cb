//! The network of every decoder: embeddings, a stack of causal blocks, and the heads that a family puts on it.

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops::{self, Projection};
use malmoi_nn::{
    Block, BlockConfig, Embedding, Linear, Norm, NormConfig, PackedBatch, Pass, Sharing, Stack,
};

use super::DecoderConfig;
use crate::architecture::Network;
use crate::head::Head;
use crate::layers::{last_rows, normed, own_projection, projection};

/// The decoder with the heads that its task needs.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `[V, D]`.
    pub token: Embedding,
    /// `[positions, D]`, where positions have vectors.
    pub position: Option<Embedding>,
    /// Blocks with parameters of their own; `sharing` says which runs where.
    pub layers: Vec<Block>,
    /// The norm behind the last block.
    pub norm: Option<Norm>,
    /// A projection to the vocabulary that is not the embedding.
    pub vocabulary: Option<Linear>,
    /// Classes of sequences, read at their last token.
    pub classifier: Option<Linear>,
    /// One score of a sequence, for multiple choice.
    pub choice: Option<Linear>,
    #[module(skip)]
    embedding_dropout: f32,
    #[module(skip)]
    choice_dropout: f32,
    #[module(skip)]
    frozen_token: Option<u32>,
    #[module(skip)]
    pad_token_id: Option<u32>,
    #[module(skip)]
    sharing: Sharing,
    #[module(skip)]
    n_layers: usize,
}

impl Decoder {
    /// Token embeddings, the blocks that `block` says of each layer (from 0), and the heads: a projection of its own where it is
    /// not tied, a classifier, a score.
    pub fn new(config: &DecoderConfig, head: Head, block: impl Fn(usize) -> BlockConfig) -> Self {
        let (sizes, sharing) = (&config.common.sizes, config.common.sharing);
        let (d, v) = (sizes.d_model, sizes.vocab_size);
        let classes = head == Head::SequenceClassification;
        let n_blocks = sharing.n_blocks(sizes.n_layers);
        Self {
            token: Embedding::new(v, d),
            position: None,
            layers: (0..n_blocks)
                .map(|layer| Block::new(&block(layer)))
                .collect(),
            norm: None,
            vocabulary: own_projection(&config.common, head, false),
            classifier: classes.then(|| Linear::new(d, config.common.labels.n_labels, false)),
            choice: (head == Head::DoubleHeads).then(|| Linear::new(d, 1, true)),
            embedding_dropout: config.embedding_dropout,
            choice_dropout: config.classifier_dropout,
            frozen_token: config.frozen_token(),
            pad_token_id: config.common.tokens.pad,
            sharing,
            n_layers: sizes.n_layers,
        }
    }

    /// With a table of positions.
    pub fn with_positions(mut self, config: &DecoderConfig) -> Self {
        let sizes = &config.common.sizes;
        self.position = Some(Embedding::new(sizes.max_len, sizes.d_model));
        self
    }

    /// With a norm behind the last block.
    pub fn with_norm(mut self, config: &DecoderConfig, norm: NormConfig) -> Self {
        self.norm = Some(Norm::new(config.common.sizes.d_model, norm));
        self
    }
}

impl Network for Decoder {
    /// Token, position, and the embedding of a segment's token where segments are given; then dropout.
    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        let mut tables = vec![self.token.at(&batch.ids)];
        if let Some(position) = &self.position {
            tables.push(position.at(&batch.positions));
            if let Some(segments) = &batch.segments {
                tables.push(self.token.at(segments));
            }
        }
        let sum = ops::sum_of_embeddings(tables, [self.frozen_token]);
        ops::dropout(sum, pass.dropout(self.embedding_dropout))
    }

    fn stack(&self) -> Stack<'_> {
        Stack::shared(&self.layers, self.sharing, self.n_layers)
    }

    fn finish(&self, hidden: Tensor<2>, _pass: &Pass) -> Tensor<2> {
        normed(self.norm.as_ref(), hidden)
    }

    fn sequence_outputs(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        _pass: &Pass,
    ) -> Option<Tensor<2>> {
        let rows = ops::gather_rows(hidden, last_rows(batch, self.pad_token_id));
        Some(self.classifier.as_ref()?.forward(rows))
    }

    fn choice_scores(&self, rows: Tensor<2>, pass: &Pass) -> Option<Tensor<2>> {
        let dropped = ops::dropout(rows, pass.dropout(self.choice_dropout));
        Some(self.choice.as_ref()?.forward(dropped))
    }

    fn projection(&self) -> Option<Projection> {
        Some(projection(&self.vocabulary, &self.token))
    }
}
