//! ModernBERT: Warner et al. (2024), "Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder".

mod config;
mod model;
mod weights;

pub use config::{ModernBertConfig, Pooling, Reach};
