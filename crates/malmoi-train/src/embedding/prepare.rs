//! Everything that a run needs before its first step.

use std::path::{Path, PathBuf};

use malmoi_checkpoint::{Error as CheckpointError, ModelCard, write_json};
use malmoi_models::{Head, Mode, Model, ModelError, OpenOptions, SentenceLayout};

use super::config::{EmbeddingConfig, LossKind};
use super::pairs::{PairTexts, evaluate, read_pairs};
use crate::data::{Example, Examples, HeldExamples, SentenceRule};
use crate::error::{ConfigProblem, TrainError};
use crate::files::{LAYOUT, TOKENIZER, checksum, files_in, save_tokenizer};
use crate::finetune::with_dropout;
use crate::training::{DataIdentity, Evaluation, Event, Judge, Observer, TrainerState, Work};

/// Pairs, the model that they train, and the files that say how it is used.
pub(super) struct Prepared {
    config: EmbeddingConfig,
    train: HeldExamples,
    valid: Option<Vec<PairTexts>>,
    identity: DataIdentity,
    files: Vec<(String, PathBuf)>,
}

/// Reads model configuration, tokenizer and pairs.
pub(super) fn prepare(
    config: &EmbeddingConfig,
    out: &Path,
    observer: &mut dyn Observer,
) -> Result<Prepared, TrainError> {
    let (model, tokenizer) = config.model.open()?;
    let max_len = config.data.max_len.min(model.max_len());
    observer.event(&Event::Preparing("reading the pairs"));
    let read = |paths: &[PathBuf], columns| -> Result<Vec<PairTexts>, TrainError> {
        let mut pairs = Vec::new();
        for path in paths {
            let encoding = &config.data.encoding;
            pairs.extend(read_pairs(path, columns, &tokenizer, max_len, encoding)?);
        }
        Ok(pairs)
    };
    let train = read(&config.data.files(&config.data.train), &config.data.columns)?;
    let valid = match &config.data.valid {
        None => None,
        Some(list) => Some(read(&config.data.files(list), config.valid_columns())?),
    };
    for (what, pairs) in [("training", Some(&train)), ("validation", valid.as_ref())] {
        let cut = pairs.map_or(0, |pairs| pairs.iter().filter(|p| p.truncated).count());
        if cut > 0 {
            observer.event(&Event::Warning(&format!(
                "{cut} {what} rows have a text of more than {max_len} tokens, which was cut; raise --max-len (data.max_len) to keep more"
            )));
        }
    }
    let rule = SentenceRule {
        loss: config.embedding.loss,
        scale: config.embedding.scale,
        pooling: config.embedding.pooling,
        group: 2 + usize::from(config.data.columns.negative_column.is_some()),
    };
    let tokenizer_dir = out.join(TOKENIZER);
    if !tokenizer_dir.is_dir() {
        save_tokenizer(&tokenizer, &tokenizer_dir, model.max_len())?;
    }
    let mut files = files_in(&tokenizer_dir)?;
    let layout = SentenceLayout {
        pooling: config.embedding.pooling,
        normalize: config.embedding.normalize,
        max_len: Some(max_len),
    };
    for (name, value) in layout.files(model.d_model()) {
        let path = out.join(LAYOUT).join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| TrainError::io("create", folder, e))?;
        }
        write_json(&path, &value)?;
        files.push((name.to_owned(), path));
    }
    let prepared = Prepared {
        train: held(&train, rule, config.data.max_score)?,
        identity: DataIdentity {
            train: checksum(&config.data.files(&config.data.train))?,
            valid: (config.data.valid.as_ref())
                .map(|list| checksum(&config.data.files(list)))
                .transpose()?,
            vocabulary: format!("{:016x}", tokenizer.vocabulary_hash()),
        },
        config: config.clone(),
        valid,
        files,
    };
    prepared.check_metric()?;
    Ok(prepared)
}

impl Prepared {
    /// The names of the metrics, the one that judges first.
    fn metrics(&self) -> &'static [&'static str] {
        let valid = self.valid.as_deref().unwrap_or_default();
        match valid.first().is_none_or(|pair| pair.score.is_some()) {
            true => &["spearman", "pearson"],
            false => &["mrr", "recall_at_1", "recall_at_10", "ndcg_at_10"],
        }
    }

    fn check_metric(&self) -> Result<(), ConfigProblem> {
        match self.config.evaluate.metric.as_deref() {
            Some(name) if !self.metrics().contains(&name) => Err(ConfigProblem::new(
                "evaluate.metric",
                format!("one of {}", self.metrics().join(", ")),
                format!("{name:?}"),
                "correct the name",
            )),
            _ => Ok(()),
        }
    }
}

