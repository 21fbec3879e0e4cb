//! Texts cut into pieces of whole sentences, which are the examples of an epoch.

use super::order::EpochOrder;
use super::{Draws, Tokens};
use crate::error::TrainError;

/// What is wrong with a corpus without text.
pub(super) const NO_TOKENS: &str = "no tokens, expected text; add some";

/// A run of sentences of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) document: u32,
    /// Sentences of the document; without pairs, tokens of the corpus.
    pub(super) start: u64,
    pub(super) end: u64,
}

/// How documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Consecutive whole sentences with at most so many tokens; a longer sentence in parts.
    Singles(usize),
    /// Runs of at least two sentences that reach so many tokens.
    Pairs(usize),
}

/// The pieces of a corpus and their order in an epoch.
#[derive(Debug)]
pub(super) struct Pieces {
    all: Vec<Piece>,
    order: EpochOrder,
}

impl Pieces {
    /// Cuts the documents that have text. `name` stands in messages, of which the one for a corpus without any piece is `none`.
    pub(super) fn cut(
        tokens: &dyn Tokens,
        cut: Cut,
        name: &str,
        none: &str,
    ) -> Result<Self, TrainError> {
        let mut all = Vec::new();
        for document in 0..tokens.n_documents() {
            match cut {
                _ if tokens.document(document).is_empty() => {}
                Cut::Singles(room) => singles(tokens, document as u32, room, &mut all),
                Cut::Pairs(room) => pairs(tokens, document as u32, room, &mut all),
            }
        }
        let problem = match all.len() {
            0 => none,
            n if u32::try_from(n).is_err() => "more than 2^32 pieces; split the corpus",
            n => {
                return Ok(Self {
                    all,
                    order: EpochOrder::new(n),
                });
            }
        };
        Err(TrainError::Corpus {
            corpus: name.to_string(),
            problem: problem.to_string(),
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.all.len() as u64
    }

    /// All of them, in the order of the text.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.all.iter()
    }

    /// The piece of example `n` of a training run.
    pub(super) fn training(&self, seed: u64, n: u64) -> (Piece, Draws) {
        let (_, place) = self.order.place(seed, n);
        (self.all[place], Draws::Training(seed))
    }

    /// The piece of example `n` of an evaluation.
    pub(super) fn evaluation(&self, n: u64) -> (Piece, Draws) {
        (self.all[n as usize], Draws::Evaluation)
    }
}

/// Consecutive whole sentences with at most `room` tokens; a longer sentence in parts.
fn singles(tokens: &dyn Tokens, document: u32, room: usize, pieces: &mut Vec<Piece>) {
    let d = document as usize;
    let mut start = tokens.document(d).start;
    let mut end = start;
    let mut push = |start: u64, end: u64| {
        pieces.push(Piece {
            document,
            start,
            end,
        })
    };
    for s in 0..tokens.n_sentences(d) {
        let sentence = tokens.sentences(d, s..s + 1);
        if sentence.end - start > room as u64 {
            if end > start {
                push(start, end);
            }
            start = sentence.start;
            while sentence.end - start > room as u64 {
                push(start, start + room as u64);
                start += room as u64;
            }
        }
        end = sentence.end;
    }
    if end > start {
        push(start, end);
    }
}

/// Runs of at least two sentences that reach `room` tokens. A single sentence that is left over at the end of a document is
/// taken together with the one before it once more.
fn pairs(tokens: &dyn Tokens, document: u32, room: usize, pieces: &mut Vec<Piece>) {
    let d = document as usize;
    let n = tokens.n_sentences(d);
    if n < 2 {
        return;
    }
    let mut start = 0;
    while start < n {
        let from = start.min(n - 2);
        let mut end = from + 2;
        while end < n && {
            let range = tokens.sentences(d, from..end);
            range.end - range.start < room as u64
        } {
            end += 1;
        }
        pieces.push(Piece {
            document,
            start: from,
            end,
        });
        start = end;
    }
}
