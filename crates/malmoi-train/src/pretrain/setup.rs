//! From a configuration to what a run needs: tokenizer, corpora, model shape, optimiser.

use std::path::Path;

use malmoi_checkpoint::ModelDirectory;
use malmoi_models::{ModelConfig, Sizes, SpecialTokens};
use malmoi_text::Tokenizer;

use super::objective;
use crate::config::{DataSection, ModelSection, PretrainConfig};
use crate::error::{ConfigProblem, TrainError};

/// The shape of the model for a tokenizer: that of the model that training continues, or a new one.
///
/// # Errors
/// [`TrainError::Config`] for sizes that do not go together or an architecture that does not fit the objective;
/// [`TrainError::VocabularyMismatch`], [`TrainError::TooLong`].
pub fn model_config(
    config: &PretrainConfig,
    tokenizer: &Tokenizer,
) -> Result<ModelConfig, TrainError> {
    let needed = tokenizer.vocab_size();
    let continued = match &config.model.path {
        Some(path) => Some(ModelConfig::from_json(
            &ModelDirectory::open(path)?.config,
            false,
        )?),
        None => None,
    };
    let vocab_size = match &continued {
        Some(model) => model.vocab_size(),
        None => config.model.vocab_size.unwrap_or(needed),
    };
    if vocab_size < needed {
        return Err(TrainError::VocabularyMismatch {
            tokenizer: needed,
            model: vocab_size,
        });
    }
    let mut model = match continued {
        Some(model) => model,
        None => {
            let special = tokenizer.special();
            sizes(&config.model)?
                .with_vocab_size(vocab_size)
                .with_special_tokens(SpecialTokens {
                    pad: special.pad,
                    bos: special.bos,
                    eos: special.eos,
                })
        }
    };
    if let Some(rate) = config.train.dropout {
        model = model.with_dropout(rate as f32);
    }
    objective::check_fit(&config.objective, &model)?;
    objective::sequence_length(&config.objective, &model)?;
    objective::complete(&config.objective, model)
}

/// The published configuration that a section starts from: that of its preset, or the first preset of its architecture.
fn base(section: &ModelSection) -> Result<serde_json::Value, ConfigProblem> {
    if let Some(preset) = &section.preset {
        return ModelConfig::preset_json(preset).ok_or_else(|| {
            ConfigProblem::new(
                "model.preset",
                format!("one of {}", ModelConfig::preset_names().join(", ")),
                format!("{preset:?}"),
                "correct the name",
            )
        });
    }
    let name = section.architecture.as_deref().unwrap_or_default();
    let model_type = match name {
        "gpt1" => "openai-gpt",
        other => other,
    };
    let mut presets = ModelConfig::preset_names()
        .into_iter()
        .filter_map(ModelConfig::preset_json);
    let found = presets.find(|json| json["model_type"] == model_type);
    found.ok_or_else(|| {
        ConfigProblem::new(
            "model.architecture",
            format!("one of {}", ModelConfig::model_types().join(", ")),
            format!("{name:?}"),
            "correct the name",
        )
    })
}

/// Preset or architecture, with the sizes of the section over it.
fn sizes(section: &ModelSection) -> Result<ModelConfig, TrainError> {
    let mut json = base(section)?;
    for (key, value) in section.published.iter().flatten() {
        json[key] = serde_json::to_value(value).map_err(|error| {
            ConfigProblem::new(
                format!("model.published.{key}"),
                "a value that JSON has",
                error,
                "correct it",
            )
        })?;
    }
    let model = ModelConfig::from_json(&json, false)?;
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
