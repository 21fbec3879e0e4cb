//! `malmoi finetune`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use malmoi_train::finetune::{self, FinetuneConfig};
use malmoi_train::training::{Event, RunOptions};
use toml::Value;

use crate::arguments::Global;
use crate::commands::finetune_embed::FinetuneEmbed;
use crate::failure::{Failure, Result};
use crate::task::{ClassifyFlags, RegressFlags, TaskArguments, Text2textFlags};
use crate::training::{Watcher, conclude};
use crate::{interrupt, model};

/// What can be learned from a data set.
#[derive(Subcommand, Debug)]
pub enum Finetune {
    /// One label for a text, or for a pair of texts
    #[command(
        after_help = "The labels are those of the training rows; config.json keeps them (id2label).\n\nExample:\n  malmoi finetune classify --model malmoi-quickstart/bert \
                      --train data/ko_sentiment_nsmc/train.tsv.gz --valid data/ko_sentiment_nsmc/valid.tsv --text-column document --out malmoi-sentiment"
    )]
    Classify(Run<ClassifyFlags>),
    /// One value for a text, or for a pair of texts
    #[command(
        after_help = "Example:\n  malmoi finetune regress --model malmoi-quickstart/bert --train sts.tsv --text-column sentence1 --pair-column sentence2 \
                      --label-column score --out malmoi-similarity"
    )]
    Regress(Run<RegressFlags>),
    /// A text from a text: translation, summaries, answers
    #[command(
        after_help = "A decoder alone (GPT-2) reads source and target as one text with its end token between them.\n\nExample:\n  malmoi finetune text2text --model malmoi-quickstart/gpt \
                      --train chat.tsv --source-column question --target-column answer --max-len 32 --max-target-len 32 --out malmoi-chat"
    )]
    Text2text(Run<Text2textFlags>),
    /// Vectors of sentences: pairs that belong together, or pairs with scores
    Embed(Box<FinetuneEmbed>),
}

impl Finetune {
    pub fn run(self, global: &Global) -> Result<()> {
        match self {
            Self::Classify(verb) => verb.run(global),
            Self::Regress(verb) => verb.run(global),
            Self::Text2text(verb) => verb.run(global),
            Self::Embed(verb) => verb.run(global),
        }
    }
}

/// A fine-tuning run of one task.
#[derive(Args, Debug)]
pub struct Run<T: TaskArguments + Args> {
    /// Pretrained model: a directory, a run, or a hub id
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Training rows: .tsv, .csv or .jsonl (also .gz, .zst); may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    train: Vec<PathBuf>,
    /// Validation rows
    #[arg(long, value_name = "FILE")]
    valid: Vec<PathBuf>,
    /// Folder of the run; `best` and `last` in it are model directories
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    task: T,
    /// Tokens of an input; longer ones are cut and counted (default: 128)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    max_len: Option<usize>,
    /// Passes over the training rows (default: 3)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    epochs: Option<f64>,
    /// Rows of a step (default: 32)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    batch_size: Option<usize>,
    /// Peak learning rate (default: 5e-5)
    #[arg(long, value_name = "X", help_heading = "Recipe")]
    lr: Option<f64>,
    /// Dropout (default: the model's own)
    #[arg(long, value_name = "P", help_heading = "Recipe")]
    dropout: Option<f64>,
    /// Seed of the new head, the order of rows and dropout (default: 1)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    seed: Option<u64>,
    /// Metric that decides which checkpoint is best (default: the task's own)
    #[arg(long, value_name = "NAME", help_heading = "Recipe")]
    metric: Option<String>,
    /// Steps between evaluations (default: an epoch)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    eval_every: Option<u64>,
    /// Encoding of the files (default: utf-8)
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// Recipe file (TOML): the sections of config.toml in a run's folder
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a key of the recipe, such as optimizer.kind=lamb; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Continue the run in --out from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// Accept keys in config.json that malmoi does not know
    #[arg(long)]
    accept_unknown_config: bool,
}

impl<T: TaskArguments + Args> Run<T> {
    /// The flags as overrides of the recipe, then those of `--set`.
    fn overrides(&self, global: &Global) -> Result<Vec<String>> {
        let text = |path: &PathBuf| Value::String(path.display().to_string());
        let list = |paths: &[PathBuf]| Value::Array(paths.iter().map(text).collect());
        let mut pairs = vec![
            (
                "model.path",
                Some(text(&model::directory(&self.model, global)?)),
            ),
            (
                "model.accept_unknown_config",
                Some(Value::Boolean(self.accept_unknown_config)),
            ),
            ("data.train", Some(list(&self.train))),
            (
                "data.valid",
                (!self.valid.is_empty()).then(|| list(&self.valid)),
            ),
            ("data.max_len", self.max_len.map(whole)),
            ("data.encoding", self.encoding.clone().map(Value::String)),
            ("train.epochs", self.epochs.map(Value::Float)),
            ("train.batch_size", self.batch_size.map(whole)),
            ("train.dropout", self.dropout.map(Value::Float)),
            ("optimizer.lr", self.lr.map(Value::Float)),
            ("seed", self.seed.map(|seed| Value::Integer(seed as i64))),
            ("evaluate.metric", self.metric.clone().map(Value::String)),
            (
                "evaluate.every",
                self.eval_every.map(|every| Value::Integer(every as i64)),
            ),
        ];
        let spec = Value::try_from(self.task.spec(None))
            .map_err(|error| Failure::work(error.to_string()))?;
        pairs.push(("task", Some(spec)));
        let flags = pairs
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key}={}", value?)));
        Ok(flags.chain(self.set.iter().cloned()).collect())
    }

    fn run(self, global: &Global) -> Result<()> {
        let overrides = self.overrides(global)?;
        let config = match &self.config {
            Some(path) => FinetuneConfig::load(path, &overrides)?,
            None => FinetuneConfig::parse("", "the command line", &overrides)?,
        };
        if self.resume && !self.out.is_dir() {
            return Err(Failure::input(format!(
                "{}: there is no run to resume; start it without --resume",
                self.out.display()
            )));
        }
        let options = RunOptions {
            out: self.out.clone(),
            resume: self.resume,
            interrupt: Some(interrupt::graceful()),
            time_limit: None,
        };
        let mut watcher = Watcher::new(global.quiet);
        let summary = finetune::run(&config, &options, &mut |event: &Event<'_>| {
            watcher.event(event)
        })?;
        watcher.finish();
        conclude(&summary)
    }
}

fn whole(n: usize) -> Value {
    Value::Integer(n as i64)
}
