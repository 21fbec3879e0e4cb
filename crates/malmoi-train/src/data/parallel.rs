//! Examples from rows of two texts: translation language modelling and text-to-text tasks. A corpus of such rows has a document a row
//! and a sentence a text.

use std::sync::Arc;

use malmoi_kernels::random::{Key, Purpose};
use malmoi_text::Tokenizer;

use super::hide::{Hider, Units, targets};
use super::order::EpochOrder;
use super::{Draws, Example, Examples, Tokens};
use crate::error::TrainError;
use crate::objectives::masked::MaskingRates;
use crate::objectives::pairs::truncated_lengths;
use crate::objectives::translation::pack;

/// The rows that have both texts.
#[derive(Clone)]
struct Pairs {
    tokens: Arc<dyn Tokens>,
    rows: Vec<u32>,
}

impl Pairs {
    fn new(tokens: Arc<dyn Tokens>, name: &str) -> Result<Self, TrainError> {
        let rows: Vec<u32> = (0..tokens.n_documents())
            .filter(|&row| tokens.n_sentences(row) == 2)
            .map(|row| row as u32)
            .collect();
        if rows.is_empty() {
            return Err(TrainError::Corpus {
                corpus: name.to_string(),
                problem: "no row with two texts, expected at least one; name their columns".into(),
            });
        }
        Ok(Self { tokens, rows })
    }

    /// Both texts of row `n`, each of at most so many tokens.
    fn read(&self, n: usize, fit: impl Fn(usize, usize) -> (usize, usize)) -> [Vec<u32>; 2] {
        let row = self.rows[n] as usize;
        let mut texts = [Vec::new(), Vec::new()];
        for (side, text) in texts.iter_mut().enumerate() {
            let side = side as u64;
            self.tokens
                .read(self.tokens.sentences(row, side..side + 1), text);
        }
        let (first, second) = fit(texts[0].len(), texts[1].len());
        texts[0].truncate(first);
        texts[1].truncate(second);
        texts
    }

    fn mean_tokens(&self) -> f64 {
        self.tokens.n_tokens() as f64 / self.rows.len() as f64
    }
}

/// How translation language modelling makes its examples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TranslationOptions {
    /// Tokens of a sequence, special ones included.
    pub max_len: usize,
    /// How much is hidden.
    pub rates: MaskingRates,
    /// What is hidden together.
    pub units: Units,
    /// Language ids of the two columns, for models that know languages.
    pub languages: Option<[u32; 2]>,
    /// Share of the examples that are pairs; the others are one of the two texts alone.
    pub pairs: f64,
    /// Number the two texts of a pair as segments 0 and 1, for models that know segments instead of languages.
    pub segments: bool,
}

/// Translation language modelling (Conneau and Lample 2019): a text and its translation side by side, positions counted anew, words
/// hidden on both sides; and, for the rest of the examples, either text alone.
pub struct TranslationData {
    pairs: Pairs,
    hider: Hider,
    end: u32,
    options: TranslationOptions,
    order: EpochOrder,
}

impl TranslationData {
    /// Examples of a corpus of rows. `name` stands in messages.
    ///
    /// # Errors
    /// [`TrainError::Corpus`] without rows, [`TrainError::NoToken`], [`TrainError::Objective`].
    pub fn new(
        tokens: Arc<dyn Tokens>,
        tokenizer: Tokenizer,
        name: &str,
        options: TranslationOptions,
    ) -> Result<Self, TrainError> {
        let special = tokenizer.special();
        let end = special
            .eos
            .or(special.sep)
            .ok_or_else(|| TrainError::NoToken {
                token: "</s>".into(),
            })?;
        let pairs = Pairs::new(tokens, name)?;
        Ok(Self {
            hider: Hider::new(tokenizer, options.rates, options.units)?,
            order: EpochOrder::new(pairs.rows.len()),
            pairs,
            end,
            options,
        })
    }

