//! Tokens as clients see them, with their places in the text that was sent.

use malmoi_infer::Pipeline;
use malmoi_text::{EncodeOptions, Encoding, Side, Truncation};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::worker::Sequence;

/// A token of a text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The entry of the vocabulary.
    pub token: String,
    /// The piece as it reads.
    pub text: String,
    /// Whether it stands for no text.
    pub special: bool,
    /// The word that it belongs to, counted from 0.
    pub word: Option<u32>,
    /// First character (code point) of the text sent.
    pub start: usize,
    /// Character behind it.
    pub end: usize,
    /// First byte of the UTF-8 of the text sent.
    pub byte_start: usize,
    /// Byte behind it.
    pub byte_end: usize,
}

/// A token with its probability.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Candidate {
    /// Its id.
    pub id: u32,
    /// The entry of the vocabulary.
    pub token: String,
    /// The piece as it reads.
    pub text: String,
    /// Its probability.
    pub probability: f64,
}

/// A token that is there, and how probable it was.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Actual {
    /// Its id.
    pub id: u32,
    /// The entry of the vocabulary.
    pub token: String,
    /// The piece as it reads.
    pub text: String,
    /// Its probability.
    pub probability: f64,
    /// Its place among all tokens by probability, from 1.
    pub rank: usize,
}

/// A text (or a pair) as tokens.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The tokens.
    pub encoding: Encoding,
    /// Whether something was cut off.
    pub truncated: bool,
}

impl Encoded {
    /// What goes through the model.
    pub fn sequence(&self) -> Sequence {
        Sequence {
            ids: self.encoding.ids.clone(),
            segments: self.encoding.type_ids.clone(),
        }
    }

    /// The tokens as clients see them.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn tokens(
        &self,
        pipeline: &Pipeline,
        text: &str,
        pair: Option<&str>,
    ) -> Result<Vec<Token>, ApiError> {
        let e = &self.encoding;
        let unknown = pipeline.tokenizer.special().unk.filter(|id| {
            // Byte-level vocabularies give one token all roles; there it is no unknown token.
            Some(*id) != pipeline.tokenizer.special().eos
        });
        (0..e.len())
            .map(|i| {
                let id = e.ids[i];
                let (byte_start, byte_end) = e.byte_offsets[i];
                let of = match e.sequence_ids[i] {
                    Some(0) => Some(text),
                    Some(_) => pair,
                    None => None,
                };
                let written = of.and_then(|text| text.get(byte_start..byte_end));
                Ok(Token {
                    id,
                    token: e.tokens[i].clone(),
                    text: match written.filter(|piece| !piece.is_empty()) {
                        Some(piece) => piece.to_owned(),
                        None => pipeline.piece(id)?,
                    },
                    // The unknown token stands for text, whatever that was.
                    special: e.special_tokens_mask[i] != 0
                        || pipeline.tokenizer.is_special(id) && Some(id) != unknown,
                    word: e.word_ids[i],
                    start: e.offsets[i].0,
                    end: e.offsets[i].1,
                    byte_start,
                    byte_end,
                })
            })
            .collect()
    }
}

/// Longest input of a model, in tokens.
pub fn max_tokens(pipeline: &Pipeline) -> usize {
    let max_len = pipeline.model.config().max_len();
    let bound = pipeline.tokenizer.model_max_length();
    bound.map_or(max_len, |bound| bound.min(max_len))
}

/// Does what takes milliseconds for a text of so many bytes where it holds up no other connection.
pub fn aside<R>(bytes: usize, work: impl FnOnce() -> R) -> R {
    const LONG: usize = 16 << 10;
    match bytes > LONG {
        true => tokio::task::block_in_place(work),
        false => work(),
    }
}

/// Which end of a text is cut.
#[derive(Debug, Default, Clone, Copy, Deserialize, ToSchema, PartialEq, Eq)]
pub enum TruncationDirection {
    /// The end.
    #[default]
    Right,
    /// The beginning.
    Left,
}

/// What is done with a text that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLong {
    /// The request is refused.
    Refuse,
    /// This end goes away.
    Cut(TruncationDirection),
}

impl TooLong {
    /// The end goes away.
    pub const CUT: Self = Self::Cut(TruncationDirection::Right);

    /// As a request says.
    pub fn new(truncate: bool, direction: TruncationDirection) -> Self {
        if truncate {
            Self::Cut(direction)
        } else {
            Self::Refuse
        }
    }
}

