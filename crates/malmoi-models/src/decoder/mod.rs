//! What the decoder families share: one network of exchangeable parts and one configuration.
//!
//! GPT-1, GPT-2, GPT-3, GPT-Neo and LLaMA are the same stack of causal blocks on the choices that their blocks make. A [`Family`] is a
//! folder: its published keys (`config.rs`), its blocks and what stands around them (`model.rs`) and its table of names
//! (`weights.rs`). Everything that runs is here.

mod config;
mod family;
mod network;

pub use config::DecoderConfig;
pub use family::{Family, ResidualStart};
pub use network::Decoder;
