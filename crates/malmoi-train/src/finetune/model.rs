//! Models for tasks: opening a pretrained one with a new head, and measuring one that is fine-tuned.

use std::path::{Path, PathBuf};

use malmoi_checkpoint::{Error as CheckpointError, ModelDirectory, read_config, read_json};
use malmoi_infer::predict::{PredictOptions, predict};
use malmoi_models::{Direction, Head, Mode, Model, ModelConfig, ModelError, OpenOptions};
use malmoi_tasks::{
    Case, Encoder, OutputKind, Prediction, Task, TaskError, TaskSpec, TaskTokens, Truth, collected,
};
use malmoi_text::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::data::{ExampleOptions, examples};
use crate::data::{Counts, MicroBatch};
use crate::error::{ConfigProblem, TrainError};
use crate::training::Evaluation;

/// File of a fine-tuned model that says what it was made for.
const FILE: &str = "malmoi_task.json";
/// Rows that go through the model together when a loss is measured.
const ROWS_PER_BATCH: usize = 32;

/// What a fine-tuned model was made for; it lies beside its weights, so that evaluation and prediction read rows as training did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedTask {
    /// The task.
    pub task: TaskSpec,
    /// Tokens of an input.
    pub max_len: usize,
    /// Whether start, delimiter and extract tokens stand around the texts.
    #[serde(default)]
    pub task_tokens: bool,
}

impl SavedTask {
    /// Reads it from a model directory; `None` where there is none.
    ///
    /// # Errors
    /// A file that cannot be read or does not have this shape.
    pub fn load(dir: &Path) -> Result<Option<Self>, TrainError> {
        let path = dir.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let value = read_json(&path)?;
        serde_json::from_value(value)
            .map(Some)
            .map_err(|error| TrainError::Syntax {
                origin: path.display().to_string(),
                problem: error.to_string(),
            })
    }

    /// Writes it into a directory and gives its name and path there.
    pub(super) fn save(&self, dir: &Path) -> Result<(String, PathBuf), TrainError> {
        let path = dir.join(FILE);
        let value = serde_json::to_value(self).map_err(|error| TrainError::Syntax {
            origin: FILE.into(),
            problem: error.to_string(),
        })?;
        malmoi_checkpoint::write_json(&path, &value)?;
        Ok((FILE.to_owned(), path))
    }
}

/// Names of the tokens that GPT-1's task inputs add to a vocabulary, as its authors wrote them.
const TASK_TOKENS: [&str; 3] = ["_start_", "_delimiter_", "_classify_"];

/// The tokens of GPT-1's task inputs in a tokenizer that has them.
pub fn task_tokens(tokenizer: &Tokenizer) -> Option<TaskTokens> {
    let [start, delimiter, extract] = TASK_TOKENS.map(|token| tokenizer.token_to_id(token));
    Some(TaskTokens {
        start: start?,
        delimiter: delimiter?,
        extract: extract?,
    })
}

/// The tokenizer with the tokens of GPT-1's task inputs.
pub(super) fn with_task_tokens(tokenizer: &Tokenizer) -> Result<Tokenizer, TrainError> {
    Ok(tokenizer
        .with_special_tokens(&TASK_TOKENS)
        .map_err(TaskError::from)?)
}

/// How texts become tokens for a model.
pub fn encoder<'a>(
    model: &ModelConfig,
    tokenizer: &'a Tokenizer,
    max_len: usize,
    task_tokens: Option<TaskTokens>,
) -> Encoder<'a> {
    let encoder = model.direction() == Direction::Encoder;
    Encoder {
        task_tokens,
        tokenizer,
        max_len: max_len.min(model.position_limit()),
        segments: encoder && model.n_segments() > 1,
        decoder_only: model.direction() == Direction::Decoder,
    }
}

/// Reads the rows of a table as cases: with their truth when `labels` are given.
///
/// # Errors
/// Those of the file, its columns and its cells.
pub fn read_cases(
    path: &Path,
    task: &dyn Task,
    labels: Option<&[String]>,
    encoder: &Encoder<'_>,
    encoding: &str,
) -> Result<Vec<Case>, TaskError> {
    collected(task.rows(path, encoding, labels.is_some())?, path)?
        .iter()
        .map(|record| task.case(record, labels, encoder))
        .collect()
}

