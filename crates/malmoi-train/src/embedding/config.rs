//! The configuration of a run that trains vectors of sentences.

use std::path::{Path, PathBuf};

use malmoi_models::Pooling;
use serde::{Deserialize, Serialize};

use crate::config::load::{changes, text_of};
use crate::config::validate::at_least_one;
use crate::config::{
    CheckpointSection, LogSection, OneOrMany, OptimizerSection, ScheduleSection, TrainSection,
};
use crate::error::{ConfigProblem, TrainError};
use crate::finetune::{StartSection, resolved};

/// The configuration of a run that trains vectors of sentences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingConfig {
    /// Every random draw of the run derives from it: the order of rows, dropout.
    pub seed: u64,
    /// What it starts from.
    pub model: StartSection,
    /// What is learned.
    pub embedding: EmbeddingSection,
    /// The pairs.
    pub data: DataSection,
    /// How parameters move.
    pub optimizer: OptimizerSection,
    /// The learning rate over time.
    pub schedule: ScheduleSection,
    /// How long, in which batches.
    pub train: TrainSection,
    /// Measuring on the validation pairs.
    #[serde(default)]
    pub evaluate: EvaluateSection,
    /// Saving.
    pub checkpoint: CheckpointSection,
    /// Reporting.
    #[serde(default)]
    pub log: LogSection,
}

/// What the vectors are trained for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossKind {
    /// In-batch negatives: pairs that belong together, perhaps with a wrong third text.
    Contrastive,
    /// The cosine of a pair is its score.
    Similarity,
    /// The cosines have the order of the scores.
    Cosent,
}

/// `[embedding]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingSection {
    /// What the vectors are trained for.
    pub loss: LossKind,
    /// Factor on the cosines, for the contrastive loss and CoSENT.
    pub scale: f64,
    /// How token vectors become one: mean, cls or last.
    pub pooling: Pooling,
    /// Save a model that divides its vectors by their length.
    pub normalize: bool,
}

/// Which columns hold what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The first text.
    pub text_column: String,
    /// The second text.
    pub pair_column: String,
    /// A third text that does not belong to the first, for the contrastive loss.
    pub negative_column: Option<String>,
    /// The score of the pair, or what `positive` looks at.
    pub label_column: Option<String>,
    /// Labels of the pairs that belong together; rows with others are left out.
    #[serde(default)]
    pub positive: Vec<String>,
}

/// `[data]`: tables with a header (TSV, CSV) or JSON lines; `.gz` and `.zst` are read directly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataSection {
    /// Where the files are; the working directory by default.
    pub dir: Option<PathBuf>,
    /// Training pairs.
    pub train: OneOrMany,
    /// Validation pairs: with scores for correlation, without for retrieval.
    pub valid: Option<OneOrMany>,
    /// Their columns.
    #[serde(flatten)]
    pub columns: Columns,
    /// The largest score, which becomes a cosine of 1; the largest of the training pairs by default.
    pub max_score: Option<f64>,
    /// Tokens of a text, special ones included; longer ones are cut and counted.
    pub max_len: usize,
    /// Encoding of the files.
    pub encoding: String,
}

impl DataSection {
    /// The files of a list, in the data directory.
    pub(super) fn files(&self, list: &OneOrMany) -> Vec<PathBuf> {
        let dir = self.dir.as_deref().unwrap_or(Path::new(""));
        list.paths().iter().map(|path| dir.join(path)).collect()
    }
}

/// `[evaluate]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateSection {
    /// Evaluate (and save) every so many steps, and at the end; by default once an epoch. 0 for the end alone.
    pub every: Option<u64>,
    /// The metric that decides which checkpoint is best; by default Spearman's correlation, or the reciprocal rank.
    pub metric: Option<String>,
    /// Columns of the validation pairs, where they differ from those of the training pairs.
    pub columns: Option<Columns>,
}

/// Defaults: the recipe of Reimers and Gurevych 2019 (one epoch, a rate of 2e-5 with a warm-up of a tenth), with a batch that gives
/// each text 31 wrong ones.
const DEFAULTS: &str = r#"
seed = 1

[embedding]
loss = "contrastive"
scale = 20.0
pooling = "mean"
normalize = false

