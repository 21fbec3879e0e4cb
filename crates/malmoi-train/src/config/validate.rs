//! What a configuration must satisfy before anything is read or computed.

use super::{Mlm, Objective, PretrainConfig, TokenizerKind, TrainSection};
use crate::data::PairKind;
use crate::error::ConfigProblem;
use crate::objectives::span_corruption::SpanRates;
use malmoi_models::Precision;

impl PretrainConfig {
    /// Checks values and combinations that the types allow but a run cannot use.
    ///
    /// # Errors
    /// The first problem, with its key.
    pub fn validate(&self) -> Result<(), ConfigProblem> {
        self.check_model_and_tokenizer()?;
        self.check_data()?;
        self.check_objective()?;
        self.optimizer.validate()?;
        self.schedule.validate(self.optimizer.lr)?;
        self.train.validate()?;
        self.check_early_stop()?;
        self.check_tune()?;
        at_least_one("checkpoint.keep", self.checkpoint.keep as u64)?;
        at_least_one("log.every", self.log.every)?;
        if let Some(batches) = self.evaluate.batches {
            at_least_one("evaluate.batches", batches as u64)?;
        }
        Ok(())
    }

    /// A model that training continues has its shape and its tokenizer already.
    fn check_continued(&self) -> Result<(), ConfigProblem> {
        let (model, tokenizer) = (&self.model, &self.tokenizer);
        let given = [
            ("model.preset", model.preset.is_some()),
            ("model.architecture", model.architecture.is_some()),
            ("model.vocab_size", model.vocab_size.is_some()),
            ("model.d_model", model.d_model.is_some()),
            ("model.n_layers", model.n_layers.is_some()),
            ("model.n_heads", model.n_heads.is_some()),
            ("model.d_ff", model.d_ff.is_some()),
            ("model.max_len", model.max_len.is_some()),
            ("model.init_std", model.init_std.is_some()),
            ("model.published", model.published.is_some()),
            ("tokenizer.path", tokenizer.path.is_some()),
            ("tokenizer.train", tokenizer.train.is_some()),
        ];
        if let Some((key, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(ConfigProblem::new(
                key,
                "nothing beside model.path, whose model has a shape and a tokenizer",
                "a value",
                "remove it, or remove model.path to train a new model",
            ));
        }
        if matches!(self.objective, Objective::Rtd(_)) {
            return Err(ConfigProblem::new(
                "model.path",
                "no model to continue under replaced-token detection, whose generator is new",
                "a directory",
                "give architecture = \"electra\" and sizes, or objective.kind = \"mlm\"",
            ));
        }
        Ok(())
    }

    fn check_model_and_tokenizer(&self) -> Result<(), ConfigProblem> {
        let model = &self.model;
        if model.path.is_some() {
            return self.check_continued();
        }
        match (&model.preset, &model.architecture) {
            (Some(_), None) | (None, Some(_)) => {}
            (None, None) => {
                return Err(ConfigProblem::new(
                    "model",
                    "`preset`, `architecture` or `path`",
                    "none of them",
                    "add preset = \"gpt2\", say, or architecture = \"gpt2\" with sizes",
                ));
            }
            (Some(preset), Some(_)) => {
                return Err(ConfigProblem::new(
                    "model.architecture",
                    "no architecture beside a preset",
                    format!("both (the preset is {preset:?})"),
                    "remove one of them",
                ));
            }
        }
        let sizes = [
            ("model.vocab_size", model.vocab_size),
            ("model.d_model", model.d_model),
            ("model.n_layers", model.n_layers),
            ("model.n_heads", model.n_heads),
            ("model.d_ff", model.d_ff),
            ("model.max_len", model.max_len),
        ];
        for (key, size) in sizes {
            at_least_one(key, size.unwrap_or(1) as u64)?;
        }
        if let Some(std) = model.init_std {
            positive("model.init_std", std)?;
        }
        match (&self.tokenizer.path, &self.tokenizer.train) {
            (Some(_), None) => {}
            (None, Some(train)) => match (train.kind, train.vocab_size) {
                (TokenizerKind::Char, _) => {}
                (_, Some(size)) => at_least_one("tokenizer.train.vocab_size", size as u64)?,
                (_, None) => {
                    return Err(ConfigProblem::new(
                        "tokenizer.train.vocab_size",
                        "a number of tokens",
                        "nothing",
                        "add vocab_size = 8000, say",
                    ));
                }
            },
            (path, _) => {
                return Err(ConfigProblem::new(
                    "tokenizer",
                    "exactly one of `path` and `train`",
                    if path.is_some() { "both" } else { "neither" },
                    "give the directory of a tokenizer as path, or train = { kind = \"wordpiece\", vocab_size = 8000 }",
                ));
            }
        }
        Ok(())
    }

    fn check_data(&self) -> Result<(), ConfigProblem> {
        let lists = [Some(&self.data.train), self.data.valid.as_ref()];
        for (key, list) in ["data.train", "data.valid"].into_iter().zip(lists) {
            if list.is_some_and(|list| list.paths().is_empty()) {
                return Err(ConfigProblem::new(
                    key,
                    "at least one file",
                    "an empty list",
                    "name a file",
                ));
            }
        }
        Ok(())
    }

    fn check_objective(&self) -> Result<(), ConfigProblem> {
        match &self.objective {
            Objective::Clm(clm) => {
                at_least_one("objective.context", clm.context.unwrap_or(1) as u64)
            }
            Objective::Mlm(mlm) => check_masking(mlm),
            Objective::Rtd(rtd) => {
                length_of("objective.max_len", rtd.max_len, 3)?;
                positive("objective.detection_factor", rtd.detection_factor)?;
                share("objective.generator", rtd.generator)?;
                positive("objective.generator", rtd.generator)?;
                chosen("objective.probability", rtd.probability)
            }
            Objective::Tlm(tlm) => {
                length_of("objective.max_len", tlm.max_len, 6)?;
                share("objective.pairs", tlm.pairs)?;
                chosen("objective.probability", tlm.probability)
            }
            Objective::SpanCorruption(spans) => {
                length_of("objective.max_len", spans.max_len, 4)?;
                for task in &spans.tasks {
                    length_of(
                        "objective.tasks.max_target_len",
                        Some(task.max_target_len),
                        2,
                    )?;
                }
                positive("objective.temperature", spans.temperature)?;
                at_least_one("objective.limit", spans.limit.unwrap_or(1))?;
                let rates = SpanRates {
                    density: spans.density,
                    mean_span: spans.mean_span,
                };
                rates
                    .raw_length(spans.max_len.unwrap_or(512))
                    .map(drop)
                    .map_err(|error| {
                        ConfigProblem::new(
                            "objective",
                            "a density above 0 and below 1 and a mean span of 1 or more",
                            error,
                            "the published values are 0.15 and 3",
                        )
                    })
            }
            Objective::Denoising(noise) => {
                length_of("objective.max_len", noise.max_len, 4)?;
                chosen("objective.probability", noise.probability)?;
                if (1.0..=50.0).contains(&noise.mean_span) {
                    return Ok(());
                }
                Err(ConfigProblem::new(
                    "objective.mean_span",
                    "from 1 to 50",
                    noise.mean_span,
                    "the published value is 3",
                ))
            }
            Objective::Text2text(task) => {
                length_of("objective.max_len", task.max_len, 2)?;
                length_of("objective.max_target_len", Some(task.max_target_len), 2)
            }
        }
    }

    /// Adapters belong to a model that is there.
    fn check_tune(&self) -> Result<(), ConfigProblem> {
        let Some(lora) = &self.tune.lora else {
            return Ok(());
        };
        lora.validate()?;
        match &self.model.path {
            Some(_) => Ok(()),
            None => Err(ConfigProblem::new(
                "tune.lora",
                "a model that training goes on from (model.path)",
                "a new model",
                "name the model's directory, or leave tune.lora out",
            )),
        }
    }

    fn check_early_stop(&self) -> Result<(), ConfigProblem> {
        if let Some(patience) = self.train.early_stop {
            at_least_one("train.early_stop", patience)?;
            if self.data.valid.is_none() {
                return Err(ConfigProblem::new(
                    "train.early_stop",
                    "a validation text to judge by",
                    "no data.valid",
                    "add data.valid, or remove train.early_stop",
                ));
            }
            if self.evaluate.every == 0 {
                return Err(ConfigProblem::new(
                    "train.early_stop",
                    "evaluations during training",
                    "evaluate.every = 0",
                    "set evaluate.every, or remove train.early_stop",
                ));
            }
        }
        Ok(())
    }
}

impl TrainSection {
    /// Checks the settings of a section on their own.
    pub(crate) fn validate(&self) -> Result<(), ConfigProblem> {
        let train = self;
        at_least_one("train.batch_size", train.batch_size as u64)?;
        at_least_one("train.accumulation", train.accumulation as u64)?;
        not_negative("train.clip_norm", train.clip_norm)?;
        let lengths = [
            train.steps.is_some(),
            train.epochs.is_some(),
            train.tokens.is_some(),
        ];
        let given = lengths.into_iter().filter(|given| *given).count();
        if given != 1 {
            return Err(ConfigProblem::new(
                "train",
                "exactly one of `steps`, `epochs` and `tokens`",
                format!("{given} of them"),
                "say how long to train with one of them",
            ));
        }
        at_least_one("train.steps", train.steps.unwrap_or(1))?;
        at_least_one("train.tokens", train.tokens.unwrap_or(1))?;
        if let Some(epochs) = train.epochs {
            positive("train.epochs", epochs)?;
        }
        if let Some(dropout) = train.dropout.filter(|rate| !(0.0..1.0).contains(rate)) {
            return Err(ConfigProblem::new(
                "train.dropout",
                "a rate from 0 to below 1",
                dropout,
                "the published value is 0.1",
            ));
        }
        if train.precision.parse::<Precision>().is_err() {
            return Err(ConfigProblem::new(
                "train.precision",
                "\"f32\" or \"bf16\"",
                format!("{:?}", train.precision),
                "f32 is exact, bf16 is faster on processors with a tile unit",
            ));
        }
        Ok(())
    }
}

/// The settings of masked language modelling.
fn check_masking(mlm: &Mlm) -> Result<(), ConfigProblem> {
    let needed = if mlm.pairs() == PairKind::None { 3 } else { 5 };
    length_of("objective.max_len", mlm.max_len, needed)?;
    if mlm.next_sentence && mlm.sentence_order {
        return Err(ConfigProblem::new(
            "objective.sentence_order",
            "one of `next_sentence` and `sentence_order`",
            "both",
            "remove one of them",
        ));
    }
    at_least_one("objective.max_ngram", mlm.max_ngram as u64)?;
    chosen("objective.probability", mlm.probability)?;
    share("objective.mask", mlm.mask)?;
    share("objective.random", mlm.random)?;
    share("objective.keep", mlm.keep)?;
    share("objective.subword_dropout", mlm.subword_dropout)?;
    let sum = mlm.mask + mlm.random + mlm.keep;
    if (sum - 1.0).abs() > 1e-9 {
        return Err(ConfigProblem::new(
            "objective.mask",
            "mask + random + keep = 1",
            format!("a sum of {sum}"),
            "the published values are 0.8, 0.1 and 0.1",
        ));
    }
    Ok(())
}

fn length_of(key: &str, length: Option<usize>, needed: usize) -> Result<(), ConfigProblem> {
    match length.filter(|&length| length < needed) {
        None => Ok(()),
        Some(found) => Err(ConfigProblem::new(
            key,
            format!("at least {needed}, to hold the special tokens and some text"),
            found,
            "raise it",
        )),
    }
}

fn chosen(key: &str, rate: f64) -> Result<(), ConfigProblem> {
    if rate > 0.0 && rate <= 1.0 {
        return Ok(());
    }
    Err(ConfigProblem::new(
        key,
        "a share above 0, at most 1",
        rate,
        "the published value is 0.15",
    ))
}

pub(crate) fn share(key: &str, share: f64) -> Result<(), ConfigProblem> {
    if (0.0..=1.0).contains(&share) {
        return Ok(());
    }
    Err(ConfigProblem::new(
        key,
        "a share from 0 to 1",
        share,
        "correct it",
    ))
}

pub(crate) fn at_least_one(key: &str, value: u64) -> Result<(), ConfigProblem> {
    match value {
        0 => Err(ConfigProblem::new(key, "at least 1", 0, "raise it")),
        _ => Ok(()),
    }
}

pub(crate) fn positive(key: &str, value: f64) -> Result<(), ConfigProblem> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(ConfigProblem::new(
        key,
        "a number above 0",
        value,
        "correct it",
    ))
}

pub(crate) fn not_negative(key: &str, value: f64) -> Result<(), ConfigProblem> {
    if value >= 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(ConfigProblem::new(
        key,
        "a number from 0",
        value,
        "correct it",
    ))
}