/// The head that a task trains on a model.
pub(super) fn head(task: &dyn Task, model: &ModelConfig) -> Result<Head, TrainError> {
    let wanted = match task.output() {
        OutputKind::Classes | OutputKind::Labels | OutputKind::Value => {
            Head::SequenceClassification
        }
        OutputKind::Tags => Head::TokenClassification,
        OutputKind::Spans => Head::QuestionAnswering,
        // A decoder's classifier with one output reads the last token: the score of a choice.
        OutputKind::Choice if model.is_causal() => Head::SequenceClassification,
        OutputKind::Choice => Head::MultipleChoice,
        OutputKind::Text if model.direction() == Direction::EncoderDecoder => Head::Seq2SeqLm,
        OutputKind::Text => Head::CausalLm,
    };
    let heads = model.architecture_names();
    if heads.iter().any(|(head, _)| *head == wanted) {
        return Ok(wanted);
    }
    let known: Vec<&str> = heads.iter().map(|(_, name)| *name).collect();
    Err(ConfigProblem::new(
        "task.kind",
        format!("a task that {} models have a head for", model.model_type()),
        format!("{:?}", task.name()),
        format!(
            "take another model; this architecture has {}",
            known.join(", ")
        ),
    )
    .into())
}

/// Opens a pretrained model with the head of a task; what the files lack of it, or have for another number of labels, gets initial
/// values. Returns the model and the names of the tensors that are new.
pub(super) fn open(
    path: &Path,
    task: &dyn Task,
    labels: &[String],
    options: &OpenOptions,
) -> Result<(Model, Vec<String>), TrainError> {
    let config = ModelConfig::from_json(
        &ModelDirectory::open(path)?.config,
        options.accept_unknown_config,
    )?;
    let options = OpenOptions {
        head: Some(head(task, &config)?),
        ..*options
    };
    open_with(path, &config, &options, &|config| {
        write_labels(config, task.output(), labels);
    })
}

/// Opens a pretrained model with the head of `options`, after `edit` has changed its published configuration; what the files lack of the head, or
/// have in another shape, gets initial values. Returns the model and the names of the tensors that are new.
///
/// # Errors
/// Files that cannot be read, or that lack a part of the body.
pub(crate) fn open_with(
    path: &Path,
    config: &ModelConfig,
    options: &OpenOptions,
    edit: &dyn Fn(&mut Value),
) -> Result<(Model, Vec<String>), TrainError> {
    let options = OpenOptions {
        accept_unused: true,
        ..*options
    };
    let directory = || -> Result<ModelDirectory, TrainError> {
        let mut directory = ModelDirectory::open(path)?;
        edit(&mut directory.config);
        Ok(directory)
    };
    let (mut new, reshaped) = match Model::from_directory(directory()?, &options) {
        Ok(model) => return Ok((model, Vec::new())),
        Err(ModelError::Checkpoint(CheckpointError::Names(mismatch))) => {
            let names = mismatch.wrong_shape.iter().map(|(name, ..)| name.clone());
            let (missing, reshaped) = (mismatch.missing.clone(), names.collect::<Vec<_>>());
            // A body that is incomplete is a damaged file, not a new head.
            let body = body(config);
            let of_body = |name: &String| body.iter().any(|end| name.ends_with(end.as_str()));
            if missing.iter().chain(&reshaped).any(of_body) {
                return Err(ModelError::Checkpoint(CheckpointError::Names(mismatch)).into());
            }
            (missing, reshaped)
        }
        Err(error) => return Err(error.into()),
    };
    let accepting = OpenOptions {
        accept_missing: true,
        ..options
    };
    let mut directory = directory()?;
    directory.tensors = directory.tensors.without(&reshaped);
    new.extend(reshaped);
    Ok((Model::from_directory(directory, &accepting)?, new))
}

/// The labels of a run, in the order of its model, and whether the model's head was made for others.
///
/// A head that knows the same labels keeps their numbers; one for tags may know more of them than the rows have.
pub(super) fn labels_of_head(
    path: &Path,
    model: &ModelConfig,
    task: &dyn Task,
    labels: Vec<String>,
) -> Result<(Vec<String>, bool), TrainError> {
    let architectures = malmoi_checkpoint::directory::architectures(&read_config(path)?);
    let wanted = model.architecture_name(head(task, model)?);
    let known = model.labels();
    // Names that nobody gave, as published code writes them.
    let unnamed = known.iter().all(|label| label.starts_with("LABEL_"));
    if labels.is_empty() || unnamed || !architectures.iter().any(|name| name == wanted) {
        return Ok((labels, false));
    }
    let all_known = labels.iter().all(|label| known.contains(label));
    let tags = task.output() == OutputKind::Tags;
    match all_known && (tags || known.len() == labels.len()) {
        true => Ok((known.to_vec(), false)),
        false => Ok((labels, true)),
    }
}

/// Published names of the tensors that every use of an architecture shares. A pooler belongs to heads.
fn body(config: &ModelConfig) -> Vec<String> {
    Model::blank(config.clone(), Head::None)
        .published_tensors()
        .into_iter()
        .map(|(name, _, _)| name)
        .filter(|name| !name.contains("pooler"))
        .collect()
}

