//! Generation token by token with a key/value cache.
//!
//! Prompts of different lengths go through the model packed, each with positions of its own, and a row that has finished
//! leaves the batch: no step computes anything that is thrown away. An encoder-decoder reads the prompts once as sources, and its
//! decoder writes from its start token on.

use malmoi_models::{Direction, KvCache, Model, PackedBatch};
use serde::{Deserialize, Serialize};

use crate::InferError;
use crate::sampling::{History, Sampler, SamplingSettings};

/// What to generate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateOptions {
    /// Tokens to generate at most; 1 or more. The model's positions bound it as well.
    pub max_new_tokens: usize,
    /// Tokens that end a text; none means that only the length ends it.
    pub end_ids: Vec<u32>,
    /// How each token is chosen.
    pub sampling: SamplingSettings,
    /// Seed of the draws. Row r of the call draws from its own stream.
    pub seed: u64,
    /// Keep the log-probability of every chosen token.
    pub log_probabilities: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 64,
            end_ids: Vec::new(),
            sampling: SamplingSettings::default(),
            seed: 0,
            log_probabilities: false,
        }
    }
}

/// Why a row stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// It produced an end token or a stop string.
    Stop,
    /// It reached `max_new_tokens` or the last position of the model.
    Length,
    /// The caller asked for it.
    Cancelled,
}

/// What came out for one prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generated {
    /// The new tokens, an end token included.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Natural logarithm of each token's probability under the model, before any rule; empty unless asked for.
    pub log_probabilities: Vec<f64>,
}

/// One chosen token.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Which prompt.
    pub row: usize,
    /// Number of tokens that this row generated before.
    pub step: usize,
    /// The token.
    pub token: u32,
    /// The logits of the model before any rule, `[V]`.
    pub logits: &'a [f32],
}

/// What to do after a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// This row is complete.
    Stop,
    /// This row is no longer wanted.
    Cancel,
}