    fn example(&self, row: usize, key: Key, masking: Key) -> Result<Example, TrainError> {
        let room = self.options.max_len.saturating_sub(4);
        let single = key.uniform_f64_at(0) >= self.options.pairs;
        let [first, second] = self.pairs.read(row, |a, b| match single {
            true => (a.min(room + 2), b.min(room + 2)),
            false => truncated_lengths(a, b, room),
        });
        // Sides are packed as languages 0 and 1 and get their own numbers below.
        let (ids, positions, sides) = if single {
            let side = key.fold(1).below_at(0, 2) as u32;
            let text = if side == 0 { &first } else { &second };
            let mut ids = vec![self.end];
            ids.extend(text);
            ids.push(self.end);
            let (positions, sides) = ((0..ids.len() as u32).collect(), vec![side; ids.len()]);
            (ids, positions, sides)
        } else {
            let pair = pack((&first, 0), (&second, 1), self.end);
            (pair.ids, pair.positions, pair.languages)
        };
        let masked = self.hider.hide(&ids, masking)?;
        let segments = self.options.segments.then(|| match single {
            true => vec![0; ids.len()],
            false => sides.clone(),
        });
        let languages = self.options.languages.map(|languages| {
            let language = |&side: &u32| languages[side as usize];
            sides.iter().map(language).collect()
        });
        Ok(Example {
            starts: vec![0],
            positions,
            segments,
            languages,
            targets: targets(&masked),
            ids: masked.ids,
            ..Example::default()
        })
    }
}

impl Examples for TranslationData {
    fn per_epoch(&self) -> u64 {
        self.pairs.rows.len() as u64
    }

    fn mean_tokens(&self) -> f64 {
        let (pair, share) = (self.pairs.mean_tokens(), self.options.pairs);
        share * (pair + 4.0) + (1.0 - share) * (pair / 2.0 + 2.0)
    }

    fn training(&self, seed: u64, n: u64) -> Result<Example, TrainError> {
        let (_, row) = self.order.place(seed, n);
        let draws = Draws::Training(seed);
        self.example(
            row,
            draws.key(Purpose::Pairing, n),
            draws.key(Purpose::Masking, n),
        )
    }

    fn evaluation(&self, n: u64) -> Result<Example, TrainError> {
        let key = |purpose| Draws::Evaluation.key(purpose, n);
        self.example(n as usize, key(Purpose::Pairing), key(Purpose::Masking))
    }
}

/// A text-to-text task: the source is the input of an encoder, the target what its decoder writes.
pub struct TextPairs {
    pairs: Pairs,
    end: u32,
    start: u32,
    /// Tokens of a source and of a target, end tokens included.
    max_len: [usize; 2],
    order: EpochOrder,
}

impl TextPairs {
    /// Examples of a corpus of rows. `name` stands in messages; the decoder begins with `start`.
    ///
    /// # Errors
    /// [`TrainError::Corpus`] without rows, [`TrainError::NoToken`].
    pub fn new(
        tokens: Arc<dyn Tokens>,
        tokenizer: &Tokenizer,
        name: &str,
        start: u32,
        max_len: [usize; 2],
    ) -> Result<Self, TrainError> {
        let end = tokenizer.special().eos.ok_or_else(|| TrainError::NoToken {
            token: "</s>".into(),
        })?;
        let pairs = Pairs::new(tokens, name)?;
        Ok(Self {
            order: EpochOrder::new(pairs.rows.len()),
            pairs,
            end,
            start,
            max_len,
        })
    }

    fn example(&self, row: usize) -> Example {
        let [source, target] = self.max_len;
        let fit = |a: usize, b: usize| (a.min(source - 1), b.min(target - 1));
        let [mut ids, target] = self.pairs.read(row, fit);
        ids.push(self.end);
        let decoder = [&[self.start], &*target, &[self.end]].concat();
        Example {
            starts: vec![0],
            positions: (0..ids.len() as u32).collect(),
            ids,
            decoder: Some(decoder),
            ..Example::default()
        }
    }
}

impl Examples for TextPairs {
    fn per_epoch(&self) -> u64 {
        self.pairs.rows.len() as u64
    }

    fn mean_tokens(&self) -> f64 {
        self.pairs.mean_tokens() + 2.0
    }

    fn training(&self, seed: u64, n: u64) -> Result<Example, TrainError> {
        Ok(self.example(self.order.place(seed, n).1))
    }

    fn evaluation(&self, n: u64) -> Result<Example, TrainError> {
        Ok(self.example(n as usize))
    }
}
