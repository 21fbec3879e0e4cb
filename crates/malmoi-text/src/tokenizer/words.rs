//! Which tokens form a word.

use std::ops::Range;

use tokenizers::{DecoderWrapper, ModelWrapper};

use super::special::SpecialTokens;

/// Where words begin, looked up by id.
pub(super) struct WordMarks {
    /// Per id: bit 0 begins a word, bit 1 ends a word, bit 2 special.
    marks: Vec<u8>,
}

const STARTS: u8 = 1;
const ENDS: u8 = 2;
const SPECIAL: u8 = 4;

impl WordMarks {
    pub(super) fn new(
        inner: &tokenizers::Tokenizer,
        tokens: &[Option<&str>],
        special: &SpecialTokens,
    ) -> Self {
        let byte_level = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let style: Box<dyn Fn(&str) -> u8> = match inner.get_model() {
            ModelWrapper::WordPiece(model) => {
                let prefix = model.continuing_subword_prefix.clone();
                Box::new(move |token| {
                    if token.starts_with(&prefix) {
                        0
                    } else {
                        STARTS
                    }
                })
            }
            ModelWrapper::BPE(model) if model.end_of_word_suffix.is_some() => {
                let suffix = model.end_of_word_suffix.clone().unwrap_or_default();
                Box::new(move |token| if token.ends_with(&suffix) { ENDS } else { 0 })
            }
            // White space in GPT-2's byte alphabet: space, tab, line feed, carriage return.
            ModelWrapper::BPE(_) if byte_level => {
                Box::new(|token| u8::from(token.starts_with(['Ġ', 'ĉ', 'Ċ', 'č'])))
            }
            ModelWrapper::WordLevel(_) => Box::new(|_| STARTS),
            _ => Box::new(|token| u8::from(token.starts_with('\u{2581}'))),
        };
        let marks = tokens
            .iter()
            .enumerate()
            .map(|(id, token)| {
                if special.contains(id as u32) {
                    SPECIAL
                } else {
                    token.map_or(STARTS, &style)
                }
            })
            .collect();
        Self { marks }
    }

    fn mark(&self, id: u32) -> u8 {
        self.marks.get(id as usize).copied().unwrap_or(STARTS)
    }

    pub(super) fn starts(&self, id: u32) -> bool {
        self.mark(id) & STARTS != 0
    }

    pub(super) fn groups(&self, ids: &[u32]) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut open = false;
        for (at, &id) in ids.iter().enumerate() {
            let mark = self.mark(id);
            if mark & SPECIAL != 0 {
                open = false;
                continue;
            }
            match groups.last_mut() {
                Some(last) if open && mark & STARTS == 0 => last.end = at + 1,
                _ => groups.push(at..at + 1),
            }
            open = mark & ENDS == 0;
        }
        groups
    }
}
