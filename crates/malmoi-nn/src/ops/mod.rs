//! Differentiable operations: each kernel family of `malmoi-kernels` with its backward pass, as functions on tensors.

mod activation;
mod attention;
mod cross_entropy;
mod dropout;
mod embedding;
mod linear;
mod losses;
mod norm;
mod residual;

pub use activation::activation;
pub use attention::{AttentionLayout, attention, attention_cached, attention_probabilities};
pub use cross_entropy::{Projection, cross_entropy, linear_cross_entropy};
pub use dropout::dropout;
pub use embedding::{gather_rows, sum_of_embeddings};
pub use linear::linear;
pub use losses::{
    binary_cross_entropy, mean_squared_error, weighted_binary_cross_entropy, weighted_sum,
};
pub use norm::{layer_norm, residual_layer_norm};
pub use residual::{add, add_dropout};
