//! Everything that a fine-tuning run needs before its first step.

use std::path::{Path, PathBuf};

use malmoi_checkpoint::ModelCard;
use malmoi_models::{Direction, Head, Mode, Model, ModelConfig, OpenOptions};
use malmoi_tasks::{Case, OutputKind, Record, TaskSpec, collected};
use malmoi_text::Tokenizer;

use super::config::FinetuneConfig;
use super::data::held;
use super::model::{
    SavedTask, encoder, evaluate, head, labels_of_head, open, read_cases, task_tokens,
    with_dropout, with_task_tokens, with_vocabulary,
};
use super::tune::{reset, tuning, with_new_labels};
use crate::config::OneOrMany;
use crate::data::{Examples, HeldExamples, SubwordDropout};
use crate::error::{ConfigProblem, TrainError};
use crate::files::{TOKENIZER, checksum, files_in, save_tokenizer};
use crate::training::{
    DataIdentity, Evaluation, Event, Judge, Observer, TrainerState, Tuning, Work,
};

/// A tokenizer that bounds the entity F1 below this is worth a remark.
const CLOSE_TO_ALL: f64 = 0.98;

/// A data set, a task and the model that it starts from.
pub(super) struct Prepared {
    config: FinetuneConfig,
    /// The task, with what the training data settled.
    spec: TaskSpec,
    tokenizer: Tokenizer,
    labels: Vec<String>,
    /// Whether the head that the files may have was made for other labels.
    other_labels: bool,
    head: Head,
    train: HeldExamples,
    valid: Option<Vec<Case>>,
    identity: DataIdentity,
    files: Vec<(String, PathBuf)>,
}

/// Reads model configuration, tokenizer and rows.
pub(super) fn prepare(
    config: &FinetuneConfig,
    out: &Path,
    observer: &mut dyn Observer,
) -> Result<Prepared, TrainError> {
    let task = config.task.task();
    let (model, mut tokenizer) = config.model.open()?;
    let head = head(task, &model)?;
    config.tune.check(&model, task.output())?;
    if config.tune.task_tokens {
        tokenizer = with_task_tokens(&tokenizer)?;
    }
    check_length(config, &model)?;
    check_metric(config)?;
    check_orders(&config.task)?;
    observer.event(&Event::Preparing("reading the data set"));
    let encoding = &config.data.encoding;
    let mut records: Vec<Record> = Vec::new();
    for path in config.data.files(&config.data.train) {
        records.extend(collected(task.rows(&path, encoding, true)?, &path)?);
    }
    let spec = config.task.clone().settled(&records);
    let task = spec.task();
    let labels = task.labels(&records)?;
    let (labels, other_labels) = labels_of_head(&config.model.path, &model, task, labels)?;
    if other_labels && !config.tune.reset_head {
        observer.event(&Event::Warning(&format!(
            "the model was fine-tuned for other labels ({}); what it knows of them is left out, and those of the rows are learned anew",
            some_of(model.labels())
        )));
    }
    let tokens = task_tokens(&tokenizer).filter(|_| config.tune.task_tokens);
    let encoder = encoder(&model, &tokenizer, config.data.max_len, tokens);
    let train = records
        .iter()
        .map(|record| task.case(record, Some(&labels), &encoder))
        .collect::<Result<Vec<Case>, _>>()?;
    let valid = match &config.data.valid {
        None => None,
        Some(list) => {
            let mut cases = Vec::new();
            for path in config.data.files(list) {
                cases.extend(read_cases(&path, task, Some(&labels), &encoder, encoding)?);
            }
            cases.truncate(config.evaluate.rows.unwrap_or(usize::MAX));
            Some(cases)
        }
    };
    check_choices(task.output(), &train, &records)?;
    for (what, cases) in [("training", Some(&train)), ("validation", valid.as_ref())] {
        let said =
            |cases: &Vec<Case>| remarks(cases, what, encoder.max_len, model.position_limit());
        for text in cases.map_or_else(Vec::new, said) {
            observer.event(&Event::Warning(&text));
        }
    }
    if let TaskSpec::Tag(task) = &spec {
        let ceiling = task.ceiling(valid.as_ref().unwrap_or(&train), &labels);
        if ceiling < CLOSE_TO_ALL {
            observer.event(&Event::Warning(&format!(
                "with this tokenizer no model gets more than an f1 of {ceiling:.4} here: tokens reach over the ends of entities"
            )));
        }
    }
    let tokenizer_dir = out.join(TOKENIZER);
    if !tokenizer_dir.is_dir() {
        save_tokenizer(&tokenizer, &tokenizer_dir, model.max_len())?;
    }
    let mut files = files_in(&tokenizer_dir)?;
    let saved = SavedTask {
        task: spec.clone(),
        max_len: encoder.max_len,
        task_tokens: config.tune.task_tokens,
    };
    files.push(saved.save(out)?);
    let examples = held(&train, &config.tune.examples(&model, &labels, &train)?);
    let subwords = SubwordDropout::asked_for(&tokenizer, config.data.subword_dropout);
    Ok(Prepared {
        train: examples.with_subwords(subwords, encoder.max_len),
        identity: DataIdentity {
            train: identity(config, &config.data.train)?,
            valid: (config.data.valid.as_ref())
                .map(|list| identity(config, list))
                .transpose()?,
            vocabulary: format!("{:016x}", tokenizer.vocabulary_hash()),
        },
        config: config.clone(),
        spec,
        tokenizer,
        labels,
        other_labels,
        head,
        valid,
        files,
    })
}

