//! From a configuration to what a run needs: tokenizer, corpora, model shape, optimiser.

use std::path::Path;
use std::sync::Arc;

use malmoi_models::{Head, ModelConfig, Sizes, SpecialTokens};
use malmoi_text::Tokenizer;

use crate::config::{
    Architecture, DataSection, ModelSection, Objective, PretrainConfig, ScheduleKind,
};
use crate::data::{ClmData, ClmOptions, Corpus, Examples, MlmData, MlmOptions, Tokens};
use crate::error::{ConfigProblem, TrainError};
use crate::objectives::masked::MaskingRates;
use crate::optim::{Adam, LearningRate, Optimizer, Rule, Schedule};

/// The head that an objective trains.
pub(super) fn head(objective: &Objective) -> Head {
    match objective {
        Objective::Clm(_) => Head::CausalLm,
        Objective::Mlm(mlm) if mlm.next_sentence => Head::Pretraining,
        Objective::Mlm(_) => Head::MaskedLm,
    }
}

/// The shape of the model for a tokenizer.
///
/// # Errors
/// [`TrainError::Config`] for sizes that do not go together or an architecture that does not fit the objective;
/// [`TrainError::VocabularyMismatch`], [`TrainError::TooLong`].
pub fn model_config(
    config: &PretrainConfig,
    tokenizer: &Tokenizer,
) -> Result<ModelConfig, TrainError> {
    let mut model = sizes(&config.model)?;
    let needed = tokenizer.vocab_size();
    let vocab_size = config.model.vocab_size.unwrap_or(needed);
    if vocab_size < needed {
        return Err(TrainError::VocabularyMismatch {
            tokenizer: needed,
            model: vocab_size,
        });
    }
    model = model.with_vocab_size(vocab_size);
    let special = tokenizer.special();
    model = model.with_special_tokens(SpecialTokens {
        pad: special.pad,
        bos: special.bos,
        eos: special.eos,
    });
    if let Some(rate) = config.train.dropout {
        model = model.with_dropout(rate as f32);
    }
    let (wants_causal, name) = match &config.objective {
        Objective::Clm(_) => (true, "clm"),
        Objective::Mlm(_) => (false, "mlm"),
    };
    if model.is_causal() != wants_causal {
        let (expected, fix) = if wants_causal {
            (
                "an objective of an encoder (mlm)",
                "set objective.kind = \"mlm\", or train a gpt1 or gpt2",
            )
        } else {
            (
                "an objective of a decoder (clm)",
                "set objective.kind = \"clm\", or train a bert",
            )
        };
        return Err(
            ConfigProblem::new("objective.kind", expected, format!("{name:?}"), fix).into(),
        );
    }
    if let Objective::Mlm(mlm) = &config.objective
        && mlm.next_sentence
        && model.n_segments() < 2
    {
        return Err(ConfigProblem::new(
            "objective.next_sentence",
            "false for a model with one segment",
            true,
            "take a model with two segments",
        )
        .into());
    }
    sequence_length(&config.objective, model.max_len())?;
    Ok(model)
}

/// Preset or architecture, with the sizes of the section over it.
fn sizes(section: &ModelSection) -> Result<ModelConfig, TrainError> {
    let preset = match (&section.preset, section.architecture) {
        (Some(preset), _) => preset.as_str(),
        (None, Some(Architecture::Bert)) => "bert-base",
        (None, Some(Architecture::Gpt1)) => "gpt1",
        (None, _) => "gpt2",
    };
    let model = ModelConfig::preset(preset).ok_or_else(|| {
        ConfigProblem::new(
            "model.preset",
            format!("one of {}", ModelConfig::preset_names().join(", ")),
            format!("{preset:?}"),
            "correct the name",
        )
    })?;
    let d_model = section.d_model.unwrap_or(model.d_model());
    let n_heads = section.n_heads.unwrap_or(model.n_heads());
    let n_layers = section.n_layers.unwrap_or(model.n_layers());
    let max_len = section.max_len.unwrap_or(model.max_len());
    // A width of one's own is four times as wide inside, as published.
    let d_ff = section.d_ff.unwrap_or(if section.d_model.is_some() {
        4 * d_model
    } else {
        model.d_ff()
    });
    let resized = section.d_model.is_some() || section.n_heads.is_some();
    if resized && !d_model.is_multiple_of(n_heads) {
        return Err(ConfigProblem::new(
            "model.n_heads",
            format!("a divisor of d_model = {d_model}"),
            n_heads,
            "change one of them",
        )
        .into());
    }
    let given = model.sizes();
    let sizes = Sizes {
        d_model,
        n_heads,
        n_layers,
        max_len,
        d_ff,
        n_kv_heads: if resized { n_heads } else { given.n_kv_heads },
        d_head: if resized {
            d_model / n_heads
        } else {
            given.d_head
        },
        ..given
    };
    let model = model.with_sizes(&sizes);
    if model.d_ff() != d_ff {
        return Err(ConfigProblem::new(
            "model.d_ff",
            format!("{}, which this architecture always has", model.d_ff()),
            d_ff,
            "remove it, or take another architecture",
        )
        .into());
    }
    Ok(match section.init_std {
        Some(deviation) => model.with_initializer_range(deviation as f32),
        None => model,
    })
}

