//! `malmoi finetune embed`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use malmoi_train::embedding::{self, EmbeddingConfig};
use malmoi_train::training::Event;
use toml::Value;

use crate::arguments::{Global, RunArguments};
use crate::failure::Result;
use crate::training::{Watcher, conclude, run_options};

/// Vectors of sentences: pairs that belong together, or pairs with scores
#[derive(Args, Debug)]
#[command(
    after_help = "Checkpoints have the layout of sentence-transformers, which `malmoi embed` and Python read.\nWith --label-column and --positive only the rows with these labels are pairs, as with \
                  entailments of inference data.\n\nExamples:\n  malmoi finetune embed --model malmoi-quickstart/bert --loss similarity --train sts-train.tsv --valid sts-valid.tsv \\\n    \
                  --label-column score --epochs 4 --out malmoi-embed\n  \
                  malmoi finetune embed --model malmoi-quickstart/bert --train nli.tsv --text-column premise --pair-column hypothesis \\\n    --label-column label --positive entailment --out malmoi-embed",
    mut_arg("model", |arg| arg.required(true)),
    mut_arg("train", |arg| arg.required(true).help("Training pairs: .tsv, .csv or .jsonl (also .gz, .zst); may be given several times")),
    mut_arg("valid", |arg| arg.help("Validation pairs: with scores for Spearman's correlation, without for retrieval"))
)]
pub struct FinetuneEmbed {
    #[command(flatten)]
    run: RunArguments,
    /// What is learned (default: contrastive)
    #[arg(long, value_enum)]
    loss: Option<LossName>,
    #[command(flatten)]
    columns: PairFlags,
    /// Column of a third text that does not belong to the first
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    negative_column: Option<String>,
    /// How token vectors become one: mean, cls or last (default: mean)
    #[arg(long, value_name = "NAME", help_heading = "Recipe")]
    pooling: Option<String>,
    /// Factor on the cosines (default: 20)
    #[arg(long, value_name = "X", help_heading = "Recipe")]
    scale: Option<f64>,
    /// Tokens of a text; longer ones are cut and counted (default: 128)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    max_len: Option<usize>,
    /// Passes over the training pairs (default: 1)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    epochs: Option<f64>,
    /// Pairs of a step (default: 32)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    batch_size: Option<usize>,
    /// Peak learning rate (default: 2e-5)
    #[arg(long, value_name = "X", help_heading = "Recipe")]
    lr: Option<f64>,
    /// Seed of the order of rows and of dropout (default: 1)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    seed: Option<u64>,
    /// Recipe file (TOML): the sections of config.toml in a run's folder
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Accept keys in config.json that malmoi does not know
    #[arg(long)]
    accept_unknown_config: bool,
}

/// Columns of pairs
#[derive(Args, Debug, Clone)]
pub struct PairFlags {
    /// Column of the first text (default: sentence1)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    pub text_column: Option<String>,
    /// Column of the second text (default: sentence2)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    pub pair_column: Option<String>,
    /// Column of the score (or of the label, with --positive)
    #[arg(long, value_name = "NAME", help_heading = "Columns")]
    pub label_column: Option<String>,
    /// Labels of the pairs that belong together, separated by commas; rows with others are left out
    #[arg(
        long,
        value_name = "A,B,…",
        value_delimiter = ',',
        requires = "label_column",
        help_heading = "Columns"
    )]
    pub positive: Vec<String>,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum LossName {
    /// Each first text finds its second one among those of the batch
    Contrastive,
    /// The cosine of a pair is its score
    Similarity,
    /// The cosines have the order of the scores
    Cosent,
}

impl FinetuneEmbed {
    /// The flags as overrides of the recipe, then those of `--set`.
    fn overrides(&self, global: &Global) -> Result<Vec<String>> {
        let name = |name: &Option<String>| name.clone().map(Value::String);
        let number = |n: Option<usize>| n.map(|n| Value::Integer(n as i64));
        let loss = self.loss.and_then(|loss| loss.to_possible_value());
        let positive = self.columns.positive.iter().cloned().map(Value::String);
        let pairs = [
            (
                "model.accept_unknown_config",
                Some(Value::Boolean(self.accept_unknown_config)),
            ),
            (
                "embedding.loss",
                loss.map(|loss| Value::String(loss.get_name().into())),
            ),
            ("embedding.pooling", name(&self.pooling)),
            ("embedding.scale", self.scale.map(Value::Float)),
            ("data.text_column", name(&self.columns.text_column)),
            ("data.pair_column", name(&self.columns.pair_column)),
            ("data.label_column", name(&self.columns.label_column)),
            ("data.negative_column", name(&self.negative_column)),
            (
                "data.positive",
                (!self.columns.positive.is_empty()).then(|| Value::Array(positive.collect())),
            ),
            ("data.max_len", number(self.max_len)),
            ("train.epochs", self.epochs.map(Value::Float)),
            ("train.batch_size", number(self.batch_size)),
            ("optimizer.lr", self.lr.map(Value::Float)),
            ("seed", self.seed.map(|seed| Value::Integer(seed as i64))),
        ];
        Ok(self.run.overrides(self.run.directory(global)?, pairs))
    }

    pub fn run(self, global: &Global) -> Result<()> {
        let overrides = self.overrides(global)?;
        let config = match &self.config {
            Some(path) => EmbeddingConfig::load(path, &overrides)?,
            None => EmbeddingConfig::parse("", "the command line", &overrides)?,
        };
        let options = run_options(&self.run.out, self.run.resume)?;
        let mut watcher = Watcher::new(global.quiet);
        let summary = embedding::run(&config, &options, &mut |event: &Event<'_>| {
            watcher.event(event)
        })?;
        watcher.finish();
        conclude(&summary)
    }
}
