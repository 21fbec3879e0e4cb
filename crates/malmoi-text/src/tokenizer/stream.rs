//! Decoding ids as they are generated.

use super::Tokenizer;
use crate::error::Result;

/// Releases text as soon as it is final: whole characters only, whatever the tokens cut through.
///
/// The concatenation of everything that [`DecodeStream::push`] and [`DecodeStream::finish`] return is the text that
/// [`Tokenizer::decode`] gives for all ids at once.
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    state: State,
}

enum State {
    /// Byte-level tokens: bytes that do not form a character yet.
    Bytes(Vec<u8>),
    /// Other tokens: how a token looks depends on its neighbour, so some of the text already released is kept as context.
    Context {
        ids: Vec<u32>,
        /// How many of `ids` are released.
        released: usize,
    },
}

/// Tokens of context kept before the pending ones. One is enough for the published decoders; the rest is a margin for
/// runs of byte tokens (four make a character).
const CONTEXT: usize = 8;
/// A character has at most four bytes: what is incomplete after that many tokens is invalid, and is released as such.
const LONGEST_CHARACTER: usize = 4;

impl<'a> DecodeStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        let state = if tokenizer.decodes_bytes() {
            State::Bytes(Vec::new())
        } else {
            State::Context {
                ids: Vec::new(),
                released: 0,
            }
        };
        Self {
            tokenizer,
            skip_special,
            state,
        }
    }

    /// Takes the next id; returns the text that became final (often empty in the middle of a character).
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.skip_special && self.tokenizer.is_skipped(id) {
            return Ok(String::new());
        }
        match &mut self.state {
            State::Bytes(pending) => {
                if let Some(token) = self.tokenizer.id_to_token(id) {
                    push_bytes(&token, pending);
                }
                Ok(take_valid(pending))
            }
            State::Context { ids, .. } => {
                ids.push(id);
                self.release(false)
            }
        }
    }

    /// Returns what is left; bytes that never became a character are replaced by U+FFFD.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(mut self) -> Result<String> {
        match &mut self.state {
            State::Bytes(pending) => Ok(String::from_utf8_lossy(pending).into_owned()),
            State::Context { .. } => self.release(true),
        }
    }

    fn release(&mut self, all: bool) -> Result<String> {
        let State::Context { ids, released } = &mut self.state else {
            return Ok(String::new());
        };
        let text = self.tokenizer.decode(ids, self.skip_special)?;
        let before = self
            .tokenizer
            .decode(&ids[..*released], self.skip_special)?;
        let pending = ids.len() - *released;
        if !all && text.ends_with('\u{fffd}') && pending < LONGEST_CHARACTER {
            return Ok(String::new());
        }
        let fresh = match text.strip_prefix(before.as_str()) {
            Some(fresh) => fresh.to_owned(),
            None => {
                // Only invalid bytes can change what was released; the common beginning stays, the rest is new.
                let common = text
                    .char_indices()
                    .zip(before.chars())
                    .take_while(|((_, a), b)| a == b)
                    .last()
                    .map_or(0, |((at, c), _)| at + c.len_utf8());
                text[common..].to_owned()
            }
        };
        *released = ids.len();
        if ids.len() > 2 * CONTEXT {
            ids.drain(..ids.len() - CONTEXT);
            *released = ids.len();
        }
        Ok(fresh)
    }
}

/// Removes the longest valid beginning. Invalid bytes in the middle become U+FFFD; an unfinished character stays.
fn take_valid(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    loop {
        match std::str::from_utf8(pending) {
            Ok(valid) => {
                text.push_str(valid);
                pending.clear();
                return text;
            }
            Err(error) => {
                let valid = error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&pending[..valid]));
                match error.error_len() {
                    Some(invalid) => {
                        text.push('\u{fffd}');
                        pending.drain(..valid + invalid);
                    }
                    None => {
                        pending.drain(..valid);
                        return text;
                    }
                }
            }
        }
    }
}

/// Appends the bytes of a byte-level token. Tokens with a character outside the byte alphabet (added tokens) are text.
pub(super) fn push_bytes(token: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in token.chars() {
        match byte_of(c) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// GPT-2's byte alphabet: printable Latin-1 bytes are themselves, the 68 others are U+0100 and up, in byte order.
pub(crate) fn byte_of(c: char) -> Option<u8> {
    let code = c as u32;
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The character of a byte in GPT-2's byte alphabet.
pub(crate) fn char_of(byte: u8) -> char {
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
        0x00..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte) - 0x7f,
        0xad => 0x143,
    };
    char::from_u32(code).unwrap_or('?')
}

#[cfg(test)]
mod tests {
    use super::{byte_of, char_of};

    #[test]
    fn the_byte_alphabet_is_a_bijection() {
        for byte in 0..=255_u8 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        assert_eq!(char_of(b' '), 'Ġ');
        assert_eq!(char_of(b'\n'), 'Ċ');
        assert_eq!(byte_of('한'), None);
    }
}
