//! The original Transformer: Vaswani et al. (2017), "Attention Is All You Need".

mod config;
mod model;
mod weights;

pub use config::{FinalNorm, VanillaConfig};