/// Training examples: every pair is one.
fn held(
    pairs: &[PairTexts],
    rule: SentenceRule,
    max_score: Option<f64>,
) -> Result<HeldExamples, TrainError> {
    let scores = || pairs.iter().filter_map(|pair| pair.score);
    let largest = max_score.unwrap_or_else(|| scores().fold(0.0, f64::max));
    if rule.loss == LossKind::Similarity && scores().any(|s| !(0.0..=largest).contains(&s)) {
        return Err(ConfigProblem::new(
            "data.max_score",
            "a scale from 0 that holds every score",
            format!("scores outside 0 to {largest}"),
            "raise it, or correct the scores",
        )
        .into());
    }
    let example = |pair: &PairTexts| {
        let mut example = Example {
            sentences: Some((
                rule,
                pair.score.map_or(1.0, |s| s / largest.max(1e-12)) as f32,
            )),
            ..Example::default()
        };
        for text in &pair.texts {
            example.starts.push(example.ids.len());
            example.positions.extend(0..text.len() as u32);
            example.ids.extend(text);
        }
        example
    };
    Ok(HeldExamples::new(pairs.iter().map(example).collect()))
}

/// Opens the bare model of a directory. A pooler that its files lack keeps initial values; nothing here uses it.
fn open(path: &Path, options: &OpenOptions) -> Result<Model, TrainError> {
    let options = OpenOptions {
        head: Some(Head::None),
        accept_unused: true,
        ..*options
    };
    let accept_missing = match Model::open(path, &options) {
        Ok(model) => return Ok(model),
        Err(ModelError::Checkpoint(CheckpointError::Names(mismatch)))
            if mismatch.wrong_shape.is_empty()
                && mismatch.missing.iter().all(|name| name.contains(UNTRAINED)) =>
        {
            true
        }
        Err(error) => return Err(error.into()),
    };
    let options = OpenOptions {
        accept_missing,
        ..options
    };
    Ok(Model::open(path, &options)?)
}

/// The dense layer on the first token, which the vectors of sentences do not go through.
const UNTRAINED: &str = "pooler";

impl Work for Prepared {
    fn examples(&self) -> &dyn Examples {
        &self.train
    }

    fn tokens(&self) -> (u64, Option<u64>) {
        let count = |pairs: &Vec<PairTexts>| {
            let lengths = pairs.iter().flat_map(|pair| &pair.texts);
            lengths.map(|text| text.len() as u64).sum()
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
        let model = open(&self.config.model.path, &options)?;
        Ok(match self.config.train.dropout {
            None => model,
            Some(rate) => with_dropout(model, rate, Mode::Training),
        })
    }

    fn head(&self) -> Head {
        Head::None
    }

    fn untrained(&self) -> &'static [&'static str] {
        &[UNTRAINED]
    }

    fn evaluate(&self, model: &Model) -> Result<Evaluation, TrainError> {
        let pairs = self.valid.as_deref().unwrap_or_default();
        evaluate(model, pairs, self.config.embedding.pooling)
    }

    fn intervals(&self) -> (u64, u64) {
        let train = &self.config.train;
        let per_step = (train.batch_size * train.accumulation) as u64;
        let epoch = self.train.per_epoch().div_ceil(per_step);
        let every = self.config.evaluate.every.unwrap_or(epoch);
        // Without validation pairs, an epoch still ends with a checkpoint.
        let checkpoint = self.config.checkpoint.every;
        (every, if checkpoint == 0 { every } else { checkpoint })
    }

    fn judge(&self) -> Judge {
        let own = self.metrics()[0];
        Judge {
            metric: self.config.evaluate.metric.as_deref().unwrap_or(own).into(),
            higher: true,
        }
    }

    fn files(&self) -> Result<Vec<(String, PathBuf)>, TrainError> {
        Ok(self.files.clone())
    }

    fn card(&self, model: &Model, state: &TrainerState) -> String {
        let mut results = vec![("Steps".to_string(), state.step.to_string())];
        if let Some(last) = &state.last_evaluation {
            let found = last.found.metrics.iter();
            results.extend(found.map(|metric| {
                (
                    format!("Validation {}", metric.name),
                    format!("{:.4}", metric.value),
                )
            }));
        }
        ModelCard {
            name: "Vectors of sentences".into(),
            model_type: model.config().model_type().to_string(),
            parameters: Some(
                model
                    .parameters()
                    .iter()
                    .map(|info| info.len() as u64)
                    .sum(),
            ),
            pipeline_tag: Some("sentence-similarity".into()),
            paragraphs: vec![format!(
                "Trained on {} pairs with the {:?} loss, {:?} pooling. Seed {}.",
                self.train.per_epoch(),
                self.config.embedding.loss,
                self.config.embedding.pooling,
                state.seed
            )],
            results,
            ..ModelCard::default()
        }
        .render()
    }
}
