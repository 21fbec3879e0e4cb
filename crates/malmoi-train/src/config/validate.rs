//! What a configuration must satisfy before anything is read or computed.

use super::{Objective, PretrainConfig, TokenizerKind, TrainSection};
use crate::error::ConfigProblem;

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
        at_least_one("checkpoint.keep", self.checkpoint.keep as u64)?;
        at_least_one("log.every", self.log.every)?;
        if let Some(batches) = self.evaluate.batches {
            at_least_one("evaluate.batches", batches as u64)?;
        }
        Ok(())
    }

    fn check_model_and_tokenizer(&self) -> Result<(), ConfigProblem> {
        let model = &self.model;
        match (&model.preset, model.architecture) {
            (Some(_), None) | (None, Some(_)) => {}
            (None, None) => {
                return Err(ConfigProblem::new(
                    "model",
                    "`preset` or `architecture`",
                    "neither",
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
                if let Some(context) = clm.context {
                    at_least_one("objective.context", context as u64)?;
                }
            }
            Objective::Mlm(mlm) => {
                let needed = if mlm.next_sentence { 5 } else { 3 };
                if let Some(max_len) = mlm.max_len.filter(|&length| length < needed) {
                    return Err(ConfigProblem::new(
                        "objective.max_len",
                        format!("at least {needed}, to hold the special tokens and some text"),
                        max_len,
                        "raise it",
                    ));
                }
                if !(mlm.probability > 0.0 && mlm.probability <= 1.0) {
                    return Err(ConfigProblem::new(
                        "objective.probability",
                        "a share above 0, at most 1",
                        mlm.probability,
                        "the published value is 0.15",
                    ));
                }
                for (key, share) in [
                    ("objective.mask", mlm.mask),
                    ("objective.random", mlm.random),
                    ("objective.keep", mlm.keep),
                ] {
                    if !(0.0..=1.0).contains(&share) {
                        return Err(ConfigProblem::new(
                            key,
                            "a share from 0 to 1",
                            share,
                            "correct it",
                        ));
                    }
                }
                let sum = mlm.mask + mlm.random + mlm.keep;
                if (sum - 1.0).abs() > 1e-9 {
                    return Err(ConfigProblem::new(
                        "objective.mask",
                        "mask + random + keep = 1",
                        format!("a sum of {sum}"),
                        "the published values are 0.8, 0.1 and 0.1",
                    ));
                }
            }
        }
        Ok(())
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
        if train.precision != "f32" {
            return Err(ConfigProblem::new(
                "train.precision",
                "\"f32\"",
                format!("{:?}", train.precision),
                "this version trains in f32 only; set train.precision = \"f32\"",
            ));
        }
        Ok(())
    }
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
