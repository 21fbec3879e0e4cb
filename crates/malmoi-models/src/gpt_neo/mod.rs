//! GPT-Neo: Black et al. (2021), "GPT-Neo: Large Scale Autoregressive Language Modeling with Mesh-Tensorflow".

mod config;
mod model;
mod weights;

pub use config::GptNeoConfig;
