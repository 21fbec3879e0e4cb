//! What each objective asks of a model and of the text.

use std::sync::Arc;

use malmoi_models::{Direction, Head, ModelConfig};
use malmoi_text::Tokenizer;

use super::corpus::Role;
use crate::config::{Objective, PretrainConfig};
use crate::data::{
    ClmData, ClmOptions, Corpus, DenoisingData, DenoisingOptions, Examples, Mixed, MlmData,
    MlmOptions, PairKind, SpanData, SpanOptions, SubwordDropout, TextPairs, Tokens,
    TranslationData, TranslationOptions, Units,
};
use crate::error::{ConfigProblem, TrainError};
use crate::objectives::infilling::InfillRates;
use crate::objectives::masked::MaskingRates;
use crate::objectives::span_corruption::SpanRates;

/// The head that an objective trains.
pub(super) fn head(objective: &Objective) -> Head {
    match objective {
        Objective::Clm(_) => Head::CausalLm,
        Objective::Mlm(mlm) if mlm.pairs() != PairKind::None => Head::Pretraining,
        Objective::Mlm(_) | Objective::Tlm(_) => Head::MaskedLm,
        Objective::Rtd(_) => Head::ReplacedTokens,
        Objective::SpanCorruption(_) | Objective::Denoising(_) | Objective::Text2text(_) => {
            Head::Seq2SeqLm
        }
    }
}

/// What a kind of network is called, and an objective for it.
fn describe(direction: Direction) -> (&'static str, &'static str) {
    match direction {
        Direction::Encoder => ("an encoder (such as bert)", "mlm"),
        Direction::Decoder => ("a decoder (such as gpt2)", "clm"),
        Direction::EncoderDecoder => ("an encoder with a decoder (such as t5)", "span-corruption"),
    }
}

/// Refuses an objective for another kind of model.
pub(super) fn check_fit(objective: &Objective, model: &ModelConfig) -> Result<(), ConfigProblem> {
    let wanted = match objective {
        Objective::Clm(_) => Direction::Decoder,
        Objective::Mlm(_) | Objective::Rtd(_) | Objective::Tlm(_) => Direction::Encoder,
        Objective::SpanCorruption(_) | Objective::Denoising(_) | Objective::Text2text(_) => {
            Direction::EncoderDecoder
        }
    };
    let found = model.direction();
    if found != wanted {
        let (kind, example) = describe(found);
        return Err(ConfigProblem::new(
            "objective.kind",
            format!("an objective of {kind}, {example} say"),
            format!(
                "{:?}, which trains {}",
                objective.name(),
                describe(wanted).0
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
    let head = head(objective);
    let heads = model.architecture_names();
    if !heads.iter().any(|(known, _)| *known == head) {
        let known: Vec<&str> = heads.iter().map(|(_, name)| *name).collect();
        return Err(ConfigProblem::new(
            "objective.kind",
            format!(
                "an objective that {} has a head for ({})",
                model.model_type(),
                known.join(", ")
            ),
            format!("{:?}", objective.name()),
            "change objective.kind or the model (rtd trains electra)",
        ));
    }
    if let Objective::Tlm(tlm) = objective
        && let Some(&language) = (tlm.languages.iter())
            .find(|&&language| model.n_languages() > 0 && language as usize >= model.n_languages())
    {
        return Err(ConfigProblem::new(
            "objective.languages",
            format!(
                "numbers below {}, the languages of the model",
                model.n_languages()
            ),
            language,
            "lower them, or raise the number of languages (published.n_langs for xlm)",
        ));
    }
    Ok(())
}

/// The model with what an objective trains beside it: for replaced-token detection, a generator of a share of its width, with the same
/// embeddings (Clark et al. 2020, section 3.2).
pub(super) fn complete(
    objective: &Objective,
    model: ModelConfig,
) -> Result<ModelConfig, TrainError> {
    let Objective::Rtd(rtd) = objective else {
        return Ok(model);
    };
    let shared = |n: usize| ((n as f64 * rtd.generator).round() as usize).max(1);
    let (d_model, n_heads) = (shared(model.d_model()), shared(model.n_heads()));
    if !d_model.is_multiple_of(n_heads) {
        return Err(ConfigProblem::new(
            "objective.generator",
            format!(
                "a share that leaves whole heads of {} wide and {} heads",
                model.d_model(),
                model.n_heads()
            ),
            rtd.generator,
            "take 0.25 or 0.5",
        )
        .into());
    }
    let mut json = model.to_json(Head::MaskedLm);
    json["hidden_size"] = d_model.into();
    json["num_attention_heads"] = n_heads.into();
    json["intermediate_size"] = (4 * d_model).into();
    let generator = ModelConfig::from_json(&json, false)?;
    Ok(model.with_generator(generator)?)
}

/// Tokens of a sequence: what the objective says, or all positions.
pub(super) fn sequence_length(
    objective: &Objective,
    model: &ModelConfig,
) -> Result<usize, TrainError> {
    let (key, length) = objective.length();
    let length = length.unwrap_or(model.max_len());
    let max_len = model.position_limit();
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
    model: &ModelConfig,
    corpora: &[Arc<Corpus>],
    role: Role,
) -> Result<Box<dyn Examples>, TrainError> {
    let name = role.describe();
    let length = sequence_length(&config.objective, model)?;
    // Checked before: these objectives are for models that have one.
    let start = model.decoder_start().unwrap_or_default();
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
                detection: None,
            };
            let data = MlmData::new(tokens(0), tokenizer.clone(), name, options)?;
            // An evaluation reads whole subwords.
            let subwords = match role {
                Role::Train => SubwordDropout::asked_for(tokenizer, mlm.subword_dropout),
                Role::Valid => None,
            };
            Box::new(data.with_subwords(subwords))
        }
        Objective::Rtd(rtd) => {
            let options = MlmOptions {
                max_len: length,
                rates: MaskingRates {
                    chosen: rtd.probability,
                    mask: 1.0,
                    random: 0.0,
                },
                units: match rtd.whole_word {
                    true => Units::Words,
                    false => Units::Tokens,
                },
                pairs: PairKind::None,
                detection: Some(rtd.detection_factor as f32),
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
                languages: (model.n_languages() > 0).then_some(tlm.languages),
                pairs: tlm.pairs,
                segments: model.n_segments() > 1,
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
                    start,
                    options,
                )?));
                number += 1;
            }
            for task in &spans.tasks {
                if role == Role::Train || task.valid.is_some() {
                    let lengths = [length, task.max_target_len];
                    let pairs = TextPairs::new(tokens(number), tokenizer, name, start, lengths)?;
                    sources.push(Box::new(pairs));
                    number += 1;
                }
            }
            match sources.len() {
                1 => sources.swap_remove(0),
                _ => Box::new(Mixed::new(sources, spans.limit, spans.temperature)),
            }
        }
        Objective::Denoising(noise) => {
            let options = DenoisingOptions {
                max_len: length,
                rates: InfillRates {
                    probability: noise.probability,
                    mean_span: noise.mean_span,
                },
                permute: noise.permute_sentences,
            };
            let data = DenoisingData::new(tokens(0), tokenizer, name, start, options)?;
            Box::new(data)
        }
        Objective::Text2text(task) => {
            let lengths = [length, task.max_target_len];
            Box::new(TextPairs::new(tokens(0), tokenizer, name, start, lengths)?)
        }
    })
}