/// A decoder alone holds source and target in one sequence.
fn check_length(config: &FinetuneConfig, model: &ModelConfig) -> Result<(), TrainError> {
    let TaskSpec::Text2text(task) = &config.task else {
        return Ok(());
    };
    let length = config.data.max_len + task.max_target_len;
    if model.direction() == Direction::Decoder && length > model.max_len() {
        return Err(ConfigProblem::new(
            "data.max_len",
            format!(
                "at most {} tokens for source and target together, the positions of the model",
                model.max_len()
            ),
            format!("{} + {}", config.data.max_len, task.max_target_len),
            "lower data.max_len or task.max_target_len",
        )
        .into());
    }
    Ok(())
}

/// The metric that judges must be one that the task has.
fn check_metric(config: &FinetuneConfig) -> Result<(), ConfigProblem> {
    // Scores of nothing have the names of all metrics.
    let scores = config.task.task().score(&[], &[], &[]);
    let mut known: Vec<&str> = scores.iter().map(|(name, _)| *name).collect();
    if !known.contains(&"loss") {
        known.push("loss");
    }
    match config.evaluate.metric.as_deref() {
        Some(name) if !known.contains(&name) => Err(ConfigProblem::new(
            "evaluate.metric",
            format!("one of {}", known.join(", ")),
            format!("{name:?}"),
            "correct the name",
        )),
        _ => Ok(()),
    }
}

/// Only a pair has two orders.
fn check_orders(task: &TaskSpec) -> Result<(), ConfigProblem> {
    let columns = match task {
        TaskSpec::Classify(task) => &task.0,
        TaskSpec::Regress(task) => &task.0,
        _ => return Ok(()),
    };
    match columns.both_orders && columns.pair_column.is_none() {
        false => Ok(()),
        true => Err(ConfigProblem::new(
            "task.both_orders",
            "a second text (task.pair_column, --pair-column)",
            "one text",
            "name its column, or leave task.both_orders out",
        )),
    }
}

/// Every example of a batch must have as many choices as the others.
fn check_choices(output: OutputKind, cases: &[Case], records: &[Record]) -> Result<(), TrainError> {
    let Some(first) = cases.first().filter(|_| output == OutputKind::Choice) else {
        return Ok(());
    };
    let n = first.inputs.len();
    let other = cases.iter().position(|case| case.inputs.len() != n);
    match other {
        None => Ok(()),
        Some(at) => Err(TrainError::Corpus {
            corpus: records[at].place(),
            problem: format!(
                "{} choices where the first row has {n}; all rows of a training file need the same number",
                cases[at].inputs.len()
            ),
        }),
    }
}

/// The first few of some names.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    names[..names.len().min(SHOWN)].join(", ") + more
}

/// What people should know of the rows: how many were cut, and what is odd about them.
fn remarks(cases: &[Case], what: &str, max_len: usize, positions: usize) -> Vec<String> {
    let mut all = Vec::new();
    let cut = cases.iter().filter(|case| case.truncated).count();
    if cut > 0 {
        all.push(format!(
            "{cut} of {} {what} rows are longer than {max_len} tokens and were cut; {}",
            cases.len(),
            match max_len < positions {
                true => "raise --max-len (data.max_len) to keep more of them",
                false => "a model with more positions would keep more of them",
            }
        ));
    }
    all.extend(malmoi_tasks::report::oddities(cases, what));
    all
}