/// Writes names and, where the published configuration knows it, the kind of the labels.
fn write_labels(config: &mut Value, output: OutputKind, labels: &[String]) {
    let Some(config) = config.as_object_mut() else {
        return;
    };
    let one = || vec!["LABEL_0".to_owned()];
    let (labels, problem) = match output {
        OutputKind::Classes => (labels.to_vec(), Some("single_label_classification")),
        OutputKind::Labels => (labels.to_vec(), Some("multi_label_classification")),
        OutputKind::Value => (one(), Some("regression")),
        OutputKind::Tags => (labels.to_vec(), None),
        OutputKind::Choice => (one(), None),
        OutputKind::Spans => (vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()], None),
        OutputKind::Text => return,
    };
    let by_id: Map<String, Value> = labels
        .iter()
        .enumerate()
        .map(|(id, label)| (id.to_string(), json!(label)))
        .collect();
    let by_label: Map<String, Value> = labels
        .iter()
        .enumerate()
        .map(|(id, label)| (label.clone(), json!(id)))
        .collect();
    config.remove("num_labels");
    config.insert("id2label".into(), Value::Object(by_id));
    config.insert("label2id".into(), Value::Object(by_label));
    match problem {
        Some(problem) => config.insert("problem_type".into(), json!(problem)),
        None => config.remove("problem_type"),
    };
}

/// The same model with a longer vocabulary; the rows of new tokens get initial values.
pub(super) fn with_vocabulary(model: Model, entries: usize, seed: u64, mode: Mode) -> Model {
    if model.config().vocab_size() >= entries {
        return model;
    }
    let config = model.config().clone().with_vocab_size(entries);
    let mut values = Vec::new();
    model.read(|_, parameter| values.push(parameter.to_vec()));
    let mut values = values.into_iter();
    Model::initialise(config, model.head(), seed, mode).update(|_, parameter| {
        // Rows of a table are added behind the ones that are there.
        if let Some(old) = values.next() {
            parameter[..old.len()].copy_from_slice(&old);
        }
    })
}

/// The same model with another dropout.
pub(crate) fn with_dropout(model: Model, rate: f64, mode: Mode) -> Model {
    let config = model.config().clone().with_dropout(rate as f32);
    let mut values = Vec::new();
    model.read(|_, parameter| values.push(parameter.to_vec()));
    let mut values = values.into_iter();
    let filled = Model::blank(config, model.head()).fill(mode, |_| {
        Ok::<_, std::convert::Infallible>(values.next().expect("one a parameter"))
    });
    filled.unwrap_or_else(|never| match never {})
}

/// Measures a model on cases with their truth: the metrics of the task, and the loss.
///
/// # Errors
/// Those of the model.
pub fn evaluate(
    model: &Model,
    tokenizer: &Tokenizer,
    spec: &TaskSpec,
    cases: &[Case],
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation, TrainError> {
    let task = spec.task();
    let options = PredictOptions {
        max_new_tokens: spec.max_new_tokens(),
        ..PredictOptions::default()
    };
    let predictions = predict(model, tokenizer, task, cases, &options, progress)?;
    score(model, spec, cases, &predictions)
}

/// The metrics of predictions for cases with their truth, and the loss.
///
/// # Errors
/// Those of the model.
pub fn score(
    model: &Model,
    spec: &TaskSpec,
    cases: &[Case],
    predictions: &[Prediction],
) -> Result<Evaluation, TrainError> {
    let task = spec.task();
    let truths: Vec<Truth> = cases.iter().filter_map(|case| case.truth.clone()).collect();
    let mut metrics = task.score(&truths, predictions, model.config().labels());
    let loss = match metrics.iter().position(|(name, _)| *name == "loss") {
        Some(place) => metrics.remove(place).1,
        None => token_loss(model, cases)?,
    };
    Ok(Evaluation::new(loss, cases.len() as u64, &metrics))
}

/// Mean loss of the target tokens.
fn token_loss(model: &Model, cases: &[Case]) -> Result<f64, TrainError> {
    let options = ExampleOptions {
        start: model.config().decoder_start(),
        ..ExampleOptions::default()
    };
    let (mut sum, mut count) = (0.0, 0);
    for cases in cases.chunks(ROWS_PER_BATCH) {
        let examples: Vec<_> = cases.iter().flat_map(|c| examples(c, &options)).collect();
        let micro = MicroBatch::pack(&examples);
        let counts = Counts::of(std::slice::from_ref(&micro));
        let report = model.loss(&micro.batch, &micro.labels(counts))?;
        sum += report.loss * counts.targets as f64;
        count += counts.targets;
    }
    Ok(sum / count.max(1) as f64)
}
