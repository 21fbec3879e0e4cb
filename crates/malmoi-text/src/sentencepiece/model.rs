//! A unigram model with its normaliser: text to pieces and back.

use std::path::Path;

use prost::Message;
use tokenizers::{NormalizedString, Normalizer, Token};

use super::charsmap::CharsMap;
use super::proto::ModelProto;
use crate::error::{Result, TextError};
use crate::trie::Trie;

/// The mark that stands for a space.
const SPACE: char = '\u{2581}';
/// An unknown character costs this much more than the worst piece (published constant).
const UNKNOWN_PENALTY: f32 = 10.0;

/// What a piece is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// An ordinary piece.
    Normal,
    /// The unknown piece.
    Unknown,
    /// A symbol that never comes from text, such as `</s>`.
    Control,
    /// A symbol that is always cut out of the text whole.
    UserDefined,
    /// A place holder that is never used.
    Unused,
    /// One byte, `<0x00>` to `<0xFF>`.
    Byte,
}

/// A SentencePiece unigram model.
#[derive(Debug, Clone)]
pub struct SentencePiece {
    pieces: Vec<(String, f32, PieceKind)>,
    trie: Trie,
    rules: CharsMap,
    charsmap: Vec<u8>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
    unknown: u32,
    unknown_surface: String,
    min_score: f32,
    max_score: f32,
    bytes: Option<Vec<u32>>,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
}

