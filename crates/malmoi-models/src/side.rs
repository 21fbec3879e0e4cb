//! The two sides of an encoder-decoder: blocks, and what stands before and behind them.

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::{
    AttentionConfig, Block, BlockConfig, Embedding, Mask, Norm, NormConfig, PositionBias,
    RelativeBias, Sharing, Stack,
};

use crate::common::{Common, SideSizes};
use crate::layers::normed;

/// Which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The encoder, which sees all of the source.
    Encoder,
    /// The decoder, which sees what stands before a token, and the encoder's output.
    Decoder,
}

/// One side.
#[derive(Module, Debug)]
pub struct Side {
    /// `[positions, D]`, where a side has positions of its own (BART).
    pub position: Option<Embedding>,
    /// A norm over the embeddings (BART).
    pub embedding_norm: Option<Norm>,
    /// Blocks with parameters of their own; `sharing` says which runs where.
    pub layers: Vec<Block>,
    /// A bias by relative position, shared by the blocks (T5).
    pub relative: Option<RelativeBias>,
    /// The norm behind the last block.
    pub norm: Option<Norm>,
    #[module(skip)]
    sharing: Sharing,
    #[module(skip)]
    n_layers: usize,
}

impl Side {
    /// A side of which `attention` says how its blocks attend, and `block` what else is in them. The decoder's blocks attend to the
    /// encoder's output as well, with the same attention but for the mask.
    pub fn new(
        common: &Common,
        which: Which,
        attention: impl Fn(&SideSizes, Mask) -> AttentionConfig,
        block: impl Fn(&SideSizes, AttentionConfig) -> BlockConfig,
    ) -> Self {
        let sizes = common.side(which);
        let own = match which {
            Which::Encoder => Mask::Full,
            Which::Decoder => Mask::Causal,
        };
        let block = BlockConfig {
            cross: (which == Which::Decoder).then(|| attention(&sizes, Mask::Full)),
            ..block(&sizes, attention(&sizes, own))
        };
        Self {
            position: None,
            embedding_norm: None,
            layers: Stack::blocks_of(&block, common.sharing, sizes.n_layers),
            relative: None,
            norm: None,
            sharing: common.sharing,
            n_layers: sizes.n_layers,
        }
    }

    /// With a table of so many rows for positions and a norm over the embeddings, both of `d` columns.
    pub fn with_embeddings(mut self, rows: usize, d: usize, norm: NormConfig) -> Self {
        self.position = Some(Embedding::new(rows, d));
        self.embedding_norm = Some(Norm::new(d, norm));
        self
    }

    /// With a bias by relative position.
    pub fn with_relative(mut self, relative: RelativeBias) -> Self {
        self.relative = Some(relative);
        self
    }

    /// With a norm over `d` columns behind the last block.
    pub fn with_norm(mut self, d: usize, norm: NormConfig) -> Self {
        self.norm = Some(Norm::new(d, norm));
        self
    }

    /// The blocks.
    pub fn stack(&self) -> Stack<'_> {
        let bias = self.relative.as_ref().map(PositionBias::Relative);
        Stack {
            bias: bias.unwrap_or(PositionBias::None),
            ..Stack::shared(&self.layers, self.sharing, self.n_layers)
        }
    }

    /// What stands before the first block, on the sum of the embeddings.
    pub fn norm_embeddings(&self, sum: Tensor<2>) -> Tensor<2> {
        normed(self.embedding_norm.as_ref(), sum)
    }

    /// What follows the last block.
    pub fn finish(&self, hidden: Tensor<2>) -> Tensor<2> {
        normed(self.norm.as_ref(), hidden)
    }
}
