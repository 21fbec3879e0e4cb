//! Hiding tokens of a sequence, for every objective that predicts them.

use malmoi_kernels::random::Key;
use malmoi_text::Tokenizer;

use crate::error::TrainError;
use crate::objectives::IGNORED;
use crate::objectives::masked::{Masked, Masker, MaskingRates};

/// What is chosen together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Units {
    /// Every token on its own.
    Tokens,
    /// The tokens of a word.
    Words,
    /// Runs of up to so many words.
    Ngrams(usize),
}

/// Hides tokens as an objective asks.
#[derive(Debug, Clone)]
pub(super) struct Hider {
    tokenizer: Tokenizer,
    masker: Masker,
    units: Units,
}

impl Hider {
    /// # Errors
    /// [`TrainError::NoToken`] without a mask token, [`TrainError::Objective`] for rates out of range.
    pub(super) fn new(
        tokenizer: Tokenizer,
        rates: MaskingRates,
        units: Units,
    ) -> Result<Self, TrainError> {
        rates.validate()?;
        let mask_id = tokenizer
            .special()
            .mask
            .ok_or_else(|| TrainError::NoToken {
                token: "[MASK]".into(),
            })?;
        let masker = Masker {
            rates,
            mask_id,
            vocab_size: tokenizer.vocab_size() as u32,
        };
        Ok(Self {
            tokenizer,
            masker,
            units,
        })
    }

    /// Hides tokens. Every sequence that has text gets at least one hidden token (as in the published data preparation), so
    /// that short ones are not wasted.
    pub(super) fn hide(&self, ids: &[u32], key: Key) -> Result<Masked, TrainError> {
        let special: Vec<bool> = ids
            .iter()
            .map(|&id| self.tokenizer.is_special(id))
            .collect();
        let words: Option<Vec<Vec<usize>>> = (self.units != Units::Tokens).then(|| {
            self.tokenizer
                .whole_words(ids)
                .into_iter()
                .map(Iterator::collect)
                .collect()
        });
        let mut masked = match (self.units, &words) {
            (Units::Ngrams(longest), Some(words)) => {
                self.masker.mask_ngrams(ids, words, longest, key)
            }
            _ => self.masker.mask(ids, &special, words.as_deref(), key)?,
        };
        if masked.labels.iter().all(|&label| label == IGNORED) {
            let units: Vec<Vec<usize>> = words.unwrap_or_else(|| {
                (0..ids.len())
                    .filter(|&i| !special[i])
                    .map(|i| vec![i])
                    .collect()
            });
            if !units.is_empty() {
                // Streams 0 to 2 of the key are the masker's.
                let unit = key.fold(3).below_at(0, units.len() as u64) as usize;
                for &place in &units[unit] {
                    masked.labels[place] = i64::from(ids[place]);
                    masked.ids[place] = self.masker.mask_id;
                }
            }
        }
        Ok(masked)
    }
}

/// Place and original of every hidden token.
pub(super) fn targets(masked: &Masked) -> Vec<(usize, u32)> {
    let labels = masked.labels.iter().enumerate();
    labels
        .filter(|(_, label)| **label != IGNORED)
        .map(|(place, &label)| (place, label as u32))
        .collect()
}