/// Tokens of a sequence: what the objective says, or all positions.
pub(super) fn sequence_length(objective: &Objective, max_len: usize) -> Result<usize, TrainError> {
    let (key, length) = match objective {
        Objective::Clm(clm) => ("objective.context", clm.context),
        Objective::Mlm(mlm) => ("objective.max_len", mlm.max_len),
    };
    let length = length.unwrap_or(max_len);
    if length > max_len {
        return Err(TrainError::TooLong {
            key,
            length,
            max_len,
        });
    }
    Ok(length)
}

/// Examples of a corpus under the objective of the configuration.
pub(super) fn examples(
    config: &PretrainConfig,
    tokenizer: &Tokenizer,
    corpus: Arc<Corpus>,
    name: &str,
    length: usize,
) -> Result<Box<dyn Examples>, TrainError> {
    let tokens: Arc<dyn Tokens> = corpus;
    Ok(match &config.objective {
        Objective::Clm(clm) => {
            let separator = match clm.separator.as_deref() {
                None => tokenizer.special().eos,
                Some("") => None,
                Some(token) => {
                    Some(
                        tokenizer
                            .token_to_id(token)
                            .ok_or_else(|| TrainError::NoToken {
                                token: token.to_string(),
                            })?,
                    )
                }
            };
            let options = ClmOptions {
                context: length,
                separator,
                reset_positions: clm.reset_positions,
                cross_document_attention: clm.cross_document_attention,
                sampling: clm.sampling,
            };
            Box::new(ClmData::new(tokens, name, options)?)
        }
        Objective::Mlm(mlm) => {
            let options = MlmOptions {
                max_len: length,
                rates: MaskingRates {
                    chosen: mlm.probability,
                    mask: mlm.mask,
                    random: mlm.random,
                },
                whole_word: mlm.whole_word,
                next_sentence: mlm.next_sentence,
            };
            Box::new(MlmData::new(tokens, tokenizer.clone(), name, options)?)
        }
    })
}

/// Files of a section of the data, with their directory.
pub(super) fn files(
    data: &DataSection,
    list: &crate::config::OneOrMany,
) -> Vec<std::path::PathBuf> {
    let dir = data.dir.as_deref().unwrap_or(Path::new(""));
    list.paths()
        .into_iter()
        .map(|path| dir.join(path))
        .collect()
}

/// Steps of the whole run.
pub(super) fn total_steps(config: &PretrainConfig, examples: &dyn Examples) -> u64 {
    let per_step = (config.train.batch_size * config.train.accumulation) as f64;
    let steps = match (config.train.steps, config.train.epochs, config.train.tokens) {
        (Some(steps), ..) => return steps,
        (None, Some(epochs), _) => epochs * examples.per_epoch() as f64 / per_step,
        (None, None, tokens) => tokens.unwrap_or(0) as f64 / (examples.mean_tokens() * per_step),
    };
    (steps.ceil() as u64).max(1)
}

/// The learning rate over a run of `steps` steps.
pub fn schedule(config: &PretrainConfig, steps: u64) -> LearningRate {
    let section = &config.schedule;
    let end = section.min_lr / config.optimizer.lr;
    let schedule = match section.kind {
        ScheduleKind::Constant => Schedule::Constant,
        ScheduleKind::Linear => Schedule::Linear { end },
        ScheduleKind::Cosine => Schedule::Cosine { end },
        ScheduleKind::InverseSquareRoot => Schedule::InverseSqrt { timescale: None },
        ScheduleKind::Trapezoid => Schedule::Trapezoid {
            decay: section.decay_steps.unwrap_or(steps / 5),
            end,
        },
    };
    LearningRate {
        schedule,
        warmup: section.warmup_steps,
        total: steps,
    }
}

/// The optimiser, without state.
///
/// # Errors
/// A setting that is out of range.
pub fn optimizer(config: &PretrainConfig) -> Result<Optimizer, TrainError> {
    let section = &config.optimizer;
    let rule = Rule::AdamW(Adam {
        beta1: section.betas[0],
        beta2: section.betas[1],
        eps: section.eps,
        weight_decay: section.weight_decay,
    });
    Ok(Optimizer::new(rule)?)
}
