//! One file a verb.

pub mod bench;
pub mod doctor;
pub mod embed;
pub mod eval;
pub mod eval_embed;
pub mod eval_lm;
pub mod eval_retrieval;
mod eval_task;
pub mod fill_mask;
pub mod finetune;
pub mod finetune_embed;
pub mod finetune_lm;
pub mod generate;
pub mod help;
pub mod info;
pub mod plan;
pub mod predict;
pub mod pretrain;
pub mod quickstart;
pub mod roofline;
pub mod serve;
pub mod tokenizer_encode;
pub mod tokenizer_inspect;
pub mod tokenizer_train;
pub mod verify;
pub mod zeroshot;
pub mod zeroshot_classify;

use clap::Subcommand;

use crate::arguments::{Arguments, TokenizerCommand};
use crate::failure::{Failure, Result};

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Train tokenizers, a small BERT and a small GPT from scratch, and use them
    Quickstart(quickstart::Quickstart),
    /// Train, try and measure tokenizers
    #[command(subcommand, disable_help_subcommand = true)]
    Tokenizer(TokenizerCommand),
    /// Pretrain a model as a configuration file says
    Pretrain(pretrain::Pretrain),
    /// Teach a pretrained model a task, from a table of examples
    #[command(subcommand, disable_help_subcommand = true)]
    Finetune(Box<finetune::Finetune>),
    /// Continue texts with a decoder
    Generate(generate::Generate),
    /// Find the best words for blanks with an encoder
    FillMask(fill_mask::FillMask),
    /// Turn texts into vectors
    Embed(embed::Embed),
    /// Ask a fine-tuned model
    #[command(subcommand, disable_help_subcommand = true)]
    Predict(predict::Predict),
    /// Measure a model on data
    #[command(subcommand, disable_help_subcommand = true)]
    Eval(eval::Eval),
    /// Answer over HTTP, and show the web lab
    Serve(serve::Serve),
    /// Compare with golden references
    Verify(verify::Verify),
    /// Time a documented workload
    Bench(bench::Bench),
    /// Measure the machine's roofs and place models under them
    Roofline(roofline::Roofline),
    /// Show a model's shape, parameters, memory and arithmetic
    Info(info::Info),
    /// Time and memory of a training before it runs
    Plan(plan::Plan),
    /// Show what this machine offers and what is missing
    Doctor(doctor::Doctor),
    /// Print help
    #[command(hide = true)]
    Help(help::Help),
}

/// Runs a verb.
pub fn run(arguments: Arguments) -> Result<()> {
    let global = arguments.global;
    let threads = global.threads.map_or(0, usize::from);
    malmoi_kernels::threads::set(threads).map_err(|error| Failure::input(error.to_string()))?;
    // Tokenization has a pool of its own kind; the two are never busy at the same time.
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| Failure::input(error.to_string()))?;
    match arguments.command {
        Command::Quickstart(verb) => verb.run(&global),
        Command::Tokenizer(TokenizerCommand::Train(verb)) => verb.run(&global),
        Command::Tokenizer(TokenizerCommand::Encode(verb)) => verb.run(&global),
        Command::Tokenizer(TokenizerCommand::Inspect(verb)) => verb.run(&global),
        Command::Pretrain(verb) => verb.run(&global),
        Command::Finetune(verb) => verb.run(&global),
        Command::Predict(verb) => verb.run(&global),
        Command::Generate(verb) => verb.run(&global),
        Command::FillMask(verb) => verb.run(&global),
        Command::Embed(verb) => verb.run(&global),
        Command::Eval(verb) => verb.run(&global),
        Command::Serve(verb) => verb.run(&global),
        Command::Verify(verb) => verb.run(&global),
        Command::Bench(verb) => verb.run(&global),
        Command::Roofline(verb) => verb.run(&global),
        Command::Info(verb) => verb.run(&global),
        Command::Plan(verb) => verb.run(&global),
        Command::Doctor(verb) => verb.run(&global),
        Command::Help(verb) => verb.run(),
    }
}