impl SentencePiece {
    /// Reads a `spiece.model`; `path` only names the file in errors.
    ///
    /// # Errors
    /// [`TextError::BadTokenizer`] for a damaged file, [`TextError::Unsupported`] for another algorithm than unigram.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        let proto = ModelProto::decode(bytes)
            .map_err(|e| TextError::bad(path, format!("not a SentencePiece model: {e}")))?;
        let trainer = proto.trainer.unwrap_or_default();
        let unsupported = |what: &str| TextError::Unsupported {
            path: path.to_path_buf(),
            what: what.to_owned(),
        };
        match trainer.model_type.unwrap_or(1) {
            1 => {}
            2 => return Err(unsupported("a SentencePiece model of type BPE")),
            3 => return Err(unsupported("a SentencePiece model of type word")),
            4 => return Err(unsupported("a SentencePiece model of type char")),
            other => return Err(unsupported(&format!("SentencePiece model type {other}"))),
        }
        if trainer.treat_whitespace_as_suffix.unwrap_or(false) {
            return Err(unsupported("treat_whitespace_as_suffix"));
        }
        let denormalizes = proto
            .denormalizer
            .and_then(|d| d.precompiled_charsmap)
            .is_some_and(|map| !map.is_empty());
        if denormalizes {
            return Err(unsupported("a SentencePiece denormalizer"));
        }
        let mut pieces = Vec::with_capacity(proto.pieces.len());
        for (id, piece) in proto.pieces.into_iter().enumerate() {
            let kind = match piece.kind.unwrap_or(1) {
                1 => PieceKind::Normal,
                2 => PieceKind::Unknown,
                3 => PieceKind::Control,
                4 => PieceKind::UserDefined,
                5 => PieceKind::Unused,
                6 => PieceKind::Byte,
                other => {
                    return Err(TextError::bad(
                        path,
                        format!("piece {id} has the unknown type {other}"),
                    ));
                }
            };
            let score = piece.score.unwrap_or(0.0);
            if !score.is_finite() {
                return Err(TextError::bad(
                    path,
                    format!("piece {id} has the score {score}"),
                ));
            }
            pieces.push((piece.piece.unwrap_or_default(), score, kind));
        }
        let unknown = pieces
            .iter()
            .position(|piece| piece.2 == PieceKind::Unknown)
            .ok_or_else(|| TextError::bad(path, "no piece is marked as unknown"))?
            as u32;
        let id_of = |id: Option<i32>, default: i32, name: &str| -> Option<u32> {
            // The defaults of the specification are 1, 2 and -1, but a model only has those symbols if the piece says so.
            let id = id.unwrap_or(default);
            match usize::try_from(id).ok().and_then(|id| pieces.get(id)) {
                Some(piece) if piece.2 == PieceKind::Control => Some(id as u32),
                _ => pieces
                    .iter()
                    .position(|piece| piece.2 == PieceKind::Control && piece.0 == name)
                    .map(|id| id as u32),
            }
        };
        let bos = id_of(trainer.bos_id, 1, "<s>").filter(|_| trainer.bos_id != Some(-1));
        let eos = id_of(trainer.eos_id, 2, "</s>").filter(|_| trainer.eos_id != Some(-1));
        let pad = id_of(trainer.pad_id, -1, "<pad>").filter(|_| trainer.pad_id != Some(-1));
        let bytes = if trainer.byte_fallback.unwrap_or(false) {
            Some(byte_pieces(&pieces).map_err(|message| TextError::bad(path, message))?)
        } else {
            None
        };
        let matched = |kind: PieceKind| matches!(kind, PieceKind::Normal | PieceKind::UserDefined);
        let trie = Trie::new(
            pieces
                .iter()
                .enumerate()
                .filter(|(_, piece)| matched(piece.2) && !piece.0.is_empty())
                .map(|(id, piece)| (piece.0.as_bytes(), id as u32)),
        );
        let normal_scores = || {
            pieces
                .iter()
                .filter(|piece| piece.2 == PieceKind::Normal)
                .map(|piece| piece.1)
        };
        let (min_score, max_score) = (
            normal_scores().fold(f32::INFINITY, f32::min),
            normal_scores().fold(f32::NEG_INFINITY, f32::max),
        );
        if !min_score.is_finite() {
            return Err(TextError::bad(path, "the model has no ordinary piece"));
        }
        let normalizer = proto.normalizer.unwrap_or_default();
        let charsmap = normalizer.precompiled_charsmap.unwrap_or_default();
        Ok(Self {
            rules: CharsMap::new(&charsmap).map_err(|message| TextError::bad(path, message))?,
            charsmap,
            trie,
            add_dummy_prefix: normalizer.add_dummy_prefix.unwrap_or(true),
            remove_extra_whitespaces: normalizer.remove_extra_whitespaces.unwrap_or(true),
            escape_whitespaces: normalizer.escape_whitespaces.unwrap_or(true),
            unknown,
            unknown_surface: trainer.unk_surface.unwrap_or_else(|| " \u{2047} ".into()),
            min_score,
            max_score,
            bytes,
            bos,
            eos,
            pad,
            pieces,
        })
    }

    /// The vocabulary in id order: string, score, kind.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = (&str, f32, PieceKind)> {
        self.pieces.iter().map(|p| (p.0.as_str(), p.1, p.2))
    }

    /// Id of the unknown piece.
    pub fn unknown(&self) -> u32 {
        self.unknown
    }

    /// Ids of the control symbols: beginning, end, padding.
    pub fn controls(&self) -> [Option<u32>; 3] {
        [self.bos, self.eos, self.pad]
    }

    /// True when characters without a piece are written as bytes.
    pub fn byte_fallback(&self) -> bool {
        self.bytes.is_some()
    }

    /// The raw normalisation rules, as `tokenizer.json` stores them.
    pub(crate) fn charsmap(&self) -> &[u8] {
        &self.charsmap
    }

    /// True when a space is put before the text.
    pub(crate) fn adds_prefix(&self) -> bool {
        self.add_dummy_prefix
    }

    /// True when runs of spaces become one and the ends are trimmed.
    pub(crate) fn collapses_spaces(&self) -> bool {
        self.remove_extra_whitespaces
    }

    /// True when some piece holds a space anywhere but at its start, so that text must not be split at spaces.
    pub(crate) fn crosses_words(&self) -> bool {
        self.pieces
            .iter()
            .any(|p| p.2 == PieceKind::Normal && p.0.chars().skip(1).any(|c| c == SPACE))
    }

    /// The best segmentation of normalised text: consecutive pieces as (id, start, end) in bytes.
    pub(crate) fn segment(&self, text: &str) -> Vec<(u32, usize, usize)> {
        // best[e] is the best way to reach byte e: (score, start of the last piece, its id). Scores are f32, as published.
        let mut best: Vec<(f32, usize, u32)> =
            vec![(f32::NEG_INFINITY, usize::MAX, 0); text.len() + 1];
        best[0].0 = 0.0;
        let unknown_score = self.min_score - UNKNOWN_PENALTY;
        for (start, c) in text.char_indices() {
            let here = best[start].0;
            let width = c.len_utf8();
            let mut has_single = false;
            self.trie.prefixes(&text.as_bytes()[start..], |length, id| {
                has_single |= length == width;
                let piece = &self.pieces[id as usize];
                let score = if piece.2 == PieceKind::UserDefined {
                    // Longer than any sum of ordinary pieces, so that the symbol always wins (published rule).
                    length as f32 * self.max_score - 0.1
                } else {
                    piece.1
                };
                relax(&mut best[start + length], here + score, start, id);
            });
            if !has_single {
                relax(
                    &mut best[start + width],
                    here + unknown_score,
                    start,
                    self.unknown,
                );
            }
        }
        let mut path = Vec::new();
        let mut end = text.len();
        while end > 0 {
            let (_, start, id) = best[end];
            path.push((id, start, end));
            end = start;
        }
        path.reverse();
        path
    }

    /// Tokens of normalised text. A run of unknown characters is one token; with byte fallback it is its bytes.
    pub(crate) fn tokenize(&self, text: &str) -> Vec<Token> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut previous_unknown = false;
        for (id, start, end) in self.segment(text) {
            if id != self.unknown {
                tokens.push(Token::new(id, text[start..end].to_owned(), (start, end)));
                previous_unknown = false;
            } else if let Some(bytes) = &self.bytes {
                for byte in text[start..end].bytes() {
                    let id = bytes[usize::from(byte)];
                    tokens.push(Token::new(
                        id,
                        self.pieces[id as usize].0.clone(),
                        (start, end),
                    ));
                }
            } else if previous_unknown && let Some(last) = tokens.last_mut() {
                last.value.push_str(&text[start..end]);
                last.offsets.1 = end;
            } else {
                tokens.push(Token::new(id, text[start..end].to_owned(), (start, end)));
                previous_unknown = true;
            }
        }
        tokens
    }

    /// The text of one piece inside a text; `None` for an id outside the vocabulary.
    fn surface(&self, id: u32) -> Option<Surface<'_>> {
        let (piece, _, kind) = self.pieces.get(id as usize)?;
        Some(match kind {
            PieceKind::Control => Surface::Text(""),
            PieceKind::Unknown => Surface::Text(&self.unknown_surface),
            PieceKind::Byte => match parse_byte(piece) {
                Some(byte) => Surface::Byte(byte),
                None => Surface::Text(piece),
            },
            _ => Surface::Text(piece),
        })
    }

    /// Turns ids into text; ids outside the vocabulary are skipped. Invalid byte sequences become U+FFFD. `at_start` says
    /// that the ids begin the text, so that the space put before it goes again.
    pub fn decode(&self, ids: &[u32], at_start: bool) -> String {
        let mut bytes = Vec::new();
        let mut prefix_removed = false;
        for &id in ids {
            match self.surface(id) {
                Some(Surface::Byte(byte)) => bytes.push(byte),
                Some(Surface::Text(piece)) => {
                    // The space that encoding put before the text goes again; where encoding trimmed spaces, all do.
                    let strip = at_start
                        && bytes.is_empty()
                        && (self.remove_extra_whitespaces
                            || (self.add_dummy_prefix && !prefix_removed));
                    let piece = match piece.strip_prefix(SPACE) {
                        Some(rest) if strip => {
                            prefix_removed = true;
                            rest
                        }
                        _ => piece,
                    };
                    for c in piece.chars() {
                        let c = if c == SPACE { ' ' } else { c };
                        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
                None => {}
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// What a piece becomes in decoded text.
enum Surface<'a> {
    Text(&'a str),
    Byte(u8),
}

/// Keeps the better of two ways to reach a position; the first found wins a tie.
fn relax(target: &mut (f32, usize, u32), score: f32, start: usize, id: u32) {
    if target.1 == usize::MAX || score > target.0 {
        *target = (score, start, id);
    }
}

/// The ids of `<0x00>` to `<0xFF>`.
fn byte_pieces(pieces: &[(String, f32, PieceKind)]) -> Result<Vec<u32>, String> {
    let mut ids = vec![u32::MAX; 256];
    for (id, piece) in pieces.iter().enumerate() {
        if piece.2 == PieceKind::Byte
            && let Some(byte) = parse_byte(&piece.0)
        {
            ids[usize::from(byte)] = id as u32;
        }
    }
    match ids.iter().position(|&id| id == u32::MAX) {
        Some(missing) => Err(format!("byte fallback without the piece <0x{missing:02X}>")),
        None => Ok(ids),
    }
}

/// Reads `<0xAB>`.
fn parse_byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Normalises text the published way: the longest rule at each position, spaces trimmed and collapsed, a space put before
/// the text, spaces written as `▁`. Offsets stay tied to the original text.
impl Normalizer for SentencePiece {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        let source = text.get().to_owned();
        // (output, source characters that it replaces)
        let mut chunks: Vec<(String, usize)> = Vec::new();
        let mut rest = source.as_str();
        while let Some(c) = rest.chars().next() {
            let (consumed, output) = match self.rules.longest_match(rest) {
                Some((consumed, output)) => (consumed, output.to_owned()),
                None => (c.len_utf8(), c.to_string()),
            };
            chunks.push((output, rest[..consumed].chars().count()));
            rest = &rest[consumed..];
        }
        let mut output = Aligned::default();
        let mut after_space = self.remove_extra_whitespaces;
        for (chunk, mut consumed) in chunks {
            let mut kept = String::new();
            for c in chunk.chars() {
                if c == ' ' && after_space {
                    continue;
                }
                after_space = c == ' ' && self.remove_extra_whitespaces;
                kept.push(if c == ' ' && self.escape_whitespaces {
                    SPACE
                } else {
                    c
                });
            }
            output.push(&kept, std::mem::take(&mut consumed));
        }
        if self.remove_extra_whitespaces {
            let space = if self.escape_whitespaces { SPACE } else { ' ' };
            output.trim_end(space);
        }
        if self.add_dummy_prefix && !output.characters.is_empty() {
            let space = if self.escape_whitespaces { SPACE } else { ' ' };
            output.characters.insert(0, (space, 1));
        }
        let (characters, removed) = (output.characters, output.removed_at_start);
        if characters.is_empty() {
            text.clear();
        } else if removed > 0 && characters[0].1 == 1 {
            // The prefix must take over the first removed character: an insertion has nothing before it to align with.
            let mut characters = characters;
            characters[0].1 = -(removed as isize - 1);
            text.transform(characters, 0);
        } else {
            text.transform(characters, removed);
        }
        Ok(())
    }
}

/// Output characters with the library's notion of change: 0 replaces one source character, 1 is inserted, -n replaces one
/// and swallows the n that follow.
#[derive(Default)]
struct Aligned {
    characters: Vec<(char, isize)>,
    removed_at_start: usize,
}

impl Aligned {
    fn push(&mut self, output: &str, consumed: usize) {
        let written = output.chars().count();
        if written == 0 {
            self.swallow(consumed);
            return;
        }
        for (index, c) in output.chars().enumerate() {
            self.characters.push((c, isize::from(index >= consumed)));
        }
        if consumed > written {
            self.swallow(consumed - written);
        }
    }

    /// Removes `count` source characters after the last output.
    fn swallow(&mut self, count: usize) {
        match self
            .characters
            .iter_mut()
            .rev()
            .find(|(_, change)| *change <= 0)
        {
            // A removal belongs to the last replaced character only if nothing was inserted after it.
            Some((_, change)) => *change -= count as isize,
            None => self.removed_at_start += count,
        }
    }

    fn trim_end(&mut self, space: char) {
        while let Some(&(c, change)) = self.characters.last() {
            if c != space {
                break;
            }
            self.characters.pop();
            if change <= 0 {
                self.swallow((1 - change) as usize);
            }
        }
    }
}
