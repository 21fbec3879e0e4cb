//! Texts as the sequences that a model reads.

use malmoi_text::{EncodeOptions, Tokenizer, Truncation, TruncationStrategy};

use crate::error::TaskError;
use crate::inputs::TaskTokens;
use crate::task::Sequence;

/// Turns texts into tokens as a model wants them.
#[derive(Debug, Clone, Copy)]
pub struct Encoder<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Tokens of an input, special ones included.
    pub max_len: usize,
    /// Whether the model tells two segments apart.
    pub segments: bool,
    /// Whether source and target are one sequence (a decoder alone).
    pub decoder_only: bool,
    /// Start, delimiter and extract tokens around the texts (GPT-1) in place of the tokenizer's own layout.
    pub task_tokens: Option<TaskTokens>,
}

/// Texts as tokens.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Encoded {
    /// The sequences; one unless a task asks for several.
    pub inputs: Vec<Sequence>,
    /// Whether something was cut off.
    pub truncated: bool,
    /// Whether a text has no character but white space.
    pub empty: bool,
}

impl Encoder<'_> {
    /// A text, or a pair of texts. A tokenizer that puts nothing between two texts gets its end token there.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn encode(&self, text: &str, pair: Option<&str>) -> Result<Encoded, TaskError> {
        let blank = |text: &str| text.trim().is_empty();
        let empty = blank(text) || pair.is_some_and(blank);
        let (sequence, truncated) = match self.task_tokens {
            Some(tokens) => self.with_task_tokens(tokens, text, pair)?,
            None => self.with_template(text, pair)?,
        };
        Ok(Encoded {
            inputs: vec![sequence],
            truncated,
            empty,
        })
    }

    /// In the tokenizer's own layout.
    fn with_template(&self, text: &str, pair: Option<&str>) -> Result<(Sequence, bool), TaskError> {
        let special = self.tokenizer.special();
        let filler = special.eos.or(special.bos).or(special.sep).or(special.pad);
        let joined = pair.is_some() && self.tokenizer.added_tokens(true) == 0;
        let separator = filler.filter(|_| joined);
        let room = self
            .max_len
            .saturating_sub(usize::from(separator.is_some()));
        let options = EncodeOptions {
            truncation: Some(Truncation::to(room)),
            ..EncodeOptions::default()
        };
        let encoding = self.tokenizer.encode(text, pair, &options)?;
        let mut sequence = Sequence {
            segments: self.segments_of(&encoding.type_ids),
            ids: encoding.ids,
        };
        if let Some(separator) = separator {
            let second = encoding.sequence_ids.iter().position(|&id| id == Some(1));
            let at = second.unwrap_or(sequence.ids.len());
            sequence.ids.insert(at, separator);
            sequence.segments.insert(at, 0);
        }
        if sequence.ids.is_empty()
            && let Some(filler) = filler
        {
            // An empty text still has to go through the model.
            sequence = Sequence {
                ids: vec![filler],
                segments: vec![0],
            };
        }
        Ok((sequence, !encoding.overflowing.is_empty()))
    }

    /// Between start and extract token, two texts with a delimiter between them; the longer one is cut first.
    fn with_task_tokens(
        &self,
        tokens: TaskTokens,
        text: &str,
        pair: Option<&str>,
    ) -> Result<(Sequence, bool), TaskError> {
        let added = if pair.is_some() { 3 } else { 2 };
        let options = EncodeOptions {
            truncation: Some(Truncation::to(self.max_len.saturating_sub(added))),
            ..EncodeOptions::plain()
        };
        let encoding = self.tokenizer.encode(text, pair, &options)?;
        let of = |which: usize| -> Vec<u32> {
            let places = encoding.ids.iter().zip(&encoding.sequence_ids);
            places
                .filter(|(_, sequence)| **sequence == Some(which))
                .map(|(&id, _)| id)
                .collect()
        };
        let ids = match pair {
            None => tokens.single(&of(0)),
            Some(_) => tokens.pair(&of(0), &of(1)),
        };
        let sequence = Sequence {
            segments: vec![0; ids.len()],
            ids,
        };
        Ok((sequence, !encoding.overflowing.is_empty()))
    }

    /// Segments where the model has them.
    pub(crate) fn segments_of(&self, type_ids: &[u32]) -> Vec<u32> {
        match self.segments {
            true => type_ids.to_vec(),
            false => vec![0; type_ids.len()],
        }
    }

    /// A text without the tokens of a layout, ended by the tokenizer's end token, in at most `max_len` tokens.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn ended(&self, text: &str, max_len: usize) -> Result<(Vec<u32>, bool), TaskError> {
        let mut ids = self.tokenizer.encode_ids(text, false)?;
        let end = self.tokenizer.special().eos;
        let room = max_len.saturating_sub(usize::from(end.is_some()));
        let cut = ids.len() > room;
        ids.truncate(room);
        ids.extend(end);
        Ok((ids, cut))
    }

    /// How the second of two texts is cut into overlapping windows: each holds the whole first text and starts `stride` tokens of the
    /// second one after the window before it. `None` when the first text leaves no room.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub(crate) fn windows(
        &self,
        first: &str,
        stride: usize,
    ) -> Result<Option<EncodeOptions>, TaskError> {
        let taken =
            self.tokenizer.encode_ids(first, false)?.len() + self.tokenizer.added_tokens(true);
        let Some(room) = self.max_len.checked_sub(taken).filter(|&room| room > 0) else {
            return Ok(None);
        };
        let advance = if stride == 0 { room } else { stride.min(room) };
        Ok(Some(EncodeOptions {
            truncation: Some(Truncation {
                strategy: TruncationStrategy::OnlySecond,
                stride: room - advance,
                ..Truncation::to(self.max_len)
            }),
            ..EncodeOptions::default()
        }))
    }
}
