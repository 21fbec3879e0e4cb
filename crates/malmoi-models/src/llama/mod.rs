//! LLaMA: Touvron et al. (2023), "LLaMA: Open and Efficient Foundation Language Models", and its successors of the same form.

mod config;
mod model;
mod weights;

pub use config::LlamaConfig;
