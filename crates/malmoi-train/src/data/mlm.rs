//! Examples of masked language modelling, alone or with next-sentence prediction (Devlin et al. 2019).

use std::sync::Arc;

use malmoi_kernels::random::{Key, Purpose};
use malmoi_text::Tokenizer;

use super::hide::{Hider, Units, targets};
use super::pieces::{Cut, NO_TOKENS, Piece, Pieces};
use super::subwords::SUBWORDS;
use super::{Detection, Draws, Example, Examples, SubwordDropout, Tokens};
use crate::error::TrainError;
use crate::objectives::masked::MaskingRates;
use crate::objectives::pairs::{PackedPair, pack_pair, pack_single, sentence_order};

/// Special tokens that the objective writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialIds {
    /// `[CLS]`.
    pub cls: u32,
    /// `[SEP]`.
    pub sep: u32,
}

impl SpecialIds {
    /// Those of a tokenizer.
    ///
    /// # Errors
    /// [`TrainError::NoToken`].
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, TrainError> {
        let need = |id: Option<u32>, token: &str| {
            id.ok_or_else(|| TrainError::NoToken {
                token: token.into(),
            })
        };
        let special = tokenizer.special();
        Ok(Self {
            cls: need(special.cls, "[CLS]")?,
            sep: need(special.sep, "[SEP]")?,
        })
    }
}

/// What is hidden and how segments are made.
#[derive(Debug, Clone, Copy)]
pub struct MlmOptions {
    /// Tokens of a sequence, special ones included.
    pub max_len: usize,
    /// How much is hidden.
    pub rates: MaskingRates,
    /// What is hidden together.
    pub units: Units,
    /// Pairs of segments.
    pub pairs: PairKind,
    /// Factor on the loss of a discriminator that finds what a generator puts in place of hidden tokens.
    pub detection: Option<f32>,
}

/// What is predicted about two segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairKind {
    /// There is one segment and nothing to predict.
    None,
    /// Whether the second follows the first (0) or comes from another document (1).
    NextSentence,
    /// Whether two that follow each other stand in their order (0) or are swapped (1).
    SentenceOrder,
}

/// Fills sequences with consecutive sentences of one document and hides tokens in them.
///
/// Without next-sentence prediction a sequence is `[CLS] text [SEP]` with as many whole sentences as fit; a longer sentence is
/// cut into several. With it, sentences are gathered until they fill the sequence, then cut at a random sentence end into A and
/// B; for half of the examples B is replaced by text of another document. For sentence order, half are swapped instead.
pub struct MlmData {
    tokens: Arc<dyn Tokens>,
    special: SpecialIds,
    hider: Hider,
    options: MlmOptions,
    pieces: Pieces,
    /// Documents with text, from which strangers are drawn.
    filled: Vec<u32>,
    mean_tokens: f64,
    subwords: Option<SubwordDropout>,
}

impl MlmData {
    /// Examples of a tokenised corpus. `name` stands in messages.
    ///
    /// # Errors
    /// [`TrainError::Corpus`] when there is no example in it, [`TrainError::NoToken`], [`TrainError::Objective`].
    pub fn new(
        tokens: Arc<dyn Tokens>,
        tokenizer: Tokenizer,
        name: &str,
        options: MlmOptions,
    ) -> Result<Self, TrainError> {
        let special = SpecialIds::of(&tokenizer)?;
        let hider = Hider::new(tokenizer, options.rates, options.units)?;
        let paired = options.pairs != PairKind::None;
        let filled: Vec<u32> = (0..tokens.n_documents())
            .filter(|&d| !tokens.document(d).is_empty())
            .map(|d| d as u32)
            .collect();
        let strangers = options.pairs == PairKind::NextSentence;
        let two_sentences = format!(
            "pairs of segments need {} with two sentences; separate documents by an empty line, put one sentence on a line \
             (data.documents = \"blank-line\"), or set objective.next_sentence and objective.sentence_order to false",
            if strangers {
                "at least two documents, one of them"
            } else {
                "a document"
            }
        );
        let (cut, none) = if paired {
            (
                Cut::Pairs(options.max_len.saturating_sub(3)),
                &*two_sentences,
            )
        } else {
            (Cut::Singles(options.max_len.saturating_sub(2)), NO_TOKENS)
        };
        let pieces = Pieces::cut(&*tokens, cut, name, none)?;
        if strangers && filled.len() < 2 {
            return Err(TrainError::Corpus {
                corpus: name.to_string(),
                problem: two_sentences,
            });
        }
        let mut total = 0;
        for piece in pieces.iter() {
            let (length, added) = if paired {
                (
                    tokens.sentences(piece.document as usize, piece.start..piece.end),
                    3,
                )
            } else {
                (piece.start..piece.end, 2)
            };
            total += (length.end - length.start + added).min(options.max_len as u64);
        }
        Ok(Self {
            mean_tokens: total as f64 / pieces.len() as f64,
            tokens,
            special,
            hider,
            options,
            pieces,
            filled,
            subwords: None,
        })
    }

