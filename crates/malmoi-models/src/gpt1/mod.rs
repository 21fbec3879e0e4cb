//! GPT-1: Radford et al. (2018), "Improving Language Understanding by Generative Pre-Training".

mod config;
mod model;
mod weights;

pub use config::Gpt1Config;
