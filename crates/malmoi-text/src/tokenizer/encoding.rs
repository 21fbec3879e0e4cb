//! The result of encoding a text, and the options of an encoding.

use crate::error::{Result, TextError, TruncationError};
use tokenizers::{PaddingDirection, TruncationDirection};

/// Which side of a sequence is cut or filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// The beginning.
    Left,
    /// The end.
    #[default]
    Right,
}

/// Which sequence is cut when a text, or a pair of texts, is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TruncationStrategy {
    /// The longer of the two, until both fit.
    #[default]
    LongestFirst,
    /// Only the first.
    OnlyFirst,
    /// Only the second.
    OnlySecond,
}

/// How a text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    /// Largest number of tokens, special tokens included.
    pub max_length: usize,
    /// Which sequence is cut.
    pub strategy: TruncationStrategy,
    /// Tokens shared by consecutive pieces of [`Encoding::overflowing`].
    pub stride: usize,
    /// `Right` keeps the beginning of the text, `Left` the end.
    pub direction: Side,
}

impl Truncation {
    /// Cuts the end of the longest sequence to `max_length` tokens.
    pub fn to(max_length: usize) -> Self {
        Self {
            max_length,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
            direction: Side::Right,
        }
    }
}

/// The length that a batch is filled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PadTo {
    /// The longest sequence of the batch.
    #[default]
    Longest,
    /// At least this many tokens; longer sequences stay as they are.
    Length(usize),
}

/// How a batch is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Id of the padding token; the tokenizer's own when `None`.
    pub token: Option<u32>,
    /// The length.
    pub to: PadTo,
    /// Round the length up to a multiple of this.
    pub multiple_of: Option<usize>,
    /// Where the padding goes.
    pub direction: Side,
}

/// Options of [`Tokenizer::encode`](super::Tokenizer::encode).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Add the special tokens of the model's layout (`[CLS]`, `[SEP]`, `</s>` …).
    pub add_special: bool,
    /// Cut what is too long; without it nothing is cut.
    pub truncation: Option<Truncation>,
    /// Fill what is too short; without it nothing is filled.
    pub padding: Option<Padding>,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            add_special: true,
            truncation: None,
            padding: None,
        }
    }
}

impl EncodeOptions {
    /// Without special tokens, truncation and padding.
    pub fn plain() -> Self {
        Self {
            add_special: false,
            ..Self::default()
        }
    }

    /// With special tokens, cut to `max_length`.
    pub fn truncated(max_length: usize) -> Self {
        Self {
            truncation: Some(Truncation::to(max_length)),
            ..Self::default()
        }
    }
}

/// A text (or a pair of texts) as tokens. All lists have one entry a token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Token strings, as they are written in the vocabulary.
    pub tokens: Vec<String>,
    /// Segment of each token (0 or 1).
    pub type_ids: Vec<u32>,
    /// 1 for a token, 0 for padding.
    pub attention_mask: Vec<u32>,
    /// 1 for special tokens and padding, 0 for tokens of the text.
    pub special_tokens_mask: Vec<u32>,
    /// Start and end in the original text, in code points; (0, 0) for special tokens.
    pub offsets: Vec<(usize, usize)>,
    /// The same in bytes of the original UTF-8 text; always at character boundaries.
    pub byte_offsets: Vec<(usize, usize)>,
    /// Index of the pre-tokenised word, counted in each sequence from 0; `None` for special tokens.
    pub word_ids: Vec<Option<u32>>,
    /// 0 for the first text, 1 for the second; `None` for special tokens.
    pub sequence_ids: Vec<Option<usize>>,
    /// The pieces that were cut off, each a complete encoding.
    pub overflowing: Vec<Encoding>,
}

impl Encoding {
    /// Number of tokens, padding included.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True when there is no token.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Moves the ends of offsets that fall inside a character of several code points to its end.
    ///
    /// The published offsets of composed text stop after the first code point of a character: of a decomposed syllable
    /// they cover the first jamo only. Spans that are cut out of the text should cover all of it. `text` and `pair` are the
    /// texts that were encoded.
    pub fn cover_whole_characters(&mut self, text: &str, pair: Option<&str>) {
        let texts: Vec<(Vec<char>, CharIndex)> = std::iter::once(text)
            .chain(pair)
            .map(|text| (text.chars().collect(), CharIndex::new(text)))
            .collect();
        self.extend_ends(&texts);
    }

    fn extend_ends(&mut self, texts: &[(Vec<char>, CharIndex)]) {
        for index in 0..self.len() {
            let Some((characters, bytes)) = self.sequence_ids[index].and_then(|s| texts.get(s))
            else {
                continue;
            };
            let (start, mut end) = self.offsets[index];
            if start == end {
                continue;
            }
            // A token that ends where the next one begins leaves nothing out.
            let limit = match self.offsets.get(index + 1) {
                Some(&(next, after)) if next >= end && after > next => next,
                _ => characters.len(),
            };
            while end < limit && continues_character(characters[end]) {
                end += 1;
            }
            self.offsets[index].1 = end;
            self.byte_offsets[index].1 = bytes.byte(end);
        }
        for piece in &mut self.overflowing {
            piece.extend_ends(texts);
        }
    }

