//! GPT-2 and dense GPT-3: Radford et al. (2019), "Language Models are Unsupervised Multitask Learners"; Brown et al.
//! (2020), "Language Models are Few-Shot Learners".

mod config;
mod model;
mod weights;

pub use config::Gpt2Config;
pub(crate) use weights::BLOCKS;
