//! `[tune]`: which parameters are trained and how fast, how targets are weighed, what inputs look like.

use std::collections::BTreeMap;
use std::path::Path;

use malmoi_models::{Head, Model, ModelConfig, ParameterInfo};
use malmoi_tasks::{Case, OutputKind, Truth};
use serde::{Deserialize, Serialize};

use super::config::FinetuneConfig;
use super::data::ExampleOptions;
use crate::config::LoraSection;
use crate::error::{ConfigProblem, TrainError};
use crate::training::{Adapters, Tuning};

/// `[tune]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TuneSection {
    /// Factor on the learning rate from each block to the one below it: the head has 1, the last block this factor, the embeddings its
    /// power of the number of blocks plus one (Howard and Ruder 2018; Clark et al. 2020 take 0.8).
    pub layer_decay: f64,
    /// Freeze the embeddings and so many of the first blocks.
    pub freeze_layers: usize,
    /// Freeze the parameters whose names begin with one of these, such as "embeddings" or "layers.0".
    pub freeze: Vec<String>,
    /// Give the head initial values even where the files have one.
    pub reset_head: bool,
    /// Give so many of the last blocks initial values (Zhang et al. 2021).
    pub reset_layers: usize,
    /// Weights of the classes: "balanced" (rows over classes times rows of the class), or a number for some labels.
    pub class_weights: Option<ClassWeights>,
    /// Share of a target's weight that all classes get alike.
    pub label_smoothing: f64,
    /// Start, delimiter and extract tokens around the texts, as GPT-1 reads its tasks. The tokens are added to the vocabulary.
    pub task_tokens: bool,
    /// Weight of the language-model loss beside that of the task, for decoders (0.5 in GPT-1).
    pub lm_weight: f64,
    /// Train low-rank adapters in place of the body.
    pub lora: Option<LoraSection>,
}

impl Default for TuneSection {
    fn default() -> Self {
        Self {
            layer_decay: 1.0,
            freeze_layers: 0,
            freeze: Vec::new(),
            reset_head: false,
            reset_layers: 0,
            class_weights: None,
            label_smoothing: 0.0,
            task_tokens: false,
            lm_weight: 0.0,
            lora: None,
        }
    }
}

/// Weights of the classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClassWeights {
    /// A rule: `balanced`.
    Rule(String),
    /// A number a label; 1 for the others.
    ByLabel(BTreeMap<String, f64>),
}

