//! `malmoi finetune`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use malmoi_tasks::TaskSpec;
use malmoi_tasks::charts::Curves;
use malmoi_train::finetune::{self, FinetuneConfig, SweepSection};
use malmoi_train::training::{Event, RunOptions};
use toml::Value;

use crate::arguments::{Global, LoraArguments, RunArguments};
use crate::commands::finetune_embed::FinetuneEmbed;
use crate::commands::finetune_lm::FinetuneLm;
use crate::failure::{Failure, INTERRUPTED, Result};
use crate::profile::ProfileArguments;
use crate::task::{
    ChoiceFlags, ClassifyFlags, PairFlags, QaFlags, RegressFlags, TagFlags, TaskArguments,
    Text2textFlags,
};
use crate::training::{Watcher, conclude, run_options};
use crate::{model, output};

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
    /// One label for a pair of texts: entailment, paraphrase
    #[command(
        after_help = "Example:\n  malmoi finetune pair --model malmoi-quickstart/bert --train nli.tsv --valid nli-valid.tsv --text-column premise \
                      --pair-column hypothesis --out malmoi-nli"
    )]
    Pair(Run<PairFlags>),
    /// A tag for every word or character: named entities
    #[command(
        after_help = "Files have a token and its tag a line and an empty line between sentences (CoNLL); with a character a line and headers (## ...) in KLUE's \
                      layout. Tables (.jsonl, .parquet) have lists of tokens and tags.\n\nExample:\n  malmoi finetune tag --model malmoi-quickstart/bert --train train.tsv.gz \
                      --valid valid.tsv.gz --out malmoi-names"
    )]
    Tag(Run<TagFlags>),
    /// The answer to a question, cut out of a text
    #[command(
        after_help = "Files are SQuAD's JSON, or tables with a context, a question and answers. FILE#0-111 takes the articles 0 to 111.\n\nExample:\n  malmoi finetune qa \
                      --model malmoi-quickstart/bert --train train.json --valid valid.json --max-len 384 --out malmoi-answers"
    )]
    Qa(Run<QaFlags>),
    /// One of several continuations
    #[command(
        after_help = "Example:\n  malmoi finetune choice --model malmoi-quickstart/bert --train copa.tsv --text-column premise --question-column question \
                      --choice-columns choice0,choice1 --out malmoi-copa"
    )]
    Choice(Run<ChoiceFlags>),
    /// A text from a text: translation, summaries, answers
    #[command(
        after_help = "A decoder alone (GPT-2) reads source and target as one text with its end token between them.\n\nExample:\n  malmoi finetune text2text --model malmoi-quickstart/gpt \
                      --train chat.tsv --source-column question --target-column answer --max-len 32 --max-target-len 32 --out malmoi-chat"
    )]
    Text2text(Run<Text2textFlags>),
    /// Go on with pretraining on a text of your own
    Lm(Box<FinetuneLm>),
    /// Vectors of sentences: pairs that belong together, or pairs with scores
    Embed(Box<FinetuneEmbed>),
}

impl Finetune {
    pub fn run(self, global: &Global) -> Result<()> {
        match self {
            Self::Classify(verb) => verb.run(global),
            Self::Regress(verb) => verb.run(global),
            Self::Pair(verb) => verb.run(global),
            Self::Tag(verb) => verb.run(global),
            Self::Qa(verb) => verb.run(global),
            Self::Choice(verb) => verb.run(global),
            Self::Text2text(verb) => verb.run(global),
            Self::Lm(verb) => verb.run(global),
            Self::Embed(verb) => verb.run(global),
        }
    }
}