[data]
text_column = "sentence1"
pair_column = "sentence2"
max_len = 128
encoding = "utf-8"

[optimizer]
kind = "adamw"
lr = 2e-5
weight_decay = 0.01

[schedule]
kind = "linear"
warmup_ratio = 0.1

[train]
epochs = 1.0
batch_size = 32
clip_norm = 1.0

[checkpoint]
every = 0
keep = 1
"#;

impl EmbeddingConfig {
    /// Reads a configuration file, applies overrides of the form `a.b=c`, fills in the defaults and validates the result.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::Syntax`], [`TrainError::Override`], [`TrainError::Config`].
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, TrainError> {
        Self::parse(&text_of(path)?, &path.display().to_string(), overrides)
    }

    /// Like [`EmbeddingConfig::load`], from text. `origin` stands in messages.
    ///
    /// # Errors
    /// [`TrainError::Syntax`], [`TrainError::Override`], [`TrainError::Config`].
    pub fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<Self, TrainError> {
        let config: Self = resolved(DEFAULTS, text, origin, overrides)?;
        config.validate()?;
        Ok(config)
    }

    /// Keys in which `other` differs and that decide what is computed, as "key: was X, now Y".
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let free = [
            "log",
            "checkpoint",
            "data.dir",
            "data.train",
            "data.valid",
            "model.path",
        ];
        changes(self, other, &free)
    }

    /// The columns of the validation pairs.
    pub fn valid_columns(&self) -> &Columns {
        self.evaluate.columns.as_ref().unwrap_or(&self.data.columns)
    }

    /// Checks values and combinations that the types allow but a run cannot use.
    ///
    /// # Errors
    /// The first problem, with its key.
    pub fn validate(&self) -> Result<(), ConfigProblem> {
        let columns = &self.data.columns;
        let scored = self.embedding.loss != LossKind::Contrastive;
        let problems = [
            (
                scored && (columns.label_column.is_none() || !columns.positive.is_empty()),
                "data.label_column",
                "the column of the scores, without data.positive",
                "another setting",
                "similarity and cosent learn from scores: name their column",
            ),
            (
                scored && columns.negative_column.is_some(),
                "data.negative_column",
                "nothing",
                "a column",
                "wrong texts belong to the contrastive loss: remove the key",
            ),
            (
                !scored && columns.label_column.is_some() && columns.positive.is_empty(),
                "data.positive",
                "the labels of pairs that belong together",
                "none",
                "name them, or remove data.label_column to use all pairs",
            ),
            (
                columns.label_column.is_none() && !columns.positive.is_empty(),
                "data.label_column",
                "the column in which data.positive is looked for",
                "nothing",
                "name it",
            ),
            (
                !self.embedding.pooling.is_trainable(),
                "embedding.pooling",
                "mean, cls or last",
                "another one",
                "choose one of these",
            ),
            (
                !(self.embedding.scale.is_finite() && self.embedding.scale > 0.0),
                "embedding.scale",
                "a number above 0",
                "another one",
                "20 is usual",
            ),
            (
                self.data
                    .max_score
                    .is_some_and(|max| !(max.is_finite() && max > 0.0)),
                "data.max_score",
                "a number above 0",
                "another one",
                "give the largest score of the scale",
            ),
            (
                self.data.max_len < 4,
                "data.max_len",
                "at least 4, to hold the special tokens and some text",
                "less",
                "raise it",
            ),
            (
                !scored && self.train.batch_size < 2,
                "train.batch_size",
                "at least 2: the other pairs of the batch are the wrong ones",
                "1",
                "raise it",
            ),
            (
                self.train.early_stop.is_some() && self.data.valid.is_none(),
                "train.early_stop",
                "validation pairs to judge by",
                "no data.valid",
                "add data.valid, or remove train.early_stop",
            ),
        ];
        for (wrong, key, expected, found, fix) in problems {
            if wrong {
                return Err(ConfigProblem::new(key, expected, found, fix));
            }
        }
        self.optimizer.validate()?;
        self.schedule.validate(self.optimizer.lr)?;
        self.train.validate()?;
        at_least_one("checkpoint.keep", self.checkpoint.keep as u64)?;
        at_least_one("log.every", self.log.every)
    }
}
