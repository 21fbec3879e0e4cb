//! Transformer blocks and fused differentiable operations.
//!
//! From the bottom up: [`bridge`] turns a pair of slice functions into a differentiable operation, [`ops`] holds those
//! operations, and the blocks ([`Linear`], [`LayerNorm`], [`MultiHeadAttention`], [`FeedForward`], [`Block`]) compose
//! them. A batch is a [`PackedBatch`]: the tokens of all sequences one after another, without padding.

pub mod attention;
pub mod batch;
pub mod block;
pub mod bridge;
pub mod buffers;
pub mod host;
pub mod layers;
pub mod ops;
pub mod parameters;
pub mod pass;
pub mod sharing;

pub use attention::{AttentionConfig, KvCache, MultiHeadAttention, SequenceCache};
pub use batch::{BatchError, KeyRows, PackedBatch};
pub use block::{Block, BlockConfig, FeedForward, NormPlace};
pub use layers::{Embedding, LayerNorm, Linear};
pub use malmoi_kernels::activation::Activation;
pub use malmoi_kernels::attention::Mask;
pub use malmoi_kernels::random::{Key, Purpose};
pub use pass::Pass;
pub use sharing::Sharing;