/// A fine-tuning run of one task.
#[derive(Args, Debug)]
#[command(
    mut_arg("model", |arg| arg.required_unless_present("config").help("Pretrained model: a directory, a run, or a hub id (a recipe may name one)")),
    mut_arg("train", |arg| arg.required_unless_present("config").help(
        "Training rows: a table (.tsv, .csv, .jsonl, also .gz, .zst; .parquet) or a file of the task's own layout; may be given several times"
    )),
    mut_arg("valid", |arg| arg.help("Validation rows"))
)]
pub struct Run<T: TaskArguments + Args> {
    #[command(flatten)]
    run: RunArguments,
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
    /// Chance that a subword is taken apart while it is learned from, so that a word is read in more ways than one (default: 0)
    #[arg(long, value_name = "P", help_heading = "Recipe")]
    subword_dropout: Option<f64>,
    /// Seed of the new head, the order of rows and dropout (default: 1)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    seed: Option<u64>,
    /// Metric that decides which checkpoint is best (default: the task's own)
    #[arg(long, value_name = "NAME", help_heading = "Recipe")]
    metric: Option<String>,
    /// Steps between evaluations (default: an epoch)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    eval_every: Option<u64>,
    /// Forward passes of --batch-size rows in a step (default: 1)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    accumulation: Option<usize>,
    /// Stop after so many evaluations without an improvement
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    early_stop: Option<usize>,
    /// Factor on the learning rate from each block to the one below it (default: 1)
    #[arg(long, value_name = "X", help_heading = "Recipe")]
    layer_decay: Option<f64>,
    /// Freeze the embeddings and so many of the first blocks
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    freeze_layers: Option<usize>,
    /// Give the head initial values even where the files have one
    #[arg(long, help_heading = "Recipe")]
    reset_head: bool,
    /// Weights of the classes: balanced, or a table such as {rare=5.0}
    #[arg(long, value_name = "W", help_heading = "Recipe")]
    class_weights: Option<String>,
    /// Share of a target's weight that all classes get alike (default: 0)
    #[arg(long, value_name = "P", help_heading = "Recipe")]
    label_smoothing: Option<f64>,
    /// Decoder: start, delimiter and extract tokens around the texts, as GPT-1 reads its tasks
    #[arg(long, help_heading = "Recipe")]
    task_tokens: bool,
    /// Decoder: weight of the language-model loss beside that of the task (GPT-1: 0.5)
    #[arg(long, value_name = "X", help_heading = "Recipe")]
    lm_weight: Option<f64>,
    #[command(flatten)]
    lora: LoraArguments,
    /// Runs with these seeds, with commas; mean and standard deviation are shown, the best model is kept
    #[arg(
        long,
        value_name = "NS",
        value_delimiter = ',',
        help_heading = "Several runs"
    )]
    seeds: Vec<u64>,
    /// Runs for every combination of the recipe's [sweep.grid], or of the grid of BERT's paper (18 runs)
    #[arg(long, help_heading = "Several runs")]
    sweep: bool,
    /// Encoding of the files (default: utf-8)
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// Recipe file (TOML): the sections of config.toml in a run's folder
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Accept keys in config.json that malmoi does not know
    #[arg(long)]
    accept_unknown_config: bool,
    #[command(flatten)]
    profile: ProfileArguments,
}

impl<T: TaskArguments + Args> Run<T> {
    /// The flags as overrides of the recipe, then those of `--set`.
    fn overrides(&self, base: Option<TaskSpec>, global: &Global) -> Result<Vec<String>> {
        let mut pairs = vec![
            (
                "model.accept_unknown_config",
                self.accept_unknown_config.then_some(Value::Boolean(true)),
            ),
            ("data.max_len", self.max_len.map(whole)),
            (
                "data.subword_dropout",
                self.subword_dropout.map(Value::Float),
            ),
            ("data.encoding", self.encoding.clone().map(Value::String)),
            ("train.epochs", self.epochs.map(Value::Float)),
            ("train.batch_size", self.batch_size.map(whole)),
            ("train.accumulation", self.accumulation.map(whole)),
            ("train.early_stop", self.early_stop.map(whole)),
            ("train.dropout", self.dropout.map(Value::Float)),
            ("optimizer.lr", self.lr.map(Value::Float)),
            ("seed", self.seed.map(|seed| Value::Integer(seed as i64))),
            ("evaluate.metric", self.metric.clone().map(Value::String)),
            (
                "evaluate.every",
                self.eval_every.map(|every| Value::Integer(every as i64)),
            ),
            ("tune.layer_decay", self.layer_decay.map(Value::Float)),
            ("tune.freeze_layers", self.freeze_layers.map(whole)),
            (
                "tune.reset_head",
                self.reset_head.then_some(Value::Boolean(true)),
            ),
            (
                "tune.label_smoothing",
                self.label_smoothing.map(Value::Float),
            ),
            (
                "tune.task_tokens",
                self.task_tokens.then_some(Value::Boolean(true)),
            ),
            ("tune.lm_weight", self.lm_weight.map(Value::Float)),
        ];
        pairs.extend(self.lora.keys());
        let spec = self.task.spec(base);
        self.task.check(&spec)?;
        let spec = Value::try_from(spec).map_err(|error| Failure::work(error.to_string()))?;
        pairs.push(("task", Some(spec)));
        // A table of weights is written as in a recipe.
        let weights = (self.class_weights.iter()).map(|text| format!("tune.class_weights={text}"));
        let flags = self.run.overrides(self.run.directory(global)?, pairs);
        Ok(weights.chain(flags).collect())
    }

