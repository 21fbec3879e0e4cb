//! Examples of denoising (Lewis et al. 2020, section 2.2).

use std::sync::Arc;

use malmoi_kernels::random::Purpose;
use malmoi_text::Tokenizer;

use super::pieces::{Cut, NO_TOKENS, Piece, Pieces};
use super::{Draws, Example, Examples, Tokens};
use crate::error::TrainError;
use crate::objectives::infilling::{InfillRates, infill, permute};

/// Tokens around a text.
const AROUND: usize = 2;

/// What is done to the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenoisingOptions {
    /// Tokens of a text, special ones included.
    pub max_len: usize,
    /// How much is hidden.
    pub rates: InfillRates,
    /// Whether sentences are shuffled.
    pub permute: bool,
}

/// Fills texts with consecutive sentences of one document, as masked language modelling does. The input has the sentences in random
/// order and masks in place of spans, the decoder writes the text: both between the tokens that start and end a text.
pub struct DenoisingData {
    tokens: Arc<dyn Tokens>,
    options: DenoisingOptions,
    pieces: Pieces,
    mean_tokens: f64,
    /// What a text starts with, ends with, and is hidden behind.
    special: [u32; 3],
    /// What the decoder starts with.
    start: u32,
}

impl DenoisingData {
    /// Examples of a tokenised corpus. `name` stands in messages; the decoder begins with `start`.
    ///
    /// # Errors
    /// [`TrainError::Corpus`] for a corpus without text, [`TrainError::NoToken`].
    pub fn new(
        tokens: Arc<dyn Tokens>,
        tokenizer: &Tokenizer,
        name: &str,
        start: u32,
        options: DenoisingOptions,
    ) -> Result<Self, TrainError> {
        let special = tokenizer.special();
        let needed = [
            (special.bos.or(special.cls), "<s>"),
            (special.eos.or(special.sep), "</s>"),
            (special.mask, "<mask>"),
        ];
        let mut ids = [0; 3];
        for (slot, (id, token)) in ids.iter_mut().zip(needed) {
            *slot = id.ok_or_else(|| TrainError::NoToken {
                token: token.into(),
            })?;
        }
        let room = options.max_len.saturating_sub(AROUND);
        let pieces = Pieces::cut(&*tokens, Cut::Singles(room), name, NO_TOKENS)?;
        let raw = tokens.n_tokens() as f64 / pieces.len() as f64;
        // The input loses what is hidden and gains a mask a span; the target is whole.
        let hidden = raw * options.rates.probability;
        let input = raw - hidden + hidden / options.rates.mean_span;
        Ok(Self {
            mean_tokens: input + raw + (2 * AROUND) as f64,
            tokens,
            options,
            pieces,
            special: ids,
            start,
        })
    }

    /// Where the sentences of a piece end, counted in its tokens.
    fn ends(&self, piece: Piece) -> Vec<usize> {
        let document = piece.document as usize;
        let sentences = 0..self.tokens.n_sentences(document);
        let ends = sentences.map(|s| self.tokens.sentences(document, s..s + 1).end);
        let inside = ends.filter(|end| (piece.start + 1..piece.end).contains(end));
        let mut ends: Vec<usize> = inside.map(|end| (end - piece.start) as usize).collect();
        ends.push((piece.end - piece.start) as usize);
        ends
    }

    fn example(&self, piece: Piece, draws: Draws, n: u64) -> Result<Example, TrainError> {
        let mut text = Vec::new();
        self.tokens.read(piece.start..piece.end, &mut text);
        let [first, end, mask] = self.special;
        let shuffled = if self.options.permute {
            let ends = self.ends(piece);
            let order = draws.key(Purpose::Pairing, n).permutation(ends.len());
            permute(&text, &ends, &order)?
        } else {
            text.clone()
        };
        let key = draws.key(Purpose::Masking, n);
        let spans = self.options.rates.spans(shuffled.len(), key);
        let infilled = infill(&shuffled, &spans, mask)?;
        let mut ids = [&[first], &*infilled, &[end]].concat();
        // Masks that were inserted may make the input longer than the text; its end gives way.
        if ids.len() > self.options.max_len {
            ids.truncate(self.options.max_len - 1);
            ids.push(end);
        }
        Ok(Example {
            positions: (0..ids.len() as u32).collect(),
            ids,
            starts: vec![0],
            decoder: Some([&[self.start, first], &*text, &[end]].concat()),
            ..Example::default()
        })
    }
}

impl Examples for DenoisingData {
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
