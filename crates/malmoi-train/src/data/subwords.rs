//! Subword regularisation: tokens of a text taken apart at random while a model is trained, so that it reads words in more ways than one
//! and knows the parts of words that it meets rarely.
//!
//! Greedy matching that now and then passes over the longest match (Hiraoka 2022, "MaxMatch-Dropout"), within the tokens that the
//! tokenizer found: what one token held may become several, and no token grows.

use malmoi_kernels::random::{Key, Purpose};
use malmoi_text::Tokenizer;

use super::Example;

/// What the draws are for.
pub(super) const SUBWORDS: Purpose = Purpose::Other(4);

/// How every token of a vocabulary can be taken apart.
#[derive(Debug)]
pub(crate) struct SubwordDropout {
    /// Chance that a match of more than one character is passed over.
    rate: f32,
    /// By token and character: the tokens that start there and how many characters they hold, longest first. Empty for a token that
    /// stays whole.
    matches: Vec<Vec<Vec<(usize, u32)>>>,
}

impl SubwordDropout {
    /// Nothing for a rate of 0.
    pub(crate) fn asked_for(tokenizer: &Tokenizer, rate: f64) -> Option<Self> {
        (rate > 0.0).then(|| Self::new(tokenizer, rate))
    }

    /// Looks up the parts of every token.
    pub(crate) fn new(tokenizer: &Tokenizer, rate: f64) -> Self {
        let ids = 0..tokenizer.vocab_size() as u32;
        Self {
            rate: rate as f32,
            matches: ids.map(|id| matches(tokenizer, id)).collect(),
        }
    }

    /// The parts of a token with the draws of `key` from `at` on.
    fn split(&self, id: u32, key: Key, at: &mut u64, out: &mut Vec<u32>) {
        let matches = match self.matches.get(id as usize) {
            Some(matches) if !matches.is_empty() => matches,
            _ => return out.push(id),
        };
        let mut place = 0;
        while place < matches.len() {
            let taken = matches[place].iter().find(|(length, _)| {
                *at += 1;
                *length == 1 || key.uniform_at(*at - 1) >= self.rate
            });
            let &(length, part) = taken.expect("a single character is always taken");
            out.push(part);
            place += length;
        }
    }

    /// The parts of sequences that begin at `starts`, `room` of them at most in each: what is said of token `n` is said of those at
    /// `places[n]..places[n + 1]`.
    fn parts(
        &self,
        ids: &[u32],
        starts: &[usize],
        room: usize,
        key: Key,
    ) -> (Vec<u32>, Vec<usize>) {
        let mut at = 0;
        let mut parts = Vec::with_capacity(ids.len() * 2);
        let mut places = Vec::with_capacity(ids.len() + 1);
        for (which, &start) in starts.iter().enumerate() {
            let end = starts.get(which + 1).copied().unwrap_or(ids.len());
            let first = parts.len();
            for (n, &id) in ids.iter().enumerate().take(end).skip(start) {
                places.push(parts.len());
                self.split(id, key, &mut at, &mut parts);
                // Whole again where the tokens behind it would no longer fit.
                if parts.len() - first + (end - n - 1) > room {
                    parts.truncate(places[n]);
                    parts.push(id);
                }
            }
        }
        places.push(parts.len());
        (parts, places)
    }

    /// A text of at most `room` tokens with its tokens taken apart.
    pub(super) fn text(&self, ids: &[u32], room: usize, key: Key) -> Vec<u32> {
        self.parts(ids, &[0], room, key).0
    }

    /// An example whose sequences have at most `room` tokens, with its tokens taken apart.
    pub(super) fn example(&self, example: &Example, room: usize, key: Key) -> Example {
        let (parts, places) = self.parts(&example.ids, &example.starts, room, key);
        spread(example, parts, &places)
    }
}

/// An example with the parts of its tokens in their place: what is said of a token is said of its first part, an answer ends with the last
/// part of its last token, and where the next token is predicted, every part of it is.
fn spread(example: &Example, ids: Vec<u32>, places: &[usize]) -> Example {
    let starts: Vec<usize> = example.starts.iter().map(|&start| places[start]).collect();
    let ends = starts[1..].iter().copied().chain([ids.len()]);
    let lengths = starts.iter().zip(ends).map(|(start, end)| end - start);
    let each = |values: &Vec<u32>| -> Vec<u32> {
        let counts = places.windows(2).map(|pair| pair[1] - pair[0]);
        let repeated = values.iter().zip(counts);
        (repeated.flat_map(|(&value, n)| std::iter::repeat_n(value, n))).collect()
    };
    let predicted = |&(place, token): &(usize, u32)| -> Vec<(usize, u32)> {
        let last = places[place + 1] - 1;
        match places.get(place + 2) {
            Some(&end) => (last..end - 1).map(|at| (at, ids[at + 1])).collect(),
            // The last token of a target is not read any more.
            None => vec![(last, token)],
        }
    };
    Example {
        positions: lengths.flat_map(|length| 0..length as u32).collect(),
        segments: example.segments.as_ref().map(each),
        languages: example.languages.as_ref().map(each),
        targets: example.targets.iter().flat_map(predicted).collect(),
        answer: example.answer.as_ref().map(|answer| answer.spread(places)),
        ids,
        starts,
        ..example.clone()
    }
}

/// The parts of one token, by character. None for tokens that are not made of characters: special and added ones, and those that stand for
/// a byte.
fn matches(tokenizer: &Tokenizer, id: u32) -> Vec<Vec<(usize, u32)>> {
    const CONTINUED: &str = "##";
    let whole = tokenizer.is_special(id) || tokenizer.is_added(id);
    let Some(text) = tokenizer.id_to_token(id).filter(|_| !whole) else {
        return Vec::new();
    };
    let word_pieces = tokenizer.kind() == "WordPiece";
    let (text, continues) = match text.strip_prefix(CONTINUED).filter(|_| word_pieces) {
        Some(rest) => (rest, true),
        None => (text.as_str(), false),
    };
    let characters: Vec<char> = text.chars().collect();
    if characters.len() < 2 {
        return Vec::new();
    }
    let part = |start: usize, end: usize| {
        let continued = word_pieces && (continues || start > 0);
        let prefix = if continued { CONTINUED } else { "" };
        let text: String = (prefix.chars())
            .chain(characters[start..end].iter().copied())
            .collect();
        tokenizer.token_to_id(&text)
    };
    let singles: Option<Vec<u32>> = (0..characters.len()).map(|at| part(at, at + 1)).collect();
    // Without a single character there would be ways into it and none out.
    let Some(singles) = singles else {
        return Vec::new();
    };
    let bytes = |ids: &[u32]| -> Option<Vec<u8>> {
        let each: Option<Vec<Vec<u8>>> = ids.iter().map(|&id| tokenizer.token_bytes(id)).collect();
        each.map(|each| each.concat())
    };
    if bytes(&[id]) != bytes(&singles) {
        return Vec::new();
    }
    let from = |start: usize| {
        let longer = (start + 2..=characters.len()).rev();
        let longer = longer.filter_map(|end| Some((end - start, part(start, end)?)));
        longer.chain([(1, singles[start])]).collect()
    };
    (0..characters.len()).map(from).collect()
}