/// Checks that a model can generate, and the lengths of the prompts.
pub(crate) fn check<S: AsRef<[u32]>>(
    model: &Model,
    prompts: &[S],
    max_new_tokens: usize,
) -> Result<(), InferError> {
    crate::needs_writer(model, "generation")?;
    if max_new_tokens == 0 {
        return Err(InferError::Setting {
            name: "max_new_tokens",
            value: "0".into(),
            expected: "1 or more".into(),
        });
    }
    let max_len = model.config().position_limit();
    for (row, prompt) in prompts.iter().enumerate() {
        match prompt.as_ref().len() {
            0 => return Err(InferError::EmptyPrompt { row: row + 1 }),
            tokens if tokens >= max_len => {
                return Err(InferError::PromptTooLong {
                    row: row + 1,
                    tokens,
                    max_len,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// What the decoder continues for each prompt: the prompt itself, or, behind an encoder, the start token.
pub(crate) fn beginnings<S: AsRef<[u32]>>(model: &Model, prompts: &[S]) -> Vec<Vec<u32>> {
    let begin = |prompt: &S| match model.config().decoder_start() {
        Some(start) => vec![start],
        None => prompt.as_ref().to_vec(),
    };
    prompts.iter().map(begin).collect()
}

/// Feeds the prompts; returns the cache and the logits after what [`beginnings`] gives, `[B, V]`.
pub(crate) fn prefill<S: AsRef<[u32]>>(
    model: &Model,
    prompts: &[S],
) -> Result<(KvCache, Vec<f32>), InferError> {
    let mut cache = match model.config().direction() {
        Direction::EncoderDecoder => model.read_sources(&PackedBatch::from_sequences(prompts))?,
        _ => model.new_cache(prompts.len()),
    };
    let batch = PackedBatch::from_sequences(&beginnings(model, prompts));
    let last: Vec<u32> = batch.cu_seqlens[1..].iter().map(|end| end - 1).collect();
    let logits = model.advance(&batch, &mut cache, &last)?;
    Ok((cache, logits))
}

/// Feeds one token a cached sequence; returns the logits, `[B, V]`.
pub(crate) fn feed(
    model: &Model,
    cache: &mut KvCache,
    tokens: &[u32],
) -> Result<Vec<f32>, InferError> {
    let sequences: Vec<[u32; 1]> = tokens.iter().map(|&token| [token]).collect();
    let positions: Vec<u32> = cache
        .lengths()
        .iter()
        .map(|&length| length as u32)
        .collect();
    let batch = PackedBatch::from_sequences(&sequences).with_positions(positions);
    let rows: Vec<u32> = (0..tokens.len() as u32).collect();
    Ok(model.advance(&batch, cache, &rows)?)
}

/// Natural logarithm of the probability of `token` under `logits` (`[V]`).
pub fn log_probability(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    f64::from(logits[token as usize] - max) - sum.ln()
}

/// Continues each prompt (ids, at least one each). `on_token` sees every chosen token as soon as it is chosen, end tokens
/// included, and decides whether its row goes on.
///
/// # Errors
/// [`InferError::WrongModel`] for a model that does not write, [`InferError::PromptTooLong`],
/// [`InferError::EmptyPrompt`], [`InferError::Batch`] for ids outside the vocabulary, [`InferError::Sampling`].
pub fn generate<S: AsRef<[u32]>>(
    model: &Model,
    prompts: &[S],
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(&Step<'_>) -> Flow,
) -> Result<Vec<Generated>, InferError> {
    check(model, prompts, options.max_new_tokens)?;
    let mut sampler = Sampler::new(&options.sampling, &options.end_ids, options.seed)?;
    let mut rows: Vec<Row> = (beginnings(model, prompts).into_iter())
        .map(Row::new)
        .collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let (vocab_size, max_len) = (model.config().vocab_size(), model.config().position_limit());
    let (mut cache, mut logits) = prefill(model, prompts)?;
    // `active[i]` is the prompt whose cache is the i-th of the batch.
    let mut active: Vec<usize> = (0..rows.len()).collect();
    loop {
        let mut kept = Vec::with_capacity(active.len());
        let mut tokens = Vec::with_capacity(active.len());
        for (slot, &index) in active.iter().enumerate() {
            let row = &mut rows[index];
            let logits = &logits[slot * vocab_size..(slot + 1) * vocab_size];
            let history = History {
                ids: &row.ids,
                prompt_len: row.prompt_len,
            };
            let token = sampler.choose(logits, &history, index as u64)?;
            if options.log_probabilities {
                row.log_probabilities.push(log_probability(logits, token));
            }
            let step = row.ids.len() - row.prompt_len;
            row.ids.push(token);
            let flow = on_token(&Step {
                row: index,
                step,
                token,
                logits,
            });
            row.finished = if flow == Flow::Cancel {
                Some(FinishReason::Cancelled)
            } else if flow == Flow::Stop || options.end_ids.contains(&token) {
                Some(FinishReason::Stop)
            } else if step + 1 >= options.max_new_tokens || row.ids.len() >= max_len {
                Some(FinishReason::Length)
            } else {
                kept.push(slot);
                tokens.push(token);
                None
            };
        }
        if kept.is_empty() {
            break;
        }
        if kept.len() < active.len() {
            cache.select(&kept);
            active = kept.iter().map(|&slot| active[slot]).collect();
        }
        logits = feed(model, &mut cache, &tokens)?;
    }
    Ok(rows.into_iter().map(Row::into_generated).collect())
}

struct Row {
    ids: Vec<u32>,
    prompt_len: usize,
    log_probabilities: Vec<f64>,
    finished: Option<FinishReason>,
}

impl Row {
    fn new(beginning: Vec<u32>) -> Self {
        Self {
            prompt_len: beginning.len(),
            ids: beginning,
            log_probabilities: Vec::new(),
            finished: None,
        }
    }

    fn into_generated(mut self) -> Generated {
        Generated {
            ids: self.ids.split_off(self.prompt_len),
            finish_reason: self.finished.unwrap_or(FinishReason::Length),
            log_probabilities: self.log_probabilities,
        }
    }
}
