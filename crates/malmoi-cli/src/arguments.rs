//! What can be written after `malmoi`.

use clap::{Args, Parser, Subcommand};
use malmoi_models::Precision;

use crate::commands;

/// Pretrain, verify and use BERT and GPT models on a CPU.
#[derive(Parser, Debug)]
#[command(
    name = "malmoi",
    bin_name = "malmoi",
    version,
    disable_help_subcommand = true,
    after_help = "Start with:\n  malmoi quickstart\n\nA MODEL is a directory, a preset (bert-base, gpt2, …) or a hub id (org/name)."
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: commands::Command,
}

/// Flags of every verb.
#[derive(Args, Debug, Clone, Copy)]
pub struct Global {
    /// Threads to compute with (default: one a core)
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Global options")]
    pub threads: Option<u16>,
    /// No progress and no remarks on stderr
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub quiet: bool,
}

/// How a model is named and what is tolerated when it is read.
#[derive(Args, Debug, Clone)]
pub struct ModelArguments {
    /// Model directory or hub id (org/name, org/name@revision)
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// Accept keys in config.json that malmoi does not know
    #[arg(long)]
    pub accept_unknown_config: bool,
    /// Accept a tokenizer that has fewer tokens than the model
    #[arg(long)]
    pub accept_smaller_tokenizer: bool,
    /// Arithmetic: f32, or bf16 (faster on processors with a tile unit)
    #[arg(long, value_name = "P", default_value = "f32")]
    pub precision: Precision,
}

/// Verbs that group others.
#[derive(Subcommand, Debug)]
pub enum TokenizerCommand {
    /// Train a tokenizer on text files
    Train(commands::tokenizer_train::Train),
    /// Encode text and show its tokens
    Encode(commands::tokenizer_encode::Encode),
    /// Measure how well a tokenizer fits a text (Hangul doctor)
    Inspect(commands::tokenizer_inspect::Inspect),
}
