//! The configuration of a fine-tuning run: the sections of pretraining where they mean the same, with defaults of their own.

use std::path::{Path, PathBuf};

use malmoi_checkpoint::ModelDirectory;
use malmoi_models::ModelConfig;
use malmoi_tasks::TaskSpec;
use malmoi_text::Tokenizer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::load::{assign, changes, syntax, table, text_of, written};
use crate::config::validate::{at_least_one, share};
use crate::config::{
    CheckpointSection, LogSection, OneOrMany, OptimizerSection, ScheduleSection, TrainSection,
};
use crate::error::{ConfigProblem, TrainError};

use super::sweep::SweepSection;
use super::tune::TuneSection;

/// The configuration of a fine-tuning run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneConfig {
    /// Every random draw of the run derives from it: the new head, the order of rows, dropout.
    pub seed: u64,
    /// What it starts from.
    pub model: StartSection,
    /// What is learned.
    pub task: TaskSpec,
    /// The rows.
    pub data: DataSection,
    /// How parameters move.
    pub optimizer: OptimizerSection,
    /// The learning rate over time.
    pub schedule: ScheduleSection,
    /// How long, in which batches.
    pub train: TrainSection,
    /// Which parameters are trained, and how targets are weighed.
    #[serde(default)]
    pub tune: TuneSection,
    /// Measuring on the validation rows.
    #[serde(default)]
    pub evaluate: EvaluateSection,
    /// Saving.
    pub checkpoint: CheckpointSection,
    /// Reporting.
    #[serde(default)]
    pub log: LogSection,
    /// Several runs from this one.
    pub sweep: Option<SweepSection>,
}

/// `[model]`: what fine-tuning starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartSection {
    /// A model directory.
    pub path: PathBuf,
    /// Accept keys of its `config.json` that are not known.
    #[serde(default)]
    pub accept_unknown_config: bool,
}

/// `[data]`: tables with a header (TSV, CSV), JSON lines (`.gz` and `.zst` are read directly) or Parquet, and the files of a task's own
/// layout (a token a line, SQuAD).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// Where the files are; relative paths start here, and `dir` at the working directory.
    pub dir: Option<PathBuf>,
    /// Training rows.
    pub train: OneOrMany,
    /// Validation rows.
    pub valid: Option<OneOrMany>,
    /// Tokens of an input, special ones included; longer ones are cut and counted.
    pub max_len: usize,
    /// Encoding of the files.
    pub encoding: String,
    /// Chance that a subword of more than one character is taken apart while it is learned from; 0 for never.
    pub subword_dropout: f64,
}

/// `[evaluate]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateSection {
    /// Evaluate (and save) every so many steps, and at the end; by default once an epoch. 0 for the end alone.
    pub every: Option<u64>,
    /// The metric that decides which checkpoint is best, or `loss`; by default the task's own.
    pub metric: Option<String>,
    /// Rows of an evaluation; all by default.
    pub rows: Option<usize>,
}

/// Defaults: the recipe of Devlin et al. 2019, appendix A.3. [`FinetuneConfig::parse`] puts a file's keys over them.
const DEFAULTS: &str = r#"
seed = 1

[data]
max_len = 128
encoding = "utf-8"
subword_dropout = 0.0

[optimizer]
kind = "adamw"
lr = 5e-5
weight_decay = 0.01

[schedule]
kind = "linear"
warmup_ratio = 0.1

[train]
epochs = 3.0
batch_size = 32
clip_norm = 1.0

[checkpoint]
every = 0
keep = 1
"#;

/// Groups of keys of which one at most is given: naming one takes the default of the others away.
const ALTERNATIVES: [(&str, &[&str]); 2] = [
    ("train", &["steps", "epochs", "tokens"]),
    ("schedule", &["warmup_steps", "warmup_ratio"]),
];

impl StartSection {
    /// The model's configuration and its tokenizer.
    ///
    /// # Errors
    /// [`TrainError`] when one cannot be read, or the tokenizer has more tokens than the model.
    pub(crate) fn open(&self) -> Result<(ModelConfig, Tokenizer), TrainError> {
        let model = ModelConfig::from_json(
            &ModelDirectory::open(&self.path)?.config,
            self.accept_unknown_config,
        )?;
        let tokenizer = Tokenizer::load(&self.path)?;
        if tokenizer.vocab_size() > model.vocab_size() {
            return Err(TrainError::VocabularyMismatch {
                tokenizer: tokenizer.vocab_size(),
                model: model.vocab_size(),
            });
        }
        Ok((model, tokenizer))
    }
}

impl DataSection {
    /// The files of a list, in the data directory.
    pub(super) fn files(&self, list: &OneOrMany) -> Vec<PathBuf> {
        let dir = self.dir.as_deref().unwrap_or(Path::new(""));
        list.paths().iter().map(|path| dir.join(path)).collect()
    }
}

impl FinetuneConfig {
    /// Reads a configuration file, applies overrides of the form `a.b=c`, fills in the defaults and validates the result.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::Syntax`], [`TrainError::Override`], [`TrainError::Config`].
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, TrainError> {
        Self::parse(&text_of(path)?, &path.display().to_string(), overrides)
    }

