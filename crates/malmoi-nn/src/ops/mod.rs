//! Differentiable operations: each kernel family of `malmoi-kernels` with its backward pass, as functions on tensors.

mod activation;
mod attention;
mod cross_entropy;
mod distance_bias;
mod dropout;
mod embedding;
mod linear;
mod losses;
mod means;
mod norm;
mod residual;
mod rotary;
mod sentence_losses;
mod soft_losses;

pub use activation::{activation, gated};
pub use attention::{AttentionLayout, attention, attention_cached, attention_probabilities};
pub use cross_entropy::{Projection, cross_entropy, linear_cross_entropy};
pub use distance_bias::bias_of_buckets;
pub use dropout::dropout;
pub use embedding::{gather_rows, sum_of_embeddings};
pub use linear::{Dense, dense, feed_forward, linear};
pub use losses::{
    binary_cross_entropy, mean_squared_error, weighted_binary_cross_entropy, weighted_sum,
};
pub use means::sequence_means;
pub use norm::{norm, residual_norm};
pub use residual::{add, add_dropout};
pub use rotary::{RotaryLayout, rotary};
pub use sentence_losses::{cosine_order, cosine_regression, in_batch_negatives};
pub use soft_losses::{cosine_distance, distillation, hinge, smooth_l1, smoothed_cross_entropy};
