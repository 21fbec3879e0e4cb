//! Everything that a fine-tuning run needs before its first step.

use std::path::{Path, PathBuf};

use malmoi_checkpoint::{ModelCard, ModelDirectory};
use malmoi_models::{Direction, Head, Mode, Model, ModelConfig, OpenOptions};
use malmoi_tasks::{Case, Record, TaskSpec, read_records};
use malmoi_text::Tokenizer;

use super::config::FinetuneConfig;
use super::data::CaseExamples;
use super::model::{SavedTask, encoder, evaluate, head, open, read_cases, with_dropout};
use crate::config::OneOrMany;
use crate::data::Examples;
use crate::error::{ConfigProblem, TrainError};
use crate::files::{TOKENIZER, checksum, files_in, save_tokenizer};
use crate::training::{DataIdentity, Evaluation, Event, Judge, Observer, TrainerState, Work};

/// A data set, a task and the model that it starts from.
pub(super) struct Prepared {
    config: FinetuneConfig,
    tokenizer: Tokenizer,
    labels: Vec<String>,
    head: Head,
    train: CaseExamples,
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
    let model = ModelConfig::from_json(
        &ModelDirectory::open(&config.model.path)?.config,
        config.model.accept_unknown_config,
    )?;
    let head = head(task, &model)?;
    let tokenizer = Tokenizer::load(&config.model.path)?;
    if tokenizer.vocab_size() > model.vocab_size() {
        return Err(TrainError::VocabularyMismatch {
            tokenizer: tokenizer.vocab_size(),
            model: model.vocab_size(),
        });
    }
    check_length(config, &model)?;
    check_metric(config)?;
    observer.event(&Event::Preparing("reading the data set"));
    let mut columns = task.inputs();
    columns.extend(task.targets());
    let mut records: Vec<Record> = Vec::new();
    for path in config.data.train.paths() {
        records.extend(read_records(&path, &columns, &config.data.encoding)?);
    }
    let labels = task.labels(&records)?;
    let encoder = encoder(&model, &tokenizer, config.data.max_len);
    let train = records
        .iter()
        .map(|record| task.case(record, Some(&labels), &encoder))
        .collect::<Result<Vec<Case>, _>>()?;
    let valid = match &config.data.valid {
        None => None,
        Some(list) => {
            let mut cases = Vec::new();
            for path in list.paths() {
                let encoding = &config.data.encoding;
                cases.extend(read_cases(&path, task, Some(&labels), &encoder, encoding)?);
            }
            cases.truncate(config.evaluate.rows.unwrap_or(usize::MAX));
            Some(cases)
        }
    };
    for (what, cases) in [("training", Some(&train)), ("validation", valid.as_ref())] {
        let Some(cases) = cases else { continue };
        let cut = cases.iter().filter(|case| case.truncated).count();
        if cut > 0 {
            observer.event(&Event::Warning(&format!(
                "{cut} of {} {what} rows are longer than {} tokens and were cut; raise data.max_len to keep more of them",
                cases.len(),
                encoder.max_len
            )));
        }
    }
    let tokenizer_dir = out.join(TOKENIZER);
    if !tokenizer_dir.is_dir() {
        save_tokenizer(&tokenizer, &tokenizer_dir, model.max_len())?;
    }
    let mut files = files_in(&tokenizer_dir)?;
    let saved = SavedTask {
        task: config.task.clone(),
        max_len: encoder.max_len,
    };
    files.push(saved.save(out)?);
    Ok(Prepared {
        train: CaseExamples::new(&train, model.decoder_start()),
        identity: DataIdentity {
            train: identity(&config.data.train)?,
            valid: config.data.valid.as_ref().map(identity).transpose()?,
            vocabulary: format!("{:016x}", tokenizer.vocabulary_hash()),
        },
        config: config.clone(),
        tokenizer,
        labels,
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
    let scores = config.task.task().score(&[], &[]);
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

/// What the files of a list are known by.
fn identity(list: &OneOrMany) -> Result<String, TrainError> {
    checksum(&list.paths())
}

impl Work for Prepared {
    fn examples(&self) -> &dyn Examples {
        &self.train
    }

    fn tokens(&self) -> (u64, Option<u64>) {
        let count = |cases: &Vec<Case>| {
            let lengths = cases.iter().map(|case| case.input.ids.len() as u64);
            lengths.sum()
        };
        (self.train.tokens(), self.valid.as_ref().map(count))
    }

    fn identity(&self) -> DataIdentity {
        self.identity.clone()
    }

    fn start(&self) -> Result<Model, TrainError> {
        let options = OpenOptions {
            mode: Mode::Training,
            seed: self.config.seed,
            accept_unknown_config: self.config.model.accept_unknown_config,
            ..OpenOptions::default()
        };
        let task = self.config.task.task();
        let (model, _) = open(&self.config.model.path, task, &self.labels, &options)?;
        Ok(match self.config.train.dropout {
            None => model,
            Some(rate) => with_dropout(model, rate, Mode::Training),
        })
    }

    fn head(&self) -> Head {
        self.head
    }

    fn evaluate(&self, model: &Model) -> Result<Evaluation, TrainError> {
        let cases = self.valid.as_deref().unwrap_or_default();
        evaluate(
            model,
            &self.tokenizer,
            &self.config.task,
            cases,
            &mut |_| (),
        )
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
        let (own, higher) = self.config.task.task().judged_by();
        match self.config.evaluate.metric.as_deref() {
            None => Judge {
                metric: own.into(),
                higher,
            },
            Some(name) => Judge {
                metric: name.into(),
                higher: !["loss", "mae"].contains(&name),
            },
        }
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
        let task = self.config.task.task();
        let tag = match task.output() {
            malmoi_tasks::OutputKind::Text => "text-generation",
            _ => "text-classification",
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