impl TuneSection {
    /// Checks values.
    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        let share = |key: &'static str, value: f64, above: bool| {
            let good = if above {
                value > 0.0 && value <= 1.0
            } else {
                (0.0..1.0).contains(&value)
            };
            match good {
                true => Ok(()),
                false => Err(ConfigProblem::new(
                    key,
                    if above {
                        "a number above 0, at most 1"
                    } else {
                        "a number from 0, below 1"
                    },
                    value,
                    "correct it",
                )),
            }
        };
        share("tune.layer_decay", self.layer_decay, true)?;
        share("tune.label_smoothing", self.label_smoothing, false)?;
        if !(self.lm_weight >= 0.0 && self.lm_weight.is_finite()) {
            return Err(ConfigProblem::new(
                "tune.lm_weight",
                "a number from 0",
                self.lm_weight,
                "correct it",
            ));
        }
        if let Some(ClassWeights::Rule(rule)) = &self.class_weights
            && rule != "balanced"
        {
            return Err(ConfigProblem::new(
                "tune.class_weights",
                "\"balanced\", or a table such as { rare = 5.0 }",
                format!("{rule:?}"),
                "correct it",
            ));
        }
        if let Some(lora) = &self.lora {
            lora.validate()?;
        }
        Ok(())
    }

    /// Checks what depends on the model.
    pub(super) fn check(
        &self,
        model: &ModelConfig,
        output: OutputKind,
    ) -> Result<(), ConfigProblem> {
        let decoder = model.direction() == malmoi_models::Direction::Decoder;
        let sequences = !matches!(
            output,
            OutputKind::Tags | OutputKind::Spans | OutputKind::Text
        );
        for (key, set) in [
            ("tune.task_tokens", self.task_tokens),
            ("tune.lm_weight", self.lm_weight > 0.0),
        ] {
            if set && !(decoder && sequences) {
                return Err(ConfigProblem::new(
                    key,
                    "a decoder (GPT) and a task over whole texts",
                    model.model_type(),
                    "leave it out",
                ));
            }
        }
        let one_class = matches!(output, OutputKind::Classes | OutputKind::Tags);
        let choice = output == OutputKind::Choice;
        for (key, unused) in [
            (
                "tune.class_weights",
                self.class_weights.is_some() && !one_class,
            ),
            (
                "tune.label_smoothing",
                self.label_smoothing > 0.0 && !one_class && !choice,
            ),
        ] {
            if unused {
                return Err(ConfigProblem::new(
                    key,
                    "a task whose rows or units have one class of several",
                    "another task",
                    "leave it out",
                ));
            }
        }
        let n_layers = model.n_layers();
        for (key, layers) in [
            ("tune.freeze_layers", self.freeze_layers),
            ("tune.reset_layers", self.reset_layers),
        ] {
            if layers > n_layers {
                return Err(ConfigProblem::new(
                    key,
                    format!("at most {n_layers}, the blocks of the model"),
                    layers,
                    "lower it",
                ));
            }
        }
        Ok(())
    }

    /// How cases become examples.
    pub(super) fn examples(
        &self,
        model: &ModelConfig,
        labels: &[String],
        cases: &[Case],
    ) -> Result<ExampleOptions, ConfigProblem> {
        Ok(ExampleOptions {
            start: model.decoder_start(),
            class_weights: self.weights(labels, cases)?,
            smoothing: self.label_smoothing as f32,
            lm_weight: self.lm_weight as f32,
        })
    }

    fn weights(&self, labels: &[String], cases: &[Case]) -> Result<Vec<f32>, ConfigProblem> {
        match &self.class_weights {
            None => Ok(Vec::new()),
            Some(ClassWeights::Rule(_)) => {
                let mut counts = vec![0_usize; labels.len()];
                for case in cases {
                    match &case.truth {
                        Some(Truth::Class(class)) => counts[*class as usize] += 1,
                        Some(Truth::Tags(tags)) => {
                            tags.iter().for_each(|tag| counts[*tag as usize] += 1);
                        }
                        _ => {}
                    }
                }
                let all: usize = counts.iter().sum();
                let weight = |n: &usize| all as f64 / (labels.len() * n.max(&1)) as f64;
                Ok(counts.iter().map(|n| weight(n) as f32).collect())
            }
            Some(ClassWeights::ByLabel(given)) => {
                let unknown = given.keys().find(|label| !labels.contains(label));
                if let Some(label) = unknown {
                    return Err(ConfigProblem::new(
                        "tune.class_weights",
                        format!("labels of the data: {}", labels.join(", ")),
                        format!("{label:?}"),
                        "correct the name",
                    ));
                }
                let weight = |label| given.get(label).copied().unwrap_or(1.0) as f32;
                Ok(labels.iter().map(weight).collect())
            }
        }
    }
}

/// Block that a parameter belongs to.
fn block_of(name: &str) -> Option<usize> {
    let mut parts = name.split('.').skip_while(|part| *part != "layers");
    parts.nth(1)?.parse().ok()
}

/// Whether a parameter belongs to what tokens are looked up in.
fn of_embeddings(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    [
        "embeddings",
        "token",
        "position",
        "segment",
        "language",
        "projection",
    ]
    .contains(&first)
}

/// Our names of the parameters that every use of an architecture shares.
fn body(config: &ModelConfig) -> Vec<String> {
    let parameters = Model::blank(config.clone(), Head::None).parameters();
    let names = parameters.into_iter().map(|info| info.name);
    // A pooler belongs to heads.
    names.filter(|name| !name.contains("pooler")).collect()
}