    /// Like [`FinetuneConfig::load`], from text. `origin` stands in messages.
    ///
    /// # Errors
    /// [`TrainError::Syntax`], [`TrainError::Override`], [`TrainError::Config`].
    pub fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<Self, TrainError> {
        let config: Self = resolved(DEFAULTS, text, origin, overrides)?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as TOML, every default written out.
    ///
    /// # Errors
    /// [`TrainError::Syntax`] when a value has no TOML form (a seed above 2^63).
    pub fn to_toml(&self) -> Result<String, TrainError> {
        written(self)
    }

    /// Keys in which `other` differs and that decide what is computed, as "key: was X, now Y".
    pub fn changes(&self, other: &Self) -> Vec<String> {
        // Rows are known by the checksum of their files, weights come from the checkpoint.
        let free = [
            "log",
            "checkpoint",
            "data.dir",
            "data.train",
            "data.valid",
            "model.path",
            "sweep",
        ];
        changes(self, other, &free)
    }

    /// Checks values and combinations that the types allow but a run cannot use.
    ///
    /// # Errors
    /// The first problem, with its key.
    pub fn validate(&self) -> Result<(), ConfigProblem> {
        let lists = [Some(&self.data.train), self.data.valid.as_ref()];
        for (key, list) in ["data.train", "data.valid"].into_iter().zip(lists) {
            if list.is_some_and(|list| list.paths().is_empty()) {
                let found = "an empty list";
                return Err(ConfigProblem::new(
                    key,
                    "at least one file",
                    found,
                    "name one",
                ));
            }
        }
        if self.data.max_len < 4 {
            return Err(ConfigProblem::new(
                "data.max_len",
                "at least 4, to hold the special tokens and some text",
                self.data.max_len,
                "raise it",
            ));
        }
        share("data.subword_dropout", self.data.subword_dropout)?;
        self.tune.validate()?;
        if let Some(sweep) = &self.sweep {
            sweep.validate()?;
        }
        if let TaskSpec::Text2text(task) = &self.task {
            at_least_one("task.max_target_len", task.max_target_len as u64)?;
        }
        self.optimizer.validate()?;
        self.schedule.validate(self.optimizer.lr)?;
        self.train.validate()?;
        at_least_one("checkpoint.keep", self.checkpoint.keep as u64)?;
        at_least_one("log.every", self.log.every)?;
        at_least_one("evaluate.rows", self.evaluate.rows.unwrap_or(1) as u64)?;
        if let Some(patience) = self.train.early_stop {
            at_least_one("train.early_stop", patience)?;
            if self.data.valid.is_none() {
                return Err(ConfigProblem::new(
                    "train.early_stop",
                    "validation rows to judge by",
                    "no data.valid",
                    "add data.valid, or remove train.early_stop",
                ));
            }
        }
        Ok(())
    }
}

/// A configuration from text with overrides, over defaults.
///
/// # Errors
/// [`TrainError::Syntax`], [`TrainError::Override`].
pub(crate) fn resolved<T: DeserializeOwned>(
    defaults: &str,
    text: &str,
    origin: &str,
    overrides: &[String],
) -> Result<T, TrainError> {
    let mut given = table(text, origin, &[])?;
    // An override of one of several alternatives takes the file's choice away.
    for (section, keys) in ALTERNATIVES {
        let named = |key: &str| {
            let start = format!("{section}.{key}=");
            overrides.iter().any(|text| text.starts_with(&start))
        };
        if keys.iter().any(|key| named(key))
            && let Some(Value::Table(file)) = given.get_mut(section)
        {
            keys.iter().for_each(|key| drop(file.remove(*key)));
        }
    }
    assign(&mut given, overrides)?;
    let mut resolved: Table = toml::from_str(defaults).map_err(|e| syntax("defaults", e))?;
    for (section, keys) in ALTERNATIVES {
        let chosen = given.get(section).and_then(Value::as_table);
        if chosen.is_some_and(|table| keys.iter().any(|key| table.contains_key(*key)))
            && let Some(Value::Table(defaults)) = resolved.get_mut(section)
        {
            keys.iter().for_each(|key| drop(defaults.remove(*key)));
        }
    }
    // The settings of one rule mean nothing to another.
    let kind = |table: &Table| {
        let section = table.get("optimizer")?.as_table()?;
        Some(section.get("kind")?.as_str()?.to_owned())
    };
    if kind(&given).is_some_and(|kind| kind != "adamw")
        && let Some(Value::Table(defaults)) = resolved.get_mut("optimizer")
    {
        defaults.retain(|key, _| key == "lr");
    }
    overlay(&mut resolved, given);
    T::deserialize(resolved).map_err(|e| syntax(origin, e))
}

/// Puts the keys of `upper` over those of `lower`, section by section.
fn overlay(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(lower)), Value::Table(upper)) => overlay(lower, upper),
            (_, value) => drop(lower.insert(key, value)),
        }
    }
}
