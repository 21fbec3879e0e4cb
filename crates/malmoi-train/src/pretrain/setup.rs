//! From a configuration to what a run needs: tokenizer, corpora, model shape, optimiser.

use std::path::Path;

use malmoi_models::ModelConfig;
use malmoi_text::Tokenizer;

use super::objective;
use crate::config::{Architecture, DataSection, ModelSection, PretrainConfig};
use crate::error::{ConfigProblem, TrainError};

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
    match &mut model {
        ModelConfig::Bert(bert) => bert.pad_token_id = special.pad.unwrap_or(0),
        ModelConfig::Gpt1(_) => {}
        ModelConfig::Gpt2(gpt) => {
            gpt.bos_token_id = special.bos;
            gpt.eos_token_id = special.eos;
            gpt.pad_token_id = special.pad;
        }
    }
    if let Some(rate) = config.train.dropout {
        set_dropout(&mut model, rate as f32);
    }
    objective::check_fit(&config.objective, &model)?;
    objective::sequence_length(&config.objective, model.max_len())?;
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
    let mut model = ModelConfig::preset(preset).ok_or_else(|| {
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
    let init_std = section.init_std.map(|std| std as f32);
    match &mut model {
        ModelConfig::Bert(bert) => {
            (bert.d_model, bert.n_heads, bert.n_layers) = (d_model, n_heads, n_layers);
            (bert.d_ff, bert.max_len) = (d_ff, max_len);
            bert.initializer_range = init_std.unwrap_or(bert.initializer_range);
        }
        ModelConfig::Gpt1(gpt) => {
            if d_ff != 4 * d_model {
                return Err(ConfigProblem::new(
                    "model.d_ff",
                    format!("4 · d_model = {}, which gpt1 always has", 4 * d_model),
                    d_ff,
                    "remove it, or take gpt2",
                )
                .into());
            }
            (gpt.d_model, gpt.n_heads, gpt.n_layers, gpt.max_len) =
                (d_model, n_heads, n_layers, max_len);
            gpt.initializer_range = init_std.unwrap_or(gpt.initializer_range);
        }
        ModelConfig::Gpt2(gpt) => {
            (gpt.d_model, gpt.n_heads, gpt.n_layers) = (d_model, n_heads, n_layers);
            (gpt.d_ff, gpt.max_len) = (d_ff, max_len);
            if resized {
                gpt.d_head = d_model / n_heads;
            }
            gpt.initializer_range = init_std.unwrap_or(gpt.initializer_range);
        }
    }
    Ok(model)
}

pub(crate) fn set_dropout(model: &mut ModelConfig, rate: f32) {
    match model {
        ModelConfig::Bert(bert) => {
            (
                bert.dropout,
                bert.attention_dropout,
                bert.classifier_dropout,
            ) = (rate, rate, rate);
        }
        ModelConfig::Gpt1(gpt) => {
            (
                gpt.embedding_dropout,
                gpt.attention_dropout,
                gpt.residual_dropout,
            ) = (rate, rate, rate);
        }
        ModelConfig::Gpt2(gpt) => {
            (
                gpt.embedding_dropout,
                gpt.attention_dropout,
                gpt.residual_dropout,
            ) = (rate, rate, rate);
        }
    }
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