    /// The same examples; with `subwords`, their tokens are taken apart while they are learned from.
    pub(crate) fn with_subwords(self, subwords: Option<SubwordDropout>) -> Self {
        Self { subwords, ..self }
    }

    fn example(&self, piece: Piece, draws: Draws, n: u64) -> Result<Example, TrainError> {
        let (pair, next_sentence) = if self.options.pairs != PairKind::None {
            let (pair, label) = self.pair(piece, draws, n)?;
            (pair, Some(label))
        } else {
            let room = self.options.max_len.saturating_sub(2);
            let text = self.read(piece.start..piece.end);
            let text = self.parts(text, room, draws, draws.key(SUBWORDS, n));
            let SpecialIds { cls, sep, .. } = self.special;
            (pack_single(&text, self.options.max_len, cls, sep)?, None)
        };
        let masked = self.hider.hide(&pair.ids, draws.key(Purpose::Masking, n))?;
        Ok(Example {
            positions: (0..pair.ids.len() as u32).collect(),
            targets: targets(&masked),
            ids: masked.ids,
            starts: vec![0],
            segments: Some(pair.segments),
            next_sentence,
            detection: self.options.detection.map(|factor| Detection {
                factor,
                sample: draws.key(Purpose::Sampling, n),
            }),
            ..Example::default()
        })
    }

    fn read(&self, range: std::ops::Range<u64>) -> Vec<u32> {
        let mut out = Vec::new();
        self.tokens.read(range, &mut out);
        out
    }

    /// A text with its tokens taken apart, `room` of them at most, where a training run asks for it.
    fn parts(&self, text: Vec<u32>, room: usize, draws: Draws, key: Key) -> Vec<u32> {
        match (&self.subwords, draws) {
            (Some(subwords), Draws::Training(_)) => subwords.text(&text, room, key),
            _ => text,
        }
    }

    /// Segments A and B of a piece, and what is to be said about them: whether B comes from elsewhere, or the two are swapped (1), or
    /// neither (0).
    fn pair(&self, piece: Piece, draws: Draws, n: u64) -> Result<(PackedPair, u32), TrainError> {
        let key = draws.key(Purpose::Pairing, n);
        let document = piece.document as usize;
        let room = self.options.max_len.saturating_sub(3);
        // A ends before the last sentence of the piece.
        let cut = piece.start + 1 + key.below_at(0, piece.end - piece.start - 1);
        let segment = |range, which: u64| {
            let key = draws.key(SUBWORDS, n).fold(which);
            self.parts(self.read(range), room, draws, key)
        };
        let a = segment(self.tokens.sentences(document, piece.start..cut), 0);
        let other = key.below_at(1, 2) == 1;
        let SpecialIds { cls, sep, .. } = self.special;
        if self.options.pairs == PairKind::SentenceOrder {
            let b = segment(self.tokens.sentences(document, cut..piece.end), 1);
            let (first, second, label) = sentence_order(&a, &b, other);
            let pair = pack_pair(first, second, self.options.max_len, cls, sep)?;
            return Ok((pair, label));
        }
        let stranger = other;
        let b = if stranger {
            // One of the others: those from the document itself on move up by one.
            let own = self.filled.partition_point(|&d| d < piece.document) as u64;
            let drawn = key.below_at(2, self.filled.len() as u64 - 1);
            let other = self.filled[(drawn + u64::from(drawn >= own)) as usize] as usize;
            let sentences = self.tokens.n_sentences(other);
            let range = self
                .tokens
                .sentences(other, key.below_at(3, sentences)..sentences);
            let wanted = room.saturating_sub(a.len()).max(1) as u64;
            segment(range.start..range.end.min(range.start + wanted), 1)
        } else {
            segment(self.tokens.sentences(document, cut..piece.end), 1)
        };
        let pair = pack_pair(&a, &b, self.options.max_len, cls, sep)?;
        Ok((pair, u32::from(stranger)))
    }
}

impl Examples for MlmData {
    fn per_epoch(&self) -> u64 {
        self.pieces.len()
    }

    fn mean_tokens(&self) -> f64 {
        self.mean_tokens
    }

    fn training(&self, seed: u64, n: u64) -> Result<Example, TrainError> {
        let (piece, draws) = self.pieces.training(seed, n);
        self.example(piece, draws, n)
    }

    fn evaluation(&self, n: u64) -> Result<Example, TrainError> {
        let (piece, draws) = self.pieces.evaluation(n);
        self.example(piece, draws, n)
    }
}
