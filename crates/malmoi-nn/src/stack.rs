//! The blocks of an encoder or decoder, one after another.

use burn::tensor::Tensor;

use crate::attention::{Memory, Surroundings};
use crate::batch::PackedBatch;
use crate::block::{Block, BlockConfig};
use crate::bridge;
use crate::cache::KvCache;
use crate::pass::Pass;
use crate::positions::{PositionBias, reach};
use crate::sharing::Sharing;

/// A model's blocks with what they share. Borrowed, because the parameters belong to the model.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a> {
    /// Blocks with parameters of their own.
    pub blocks: &'a [Block],
    /// Which of them runs where.
    pub sharing: Sharing,
    /// Layers; as many as blocks where nothing is shared.
    pub n_layers: usize,
    /// Added to the scores of each.
    pub bias: PositionBias<'a>,
}

impl<'a> Stack<'a> {
    /// Blocks that share nothing.
    pub fn new(blocks: &'a [Block]) -> Self {
        Self::shared(blocks, Sharing::None, blocks.len())
    }

    /// The blocks of `n_layers` layers, with weights yet to be filled; of shared ones one each.
    pub fn blocks_of(config: &BlockConfig, sharing: Sharing, n_layers: usize) -> Vec<Block> {
        let n_blocks = sharing.n_blocks(n_layers);
        (0..n_blocks).map(|_| Block::new(config)).collect()
    }

    /// Blocks of which some run more than once.
    pub fn shared(blocks: &'a [Block], sharing: Sharing, n_layers: usize) -> Self {
        Self {
            blocks,
            sharing,
            n_layers,
            bias: PositionBias::None,
        }
    }

    /// The blocks in the order in which they run; a shared one comes each time.
    pub fn iter(&self) -> impl Iterator<Item = &'a Block> + use<'a> {
        self.sharing.over(self.n_layers, self.blocks).into_iter()
    }

    /// `x [N, d_model]` through all blocks; `keep` sees the input of each and the last one's output. `memory` is what
    /// cross-attention attends to.
    pub fn forward(
        &self,
        mut x: Tensor<2>,
        batch: &PackedBatch,
        memory: Option<Memory>,
        pass: &Pass,
        keep: &mut dyn FnMut(&Tensor<2>),
    ) -> Tensor<2> {
        let mut around = self.around(batch, memory, pass, &[]);
        let recompute = pass.recomputes() && bridge::is_tracked(&x);
        for (i, block) in self.iter().enumerate() {
            keep(&x);
            if i > 0 {
                around.memory = around.memory.map(Memory::handed_on);
            }
            x = if recompute {
                recomputed(block, x, &around)
            } else {
                block.forward(x, &around)
            };
        }
        keep(&x);
        x
    }

    /// New tokens `x [N, d_model]` behind `cache`, which takes them up.
    pub fn forward_cached(
        &self,
        mut x: Tensor<2>,
        batch: &PackedBatch,
        cache: &mut KvCache,
    ) -> Tensor<2> {
        let pass = Pass::inference();
        let around = self.around(batch, None, &pass, cache.lengths());
        for (i, block) in self.iter().enumerate() {
            let source = cache.cross.get(i).map_or(&[][..], Vec::as_slice);
            x = block.forward_cached(x, &around, &mut cache.layers[i], source);
        }
        cache.advance(&batch.cu_seqlens);
        x
    }

    /// An empty cache for `n_sequences` sequences; with a source, for its sequences, whose keys and values are computed now.
    pub fn new_cache(&self, n_sequences: usize, memory: Option<&Memory>) -> KvCache {
        let mut cache = KvCache::new(self.iter().count(), n_sequences);
        if let Some(memory) = memory {
            let attentions = self
                .iter()
                .filter_map(|block| block.cross_attention.as_ref());
            cache.cross = attentions.map(|cross| cross.cross_cache(memory)).collect();
        }
        cache
    }

    /// Probabilities of self-attention, and of cross-attention where there is any, of each block for its input among `inputs`.
    pub fn attention_probabilities(
        &self,
        inputs: Vec<Tensor<2>>,
        batch: &PackedBatch,
        memory: Option<Memory>,
    ) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
        let pass = Pass::inference();
        let around = self.around(batch, memory, &pass, &[]);
        let (mut own, mut cross) = (Vec::new(), Vec::new());
        for (block, x) in self.iter().zip(inputs) {
            own.push(block.attention_probabilities(x.clone(), &around));
            cross.extend(block.cross_attention_probabilities(x, &around));
        }
        (own, cross)
    }

    /// Operations of one token in a sequence of `context` tokens, multiply-adds counted as two.
    pub fn flops(&self, context: usize) -> u64 {
        self.iter().map(|block| block.flops(context)).sum()
    }

    fn around<'b>(
        &self,
        batch: &'b PackedBatch,
        memory: Option<Memory>,
        pass: &'b Pass,
        before: &[usize],
    ) -> Surroundings<'b> {
        Surroundings {
            batch,
            pass,
            bias: self.bias.tensor(reach(batch, before)),
            memory,
        }
    }
}

/// [`Block::forward`] without keeping its activations.
fn recomputed(block: &Block, x: Tensor<2>, around: &Surroundings<'_>) -> Tensor<2> {
    // Only a block that looks at the source takes it in.
    let memory = (around.memory.as_ref()).filter(|_| block.cross_attention.is_some());
    let cu_seqlens = memory.map(|memory| memory.cu_seqlens.clone());
    let has_bias = around.bias.is_some();
    // The engine follows the last input first, which in a block is the residual connection and therefore is so here: then gradients
    // of embeddings that both sides of an encoder-decoder use are added in the same order.
    let mut inputs: Vec<Tensor<2>> = memory
        .map(|memory| memory.states.clone())
        .into_iter()
        .collect();
    inputs.extend(around.bias.clone());
    inputs.push(x);
    let batch = around.batch.clone();
    bridge::recomputed(
        block,
        inputs,
        around.pass,
        move |block, mut inputs, pass| {
            let x = inputs.pop().expect("the block's input");
            let bias = has_bias.then(|| inputs.pop()).flatten();
            let memory = cu_seqlens.clone().zip(inputs.pop());
            let around = Surroundings {
                batch: &batch,
                pass,
                bias,
                memory: memory.map(|(cu_seqlens, states)| Memory { states, cu_seqlens }),
            };
            block.forward(x, &around)
        },
    )
}
