//! Objectives, training loop, optimisers, schedules and resume.
//!
//! [`pretrain::run`] trains a model from a [`config::PretrainConfig`]: it tokenises the text ([`data`]), makes batches under an
//! objective ([`objectives`]), steps ([`optim`]), measures, and saves. Nothing here names a tensor type: the models of
//! `malmoi-models` take packed batches and give host-typed losses and gradients.

pub mod config;
pub mod data;
pub mod embedding;
pub mod error;
mod files;
pub mod finetune;
pub mod log;
pub mod objectives;
pub mod optim;
pub mod pretrain;
pub mod training;

pub use error::{ConfigProblem, TrainError};
