//! Pretraining: from a configuration and text to a model directory.
//!
//! [`run`] does it all. A run directory holds the resolved configuration, the tokenizer, metrics, event files and checkpoints;
//! every checkpoint is a complete model directory with the state that [`RunOptions::resume`] continues from, bit for bit.

mod card;
mod evaluate;
mod event;
mod pace;
mod prepare;
mod run;
mod setup;
mod show;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod tokenizer;

pub use crate::config::PretrainConfig;
pub use evaluate::{Evaluation, evaluate};
pub use event::{Event, Observer, Silent, Started, StepEvent, StopReason};
pub use run::{RunOptions, Summary, run};
pub use setup::model_config;
pub use show::show;
pub use step::{Accumulated, StepOptions, StepReport, Trainer};
