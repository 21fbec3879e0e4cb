//! `malmoi finetune lm`.

use clap::{Args, ValueEnum};
use malmoi_checkpoint::read_config;
use malmoi_models::{Direction, ModelConfig};
use malmoi_train::config::PretrainConfig;
use toml::Value;

use crate::arguments::{Global, LoraArguments, RunArguments};
use crate::commands::pretrain::train;
use crate::failure::Result;
use crate::model;
use crate::profile::ProfileArguments;

/// Go on with pretraining on a text of your own
#[derive(Args, Debug)]
#[command(
    after_help = "A decoder (GPT) learns the next token, an encoder (BERT) hidden tokens, T5 hidden spans, BART a text from what is left of it. Afterwards `malmoi generate`, `malmoi fill-mask`, \
                  `malmoi eval lm` and every `malmoi finetune` take the result.\nThe run is one of `malmoi pretrain`: its keys (docs/guide/configuration.md) go with --set.\n\nExamples:\n  \
                  malmoi finetune lm --model malmoi-quickstart/gpt --train data/ko_corpus_reviews/train.txt.gz --valid data/ko_corpus_reviews/valid.txt.gz --documents line --out malmoi-gpt\n  \
                  malmoi finetune lm --model malmoi-quickstart/bert --train letters.jsonl --text-column body --epochs 1 --out malmoi-letters",
    mut_arg("model", |arg| arg.required(true)),
    mut_arg("train", |arg| arg.required(true).help("Text files, or tables with a document a row (also .gz, .zst); may be given several times")),
    mut_arg("valid", |arg| arg.help("Validation text")),
    mut_arg("set", |arg| arg.help("Override a key of the configuration, such as objective.whole_word=true; may be given several times"))
)]
pub struct FinetuneLm {
    #[command(flatten)]
    run: RunArguments,
    /// Column of a table (.tsv, .csv, .jsonl) that holds the text (default: text)
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// What a document is in plain text (default: empty lines separate documents where there are any, else every line is one)
    #[arg(long, value_enum)]
    documents: Option<Unit>,
    /// Tokens of a sequence (default: 128, or all positions where there are fewer)
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    max_len: Option<usize>,
    /// Passes over the training text
    #[arg(long, value_name = "N", help_heading = "Recipe", default_value_t = 3.0)]
    epochs: f64,
    /// Sequences of a step
    #[arg(long, value_name = "N", help_heading = "Recipe", default_value_t = 32)]
    batch_size: usize,
    /// Peak learning rate
    #[arg(
        long,
        value_name = "X",
        help_heading = "Recipe",
        default_value = "5e-5"
    )]
    lr: f64,
    /// Dropout (default: the model's own)
    #[arg(long, value_name = "P", help_heading = "Recipe")]
    dropout: Option<f64>,
    /// Seed of the order of the text, of what is hidden and of dropout
    #[arg(long, value_name = "N", help_heading = "Recipe", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    lora: LoraArguments,
    #[command(flatten)]
    profile: ProfileArguments,
}

/// What a document is.
#[derive(ValueEnum, Debug, Clone, Copy)]
enum Unit {
    /// Every line
    #[value(alias = "lines")]
    Line,
    /// Lines up to an empty one
    #[value(alias = "paragraphs")]
    BlankLine,
    /// A file
    File,
}

/// Tokens of a sequence unless the user says otherwise.
const LENGTH: usize = 128;

/// The objective that made a model of this kind, and its key for the length of a sequence.
fn objective(model: &ModelConfig) -> (&'static str, &'static str) {
    match (model.direction(), model.model_type()) {
        (Direction::Decoder, _) => ("clm", "objective.context"),
        (Direction::Encoder, _) => ("mlm", "objective.max_len"),
        (Direction::EncoderDecoder, "bart") => ("denoising", "objective.max_len"),
        (Direction::EncoderDecoder, _) => ("span-corruption", "objective.max_len"),
    }
}

impl FinetuneLm {
    /// The flags as keys of a pretraining configuration, then those of `--set`.
    fn configuration(&self, global: &Global) -> Result<PretrainConfig> {
        let directory = model::directory(self.run.model.as_deref().unwrap_or_default(), global)?;
        let model = ModelConfig::from_json(&read_config(&directory)?, false)?;
        let (kind, length) = objective(&model);
        let max_len = self.max_len.unwrap_or(LENGTH.min(model.position_limit()));
        let documents = self.documents.and_then(|unit| unit.to_possible_value());
        let pairs = [
            ("objective.kind", Some(Value::String(kind.into()))),
            (length, Some(Value::Integer(max_len as i64))),
            ("data.column", self.text_column.clone().map(Value::String)),
            (
                "data.documents",
                documents.map(|unit| Value::String(unit.get_name().into())),
            ),
            ("optimizer.lr", Some(Value::Float(self.lr))),
            ("schedule.warmup_ratio", Some(Value::Float(0.1))),
            ("train.epochs", Some(Value::Float(self.epochs))),
            (
                "train.batch_size",
                Some(Value::Integer(self.batch_size as i64)),
            ),
            ("train.dropout", self.dropout.map(Value::Float)),
            ("seed", Some(Value::Integer(self.seed as i64))),
        ];
        let keys = pairs.into_iter().chain(self.lora.keys());
        let overrides = self.run.overrides(Some(directory), keys);
        Ok(PretrainConfig::parse("", "the command line", &overrides)?)
    }

    pub fn run(self, global: &Global) -> Result<()> {
        let config = self.configuration(global)?;
        let RunArguments { out, resume, .. } = &self.run;
        train(&config, out, *resume, &self.profile, global)
    }
}