    /// Converts the library's encoding; `texts` are the originals, for the byte offsets.
    pub(crate) fn from_library(encoding: &tokenizers::Encoding, texts: &[CharIndex]) -> Self {
        let sequence_ids = encoding.get_sequence_ids();
        let offsets = encoding.get_offsets().to_vec();
        let byte_offsets = offsets
            .iter()
            .zip(&sequence_ids)
            .map(|(&(start, end), sequence)| match sequence {
                Some(index) => match texts.get(*index) {
                    Some(text) => (text.byte(start), text.byte(end)),
                    None => (0, 0),
                },
                None => (0, 0),
            })
            .collect();
        Self {
            ids: encoding.get_ids().to_vec(),
            tokens: encoding.get_tokens().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            attention_mask: encoding.get_attention_mask().to_vec(),
            special_tokens_mask: encoding.get_special_tokens_mask().to_vec(),
            offsets,
            byte_offsets,
            word_ids: encoding.get_word_ids().to_vec(),
            sequence_ids,
            overflowing: encoding
                .get_overflowing()
                .iter()
                .map(|piece| Self::from_library(piece, texts))
                .collect(),
        }
    }
}

/// True for code points that belong to the character before them: combining marks, and vowels and finals of conjoining
/// Hangul.
fn continues_character(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c)
        || matches!(c, '\u{1160}'..='\u{11ff}' | '\u{d7b0}'..='\u{d7ff}')
}

/// Byte positions of the code points of a text.
pub(crate) struct CharIndex {
    starts: Vec<usize>,
}

impl CharIndex {
    pub(crate) fn new(text: &str) -> Self {
        let mut starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        starts.push(text.len());
        Self { starts }
    }

    /// The byte position of code point `index`; past the end it is the length of the text.
    fn byte(&self, index: usize) -> usize {
        self.starts[index.min(self.starts.len() - 1)]
    }
}

/// Cuts one or two encodings to `max_length - added` tokens.
///
/// The lengths follow the published rule of the `tokenizers` library; what that library would panic on (a stride as long
/// as a piece, special tokens longer than the whole) is an error here.
pub(crate) fn truncate(
    first: &mut tokenizers::Encoding,
    second: Option<&mut tokenizers::Encoding>,
    options: &Truncation,
    added: usize,
) -> Result<()> {
    let room = options
        .max_length
        .checked_sub(added)
        .ok_or(TextError::Truncation(TruncationError::NoRoom {
            max_length: options.max_length,
            special: added,
        }))?;
    let lengths = (first.len(), second.as_ref().map_or(0, |pair| pair.len()));
    let total = lengths.0 + lengths.1;
    if total <= room {
        return Ok(());
    }
    let excess = total - room;
    let shorten = |length: usize| -> Result<usize> {
        if length > excess {
            Ok(length - excess)
        } else {
            Err(TruncationError::SequenceTooShort.into())
        }
    };
    let (to_first, to_second) = match (options.strategy, &second) {
        (_, _) if room == 0 => (0, 0),
        (TruncationStrategy::LongestFirst, None) => (room, 0),
        (TruncationStrategy::LongestFirst, Some(_)) => longest_first(lengths.0, lengths.1, room),
        (TruncationStrategy::OnlyFirst, _) => (shorten(lengths.0)?, lengths.1),
        (TruncationStrategy::OnlySecond, Some(_)) => (lengths.0, shorten(lengths.1)?),
        (TruncationStrategy::OnlySecond, None) => {
            return Err(TruncationError::NoSecondSequence.into());
        }
    };
    let direction = match options.direction {
        Side::Left => TruncationDirection::Left,
        Side::Right => TruncationDirection::Right,
    };
    let cut = |encoding: &mut tokenizers::Encoding, to: usize| -> Result<()> {
        if to > 0 && to < encoding.len() && options.stride >= to {
            return Err(TruncationError::StrideTooLarge {
                stride: options.stride,
                length: to,
            }
            .into());
        }
        encoding.truncate(to, options.stride, direction);
        Ok(())
    };
    cut(first, to_first)?;
    if let Some(second) = second {
        cut(second, to_second)?;
    }
    Ok(())
}

/// Lengths of two sequences that together may have `room` tokens: the shorter keeps its length while it has at most half.
fn longest_first(first: usize, second: usize, room: usize) -> (usize, usize) {
    let (short, long) = (first.min(second), first.max(second));
    let (mut short, mut long) = if short > room {
        (short, short)
    } else {
        (short, short.max(room - short).min(long))
    };
    if short + long > room {
        short = room / 2;
        long = short + room % 2;
    }
    if first > second {
        (long, short)
    } else {
        (short, long)
    }
}

/// Fills the encodings of a batch.
pub(crate) fn pad(encodings: &mut [tokenizers::Encoding], padding: &Padding, pad: (u32, &str)) {
    let mut length = match padding.to {
        PadTo::Length(length) => length,
        PadTo::Longest => encodings.iter().map(|e| e.len()).max().unwrap_or(0),
    };
    if let Some(multiple) = padding.multiple_of.filter(|&multiple| multiple > 0) {
        length = length.next_multiple_of(multiple);
    }
    let direction = match padding.direction {
        Side::Left => PaddingDirection::Left,
        Side::Right => PaddingDirection::Right,
    };
    for encoding in encodings {
        encoding.pad(length, pad.0, 0, pad.1, direction);
    }
}