    /// The task of the recipe file, which flags change.
    fn recipe_task(&self) -> Result<Option<TaskSpec>> {
        let Some(path) = &self.config else {
            return Ok(None);
        };
        let table: toml::Table = toml::from_str(&crate::input::file(path)?)
            .map_err(|error| Failure::input(format!("{}: {error}", path.display())))?;
        let Some(task) = table.get("task").cloned() else {
            return Ok(None);
        };
        let task: TaskSpec = (task.try_into())
            .map_err(|error| Failure::input(format!("{}: [task]: {error}", path.display())))?;
        let (asked, found) = (self.task.spec(None), task.task().name());
        match asked.task().name() == found {
            true => Ok(Some(task)),
            false => Err(Failure::input(format!(
                "{}: this recipe is for the task `{found}`, not `{}`: run `malmoi finetune {found}`",
                path.display(),
                asked.task().name()
            ))),
        }
    }

    /// The configuration: recipe, flags, and what several runs differ in.
    fn configuration(&self, global: &Global) -> Result<FinetuneConfig> {
        let overrides = self.overrides(self.recipe_task()?, global)?;
        let mut config = match &self.config {
            Some(path) => FinetuneConfig::load(path, &overrides)?,
            None => FinetuneConfig::parse("", "the command line", &overrides)?,
        };
        if !config.model.path.is_dir() {
            let name = config.model.path.display().to_string();
            config.model.path = model::directory(&name, global)?;
        }
        match (self.sweep, self.seeds.is_empty()) {
            (true, _) => {
                let mut section = config.sweep.take().unwrap_or_default();
                if !self.seeds.is_empty() {
                    section.seeds.clone_from(&self.seeds);
                }
                config.sweep = Some(section);
            }
            (false, false) => config.sweep = Some(SweepSection::of_seeds(self.seeds.clone())),
            (false, true) => config.sweep = None,
        }
        Ok(config)
    }

    fn run(self, global: &Global) -> Result<()> {
        let config = self.configuration(global)?;
        let options = run_options(&self.run.out, self.run.resume)?;
        self.profile.start();
        if config.sweep.is_some() {
            several(&config, &options, global)?;
            return self.profile.finish(&config.train.precision);
        }
        let mut watcher = Watcher::new(global.quiet);
        let summary = finetune::run(&config, &options, &mut |event: &Event<'_>| {
            watcher.event(event)
        })?;
        watcher.finish();
        self.profile.finish(&config.train.precision)?;
        draw_curves(&self.run.out)?;
        conclude(&summary)
    }
}

/// Several runs, and a table of what came of them.
fn several(config: &FinetuneConfig, options: &RunOptions, global: &Global) -> Result<()> {
    let mut watcher = Watcher::new(global.quiet);
    let quiet = global.quiet;
    let summary = finetune::sweep(
        config,
        options,
        &mut |event: &Event<'_>| watcher.event(event),
        &mut |summary| {
            let text = format!("run {} of {} is done", summary.rows.len(), summary.runs);
            crate::progress::remark(quiet, text);
        },
    )?;
    let metric = summary.metric.replace('_', " ");
    let keys: Vec<String> = summary
        .rows
        .first()
        .map_or_else(Vec::new, |row| row.settings.keys().cloned().collect());
    let mut rows = vec![keys.clone()];
    rows[0].extend([format!("mean {metric}"), "deviation".into(), "runs".into()]);
    for (settings, mean, deviation, runs) in summary.groups() {
        let mut row: Vec<String> = settings.values().cloned().collect();
        row.extend([
            format!("{mean:.4}"),
            format!("{deviation:.4}"),
            runs.to_string(),
        ]);
        rows.push(row);
    }
    // An interrupted first run leaves nothing to show.
    if rows.len() > 1 {
        output::table(&"r".repeat(keys.len() + 3), &rows)?;
    }
    if let Some(best) = summary.best() {
        output::line(format!(
            "best: {metric} {:.4} in {} at step {}",
            best.value, best.run, best.step
        ))?;
        output::line(format!("model: {}", options.out.join("best").display()))?;
    }
    match summary.rows.len() == summary.runs {
        true => Ok(()),
        false => {
            output::line(format!(
                "interrupted: {} of {} runs are done; --resume goes on",
                summary.rows.len(),
                summary.runs
            ))?;
            Err(Failure::Said(INTERRUPTED))
        }
    }
}

/// Writes the curves of a run into its folder.
fn draw_curves(out: &Path) -> Result<()> {
    let path = out.join("metrics.jsonl");
    let curves = Curves::read(&crate::input::file(&path)?);
    output::to_file(&out.join("curves.svg"), &curves.svg())
}

fn whole(n: usize) -> Value {
    Value::Integer(n as i64)
}
