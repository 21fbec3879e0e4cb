//! BART: Lewis et al. (2019), "BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation, Translation, and
//! Comprehension".

mod config;
mod model;
mod weights;

pub use config::{BartConfig, SideConfig};
