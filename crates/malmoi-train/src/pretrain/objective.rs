//! What each objective asks of a model and of the text.

use std::sync::Arc;

use malmoi_models::{Head, ModelConfig};
use malmoi_text::Tokenizer;

use super::corpus::Role;
use crate::config::{Objective, PretrainConfig};
use crate::data::{
    ClmData, ClmOptions, Corpus, Examples, Mixed, MlmData, MlmOptions, PairKind, SpanData,
    SpanOptions, TextPairs, Tokens, TranslationData, TranslationOptions, Units,
};
use crate::error::{ConfigProblem, TrainError};
use crate::objectives::masked::MaskingRates;
use crate::objectives::span_corruption::SpanRates;

/// The head that an objective trains.
pub(super) fn head(objective: &Objective, _: &ModelConfig) -> Head {
    match objective {
        Objective::Clm(_) => Head::CausalLm,
        Objective::Mlm(mlm) if mlm.pairs() != PairKind::None => Head::Pretraining,
        Objective::Mlm(_) | Objective::Tlm(_) => Head::MaskedLm,
        Objective::SpanCorruption(_) | Objective::Text2text(_) => Head::CausalLm,
    }
}

/// The kinds of networks that objectives are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Encoder,
    Decoder,
    Both,
}

impl Shape {
    fn of(model: &ModelConfig) -> Self {
        match model.is_causal() {
            true => Self::Decoder,
            false => Self::Encoder,
        }
    }

    /// What it is called, and an objective for it.
    fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Encoder => ("an encoder (such as bert)", "mlm"),
            Self::Decoder => ("a decoder (such as gpt2)", "clm"),
            Self::Both => ("an encoder with a decoder (such as t5)", "span-corruption"),
        }
    }
}

/// Refuses an objective for another kind of model.
pub(super) fn check_fit(objective: &Objective, model: &ModelConfig) -> Result<(), ConfigProblem> {
    let wanted = match objective {
        Objective::Clm(_) => Shape::Decoder,
        Objective::Mlm(_) | Objective::Tlm(_) => Shape::Encoder,
        Objective::SpanCorruption(_) | Objective::Text2text(_) => Shape::Both,
    };
    let found = Shape::of(model);
    if found != wanted {
        let (kind, example) = found.describe();
        return Err(ConfigProblem::new(
            "objective.kind",
            format!("an objective of {kind}, {example} say"),
            format!(
                "{:?}, which trains {}",
                objective.name(),
                wanted.describe().0
            ),
            "change objective.kind or the model",
        ));
    }
    if let Objective::Mlm(mlm) = objective
        && mlm.pairs() != PairKind::None
    {
        let key = match mlm.pairs() {
            PairKind::SentenceOrder => "objective.sentence_order",
            _ => "objective.next_sentence",
        };
        let heads = model.architecture_names();
        if model.n_segments() < 2 || !heads.iter().any(|(head, _)| *head == Head::Pretraining) {
            return Err(ConfigProblem::new(
                key,
                "false for a model with one segment or without a head for pairs",
                true,
                "take a model with two segments, such as bert",
            ));
        }
    }
    Ok(())
}

/// Tokens of a sequence: what the objective says, or all positions.
pub(super) fn sequence_length(objective: &Objective, max_len: usize) -> Result<usize, TrainError> {
    let (key, length) = objective.length();
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

/// Examples of the corpora of [`super::corpus::sources`], in their order.
pub(super) fn examples(
    config: &PretrainConfig,
    tokenizer: &Tokenizer,
    corpora: &[Arc<Corpus>],
    role: Role,
    length: usize,
) -> Result<Box<dyn Examples>, TrainError> {
    let name = role.describe();
    let tokens = |number: usize| -> Arc<dyn Tokens> { Arc::clone(&corpora[number]) as _ };
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
            Box::new(ClmData::new(tokens(0), name, options)?)
        }
        Objective::Mlm(mlm) => {
            let options = MlmOptions {
                max_len: length,
                rates: MaskingRates {
                    chosen: mlm.probability,
                    mask: mlm.mask,
                    random: mlm.random,
                },
                units: mlm.units(),
                pairs: mlm.pairs(),
            };
            Box::new(MlmData::new(tokens(0), tokenizer.clone(), name, options)?)
        }
        Objective::Tlm(tlm) => {
            let options = TranslationOptions {
                max_len: length,
                rates: MaskingRates {
                    chosen: tlm.probability,
                    ..MaskingRates::default()
                },
                units: match tlm.whole_word {
                    true => Units::Words,
                    false => Units::Tokens,
                },
                languages: tlm.languages,
                pairs: tlm.pairs,
            };
            Box::new(TranslationData::new(
                tokens(0),
                tokenizer.clone(),
                name,
                options,
            )?)
        }
        Objective::SpanCorruption(spans) => {
            let options = SpanOptions {
                max_len: length,
                rates: SpanRates {
                    density: spans.density,
                    mean_span: spans.mean_span,
                },
            };
            let mut sources: Vec<Box<dyn Examples>> = Vec::new();
            let mut number = 0;
            if role == Role::Train || config.data.valid.is_some() {
                sources.push(Box::new(SpanData::new(
                    tokens(number),
                    tokenizer,
                    name,
                    options,
                )?));
                number += 1;
            }
            for task in &spans.tasks {
                if role == Role::Train || task.valid.is_some() {
                    let lengths = [length, task.max_target_len];
                    let pairs = TextPairs::new(tokens(number), tokenizer, name, lengths)?;
                    sources.push(Box::new(pairs));
                    number += 1;
                }
            }
            match sources.len() {
                1 => sources.swap_remove(0),
                _ => Box::new(Mixed::new(sources, spans.limit, spans.temperature)),
            }
        }
        Objective::Text2text(task) => {
            let lengths = [length, task.max_target_len];
            Box::new(TextPairs::new(tokens(0), tokenizer, name, lengths)?)
        }
    })
}
