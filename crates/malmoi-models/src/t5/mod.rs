//! T5 and mT5: Raffel et al. (2020), "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer"; Xue et
//! al. (2021), "mT5: A Massively Multilingual Pre-trained Text-to-Text Transformer".

mod config;
mod model;
mod weights;

pub use config::{Family, OutputScale, T5Config};