/// Encodes a text (or a pair); what is too long is cut or refused. An empty text becomes the token that starts (or ends) texts.
///
/// # Errors
/// 422 for a text that is too long (and may not be cut), those of the tokenizer.
pub fn encode(
    pipeline: &Pipeline,
    text: &str,
    pair: Option<&str>,
    too_long: TooLong,
    most: usize,
) -> Result<Encoded, ApiError> {
    let most = most.min(max_tokens(pipeline));
    let options = EncodeOptions {
        truncation: match too_long {
            TooLong::Refuse => None,
            TooLong::Cut(direction) => Some(Truncation {
                direction: match direction {
                    TruncationDirection::Right => Side::Right,
                    TruncationDirection::Left => Side::Left,
                },
                ..Truncation::to(most)
            }),
        },
        ..EncodeOptions::default()
    };
    let length = text.len() + pair.map_or(0, str::len);
    let mut encoding = aside(length, || pipeline.tokenizer.encode(text, pair, &options))?;
    if encoding.len() > most {
        return Err(ApiError::invalid(format!(
            "the text has {} tokens, but {most} fit: shorten it, or send \"truncate\": true",
            encoding.len()
        )));
    }
    encoding.cover_whole_characters(text, pair);
    let truncated = !encoding.overflowing.is_empty();
    if encoding.is_empty() {
        let special = pipeline.tokenizer.special();
        let id = special.bos.or(special.eos).or(special.pad).unwrap_or(0);
        begin_with(&mut encoding, pipeline, id);
    }
    Ok(Encoded {
        encoding,
        truncated,
    })
}

/// Puts a special token before all others.
fn begin_with(encoding: &mut Encoding, pipeline: &Pipeline, id: u32) {
    encoding.ids.insert(0, id);
    encoding.tokens.insert(0, name(pipeline, id));
    encoding.type_ids.insert(0, 0);
    encoding.attention_mask.insert(0, 1);
    encoding.special_tokens_mask.insert(0, 1);
    encoding.offsets.insert(0, (0, 0));
    encoding.byte_offsets.insert(0, (0, 0));
    encoding.word_ids.insert(0, None);
    encoding.sequence_ids.insert(0, None);
}

/// What the decoder of an encoder-decoder reads while it writes a text: the token that it starts from, then the text, without
/// the token that ends it.
///
/// # Errors
/// Those of [`encode`].
pub fn decoder_input(
    pipeline: &Pipeline,
    text: &str,
    start: u32,
    most: usize,
) -> Result<Encoded, ApiError> {
    let mut encoded = encode(pipeline, text, None, TooLong::CUT, most)?;
    let encoding = &mut encoded.encoding;
    let end = pipeline.tokenizer.special().eos;
    if encoding.ids.last().copied() == end && encoding.special_tokens_mask.last() == Some(&1) {
        encoding.ids.pop();
        encoding.tokens.pop();
        encoding.type_ids.pop();
        encoding.attention_mask.pop();
        encoding.special_tokens_mask.pop();
        encoding.offsets.pop();
        encoding.byte_offsets.pop();
        encoding.word_ids.pop();
        encoding.sequence_ids.pop();
    }
    begin_with(encoding, pipeline, start);
    Ok(encoded)
}

/// A row of logits as probabilities: the best and, where asked for, one token's own.
pub struct Row<'a> {
    logits: &'a [f32],
    max: f64,
    total: f64,
    temperature: f64,
}

impl<'a> Row<'a> {
    /// Takes a row, `[V]`.
    pub fn new(logits: &'a [f32], temperature: f64) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let max = f64::from(max);
        let total = (logits.iter())
            .map(|&x| ((f64::from(x) - max) / temperature).exp())
            .sum();
        Self {
            logits,
            max,
            total,
            temperature,
        }
    }

    /// The probability of a token.
    pub fn probability(&self, id: u32) -> f64 {
        let logit = f64::from(self.logits[id as usize]);
        ((logit - self.max) / self.temperature).exp() / self.total
    }

    /// The `k` most probable tokens; of equal ones the lower id first.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn best(&self, pipeline: &Pipeline, k: usize) -> Result<Vec<Candidate>, ApiError> {
        let best = malmoi_infer::fill_mask::top(self.logits, k, &[]);
        best.into_iter()
            .map(|candidate| {
                Ok(Candidate {
                    id: candidate.id,
                    token: name(pipeline, candidate.id),
                    text: pipeline.piece(candidate.id)?,
                    probability: self.probability(candidate.id),
                })
            })
            .collect()
    }

    /// What the model thinks of the token that is there.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn actual(&self, pipeline: &Pipeline, id: u32) -> Result<Actual, ApiError> {
        let own = self.logits[id as usize];
        let better = self.logits.iter().enumerate();
        let better = better.filter(|(i, x)| **x > own || (**x == own && *i < id as usize));
        Ok(Actual {
            id,
            token: name(pipeline, id),
            text: pipeline.piece(id)?,
            probability: self.probability(id),
            rank: better.count() + 1,
        })
    }
}

/// The entry of the vocabulary.
pub fn name(pipeline: &Pipeline, id: u32) -> String {
    pipeline.tokenizer.id_to_token(id).unwrap_or_default()
}
