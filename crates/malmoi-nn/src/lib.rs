//! Transformer blocks and fused differentiable operations.
//!
//! From the bottom up: [`bridge`] turns a pair of slice functions into a differentiable operation, [`ops`] holds those
//! operations, and the blocks ([`Linear`], [`Norm`], [`MultiHeadAttention`], [`FeedForward`], [`Block`], [`Stack`]) compose
//! them. A batch is a [`PackedBatch`]: the tokens of all sequences one after another, without padding.

pub mod attention;
pub mod batch;
pub mod block;
pub mod bridge;
pub mod buffers;
pub mod cache;
pub mod host;
pub mod layers;
pub mod ops;
pub mod parameters;
pub mod pass;
pub mod positions;
mod profile;
pub mod sharing;
pub mod stack;
pub mod weights;

pub use attention::{AttentionConfig, Biases, Memory, MultiHeadAttention, Surroundings};
pub use batch::{BatchError, KeyRows, PackedBatch};
pub use block::{
    Block, BlockConfig, DropoutPlace, FeedForward, FeedForwardConfig, FeedForwardKind, NormPlace,
};
pub use cache::{KvCache, SequenceCache, Stored};
pub use layers::{Embedding, Linear, Norm, NormConfig, NormKind};
pub use malmoi_kernels::activation::Activation;
pub use malmoi_kernels::attention::Mask;
pub use malmoi_kernels::random::{Key, Purpose};
pub use malmoi_kernels::rotary::Pairs;
pub use pass::Pass;
pub use positions::{PositionBias, Positions, RelativeBias, Rotary, Sides, Sinusoids};
pub use sharing::Sharing;
pub use stack::Stack;