/// What the files of a list are known by.
fn identity(config: &FinetuneConfig, list: &OneOrMany) -> Result<String, TrainError> {
    let files = config.data.files(list);
    let sources = files.iter().map(|path| malmoi_tasks::qa::source_file(path));
    let (paths, parts): (Vec<PathBuf>, Vec<_>) = sources.unzip();
    let parts: String = (parts.into_iter().flatten())
        .map(|(first, last)| format!("#{first}-{last}"))
        .collect();
    Ok(checksum(&paths)? + &parts)
}

impl Work for Prepared {
    fn examples(&self) -> &dyn Examples {
        &self.train
    }

    fn tokens(&self) -> (u64, Option<u64>) {
        let count = |cases: &Vec<Case>| {
            let lengths = cases.iter().map(|case| case.tokens() as u64);
            lengths.sum()
        };
        (self.train.tokens(), self.valid.as_ref().map(count))
    }

    fn identity(&self) -> DataIdentity {
        self.identity.clone()
    }

    fn start(&self) -> Result<Model, TrainError> {
        let config = &self.config;
        let options = OpenOptions {
            mode: Mode::Training,
            seed: config.seed,
            accept_unknown_config: config.model.accept_unknown_config,
            ..OpenOptions::default()
        };
        let task = self.spec.task();
        let (mut model, _) = open(&config.model.path, task, &self.labels, &options)?;
        if config.tune.task_tokens {
            let entries = self.tokenizer.vocab_size();
            model = with_vocabulary(model, entries, config.seed, Mode::Training);
        }
        if let Some(rate) = config.train.dropout {
            model = with_dropout(model, rate, Mode::Training);
        }
        if self.other_labels {
            model = with_new_labels(model, self.labels.len(), config.seed);
        }
        Ok(reset(model, &config.tune, config.seed))
    }

    fn tuning(&self, model: &Model, checkpoint: Option<&Path>) -> Result<Tuning, TrainError> {
        // An adapter adds to the weights that the run started from.
        let start = match (checkpoint, &self.config.tune.lora) {
            (Some(_), Some(_)) => Some(self.start()?),
            _ => None,
        };
        tuning(&self.config, model, start.as_ref(), checkpoint)
    }

    fn head(&self) -> Head {
        self.head
    }

    fn evaluate(&self, model: &Model) -> Result<Evaluation, TrainError> {
        let cases = self.valid.as_deref().unwrap_or_default();
        evaluate(model, &self.tokenizer, &self.spec, cases, &mut |_| ())
    }

    fn intervals(&self) -> (u64, u64) {
        let train = &self.config.train;
        let per_step = (train.batch_size * train.accumulation) as u64;
        let epoch = self.train.per_epoch().div_ceil(per_step);
        let every = self.config.evaluate.every.unwrap_or(epoch);
        // Without validation rows, an epoch still ends with a checkpoint.
        let checkpoint = self.config.checkpoint.every;
        (every, if checkpoint == 0 { every } else { checkpoint })
    }

    fn judge(&self) -> Judge {
        let (metric, higher) = self.config.judging();
        Judge { metric, higher }
    }

    fn files(&self) -> Result<Vec<(String, PathBuf)>, TrainError> {
        Ok(self.files.clone())
    }

    fn card(&self, model: &Model, state: &TrainerState) -> String {
        let mut results = vec![("Steps".to_string(), state.step.to_string())];
        if let Some(last) = &state.last_evaluation {
            for (name, value) in last.found.all() {
                results.push((format!("Validation {name}"), format!("{value:.4}")));
            }
        }
        let task = self.spec.task();
        let tag = match task.output() {
            OutputKind::Text => "text-generation",
            OutputKind::Tags => "token-classification",
            OutputKind::Spans => "question-answering",
            OutputKind::Choice => "multiple-choice",
            OutputKind::Classes | OutputKind::Labels | OutputKind::Value => "text-classification",
        };
        let architecture = model.config().architecture_name(model.head());
        ModelCard {
            name: format!("{architecture} fine-tuned for {}", task.name()),
            model_type: model.config().model_type().to_string(),
            parameters: Some(
                model
                    .parameters()
                    .iter()
                    .map(|info| info.len() as u64)
                    .sum(),
            ),
            pipeline_tag: Some(tag.into()),
            paragraphs: vec![format!(
                "Task: {} on {} rows. Seed {}.",
                task.name(),
                self.train.per_epoch(),
                state.seed
            )],
            results,
            ..ModelCard::default()
        }
        .render()
    }
}