/// Gives the head or the last blocks initial values, where that is asked for.
pub(super) fn reset(model: Model, tune: &TuneSection, seed: u64) -> Model {
    if !tune.reset_head && tune.reset_layers == 0 {
        return model;
    }
    let body = body(model.config());
    let first = model.config().n_layers() - tune.reset_layers;
    redrawn(model, seed, |info| {
        tune.reset_head && !body.contains(&info.name)
            || block_of(&info.name).is_some_and(|block| block >= first)
    })
}

/// Gives the part of the head that has a row for each of `n` labels initial values.
pub(super) fn with_new_labels(model: Model, n: usize, seed: u64) -> Model {
    let body = body(model.config());
    redrawn(model, seed, |info| {
        !body.contains(&info.name) && info.shape.contains(&n)
    })
}

/// Gives some parameters initial values.
fn redrawn(model: Model, seed: u64, drawn: impl Fn(&ParameterInfo) -> bool) -> Model {
    let mode = malmoi_models::Mode::Inference;
    let fresh = Model::initialise(model.config().clone(), model.head(), seed, mode);
    let mut values = Vec::new();
    fresh.read(|info, parameter| {
        values.push(drawn(info).then(|| parameter.to_vec()));
    });
    let mut values = values.into_iter();
    model.update(|_, parameter| {
        if let Some(Some(fresh)) = values.next() {
            parameter.copy_from_slice(&fresh);
        }
    })
}

/// Which parameters a run trains, and how fast.
pub(super) fn tuning(
    config: &FinetuneConfig,
    model: &Model,
    start: Option<&Model>,
    checkpoint: Option<&Path>,
) -> Result<Tuning, TrainError> {
    let tune = &config.tune;
    let n_layers = model.config().n_layers();
    let mut tuning = Tuning::default();
    let body = body(model.config());
    for info in model.parameters() {
        let name = &info.name;
        let block = block_of(name);
        // Steps down from the head.
        let depth = match block {
            Some(block) => n_layers - block.min(n_layers),
            None if of_embeddings(name) => n_layers + 1,
            None => 0,
        };
        let mut factor = tune.layer_decay.powi(depth as i32);
        let low = block.is_some_and(|block| block < tune.freeze_layers)
            || tune.freeze_layers > 0 && of_embeddings(name);
        let named = tune
            .freeze
            .iter()
            .any(|prefix| name.starts_with(prefix.as_str()));
        let beside = tune.lora.is_some() && body.contains(name);
        if low || named || beside {
            factor = 0.0;
        }
        if factor != 1.0 {
            tuning.factors.insert(name.clone(), factor);
        }
    }
    if let Some(prefix) = (tune.freeze.iter()).find(|prefix| {
        !model
            .parameters()
            .iter()
            .any(|info| info.name.starts_with(prefix.as_str()))
    }) {
        return Err(ConfigProblem::new(
            "tune.freeze",
            "the beginning of a parameter's name, such as embeddings or layers.0",
            format!("{prefix:?}"),
            "correct it",
        )
        .into());
    }
    if let Some(lora) = &tune.lora {
        let task_type = match config.task.task().output() {
            OutputKind::Tags => "TOKEN_CLS",
            OutputKind::Spans => "QUESTION_ANS",
            OutputKind::Text if model.head() == Head::Seq2SeqLm => "SEQ_2_SEQ_LM",
            OutputKind::Text => "CAUSAL_LM",
            _ => "SEQ_CLS",
        };
        let options = lora.options(config.seed, &config.model.path, Some(task_type));
        let whole = |info: &ParameterInfo| !body.contains(&info.name);
        let adapters = Adapters::new(start.unwrap_or(model), options, whole)?;
        tuning.adapters = Some(adapters.resumed(checkpoint)?);
    }
    let trained = |info: &ParameterInfo| !tuning.freezes(&info.name);
    if !model.parameters().iter().any(trained) {
        return Err(ConfigProblem::new(
            "tune.freeze",
            "something that is left to train",
            "every parameter frozen",
            "freeze less",
        )
        .into());
    }
    Ok(tuning)
}
