//! Masked language modelling (Devlin et al. 2019): some tokens are chosen; of these most are replaced by the mask token, some by
//! a random one, the rest stay, and the model predicts the originals.

use malmoi_kernels::random::Key;

use super::{IGNORED, ObjectiveError, ngram, same_length};

/// How often what happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskingRates {
    /// Share of the non-special tokens (or words) that are chosen.
    pub chosen: f64,
    /// Share of the chosen tokens that become the mask token.
    pub mask: f64,
    /// Share of the chosen tokens that become a random token; the rest stays as it is.
    pub random: f64,
}

impl Default for MaskingRates {
    /// The published rates: 15 % chosen; of these 80 % masked, 10 % random, 10 % kept.
    fn default() -> Self {
        Self {
            chosen: 0.15,
            mask: 0.8,
            random: 0.1,
        }
    }
}

impl MaskingRates {
    /// Checks that the rates are shares and that `mask + random` is at most 1.
    ///
    /// # Errors
    /// [`ObjectiveError::Setting`].
    pub fn validate(&self) -> Result<(), ObjectiveError> {
        let error = |name, value: f64, expected| ObjectiveError::Setting {
            name,
            value: value.to_string(),
            expected,
        };
        if !(self.chosen > 0.0 && self.chosen <= 1.0) {
            return Err(error(
                "the share of chosen tokens",
                self.chosen,
                "a number above 0, at most 1",
            ));
        }
        if !(self.mask >= 0.0 && self.random >= 0.0 && self.mask + self.random <= 1.0 + 1e-9) {
            return Err(error(
                "the share of masked and random tokens",
                self.mask + self.random,
                "a sum from 0 to 1",
            ));
        }
        Ok(())
    }
}

/// The draws of one sequence, one entry a token.
#[derive(Debug, Clone, Copy)]
pub struct MaskingDraws<'a> {
    /// In [0, 1): chosen when below the rate. For whole words, the draw of the first token of a word decides for the word.
    pub select: &'a [f64],
    /// In [0, 1): mask, random or keep.
    pub action: &'a [f64],
    /// The random token, should it be wanted.
    pub random_ids: &'a [u32],
}

/// A sequence with hidden tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    /// What the model sees.
    pub ids: Vec<u32>,
    /// The original id where a token was chosen, [`IGNORED`] elsewhere.
    pub labels: Vec<i64>,
}

/// Hides tokens of one sequence.
///
/// `special[i]` marks tokens that are never chosen. With `words` (groups of positions, from
/// [`super::words::whole_word_groups`]) all tokens of a word are chosen together; what happens to each is still drawn for each.
///
/// # Errors
/// Lists of other lengths, or a word with a position outside the sequence.
pub fn mask_tokens(
    ids: &[u32],
    special: &[bool],
    mask_id: u32,
    rates: MaskingRates,
    draws: MaskingDraws<'_>,
    words: Option<&[Vec<usize>]>,
) -> Result<Masked, ObjectiveError> {
    same_length("the list of special tokens", special.len(), ids.len())?;
    same_length("the list of selection draws", draws.select.len(), ids.len())?;
    same_length("the list of action draws", draws.action.len(), ids.len())?;
    same_length("the list of random ids", draws.random_ids.len(), ids.len())?;
    let mut chosen = vec![false; ids.len()];
    match words {
        None => {
            for (chosen, &draw) in chosen.iter_mut().zip(draws.select) {
                *chosen = draw < rates.chosen;
            }
        }
        Some(words) => {
            for word in words {
                if let Some(&position) = word.iter().find(|&&p| p >= ids.len()) {
                    return Err(ObjectiveError::Outside {
                        what: "position of a word",
                        position,
                        length: ids.len(),
                    });
                }
                let Some(&first) = word.first() else { continue };
                if draws.select[first] < rates.chosen {
                    word.iter().for_each(|&position| chosen[position] = true);
                }
            }
        }
    }
    for (chosen, &special) in chosen.iter_mut().zip(special) {
        *chosen &= !special;
    }
    Ok(hide_chosen(ids, &chosen, mask_id, rates, draws))
}

/// Replaces chosen tokens: each becomes the mask, a random token or stays, by its own action draw. All lists have one entry a token.
fn hide_chosen(
    ids: &[u32],
    chosen: &[bool],
    mask_id: u32,
    rates: MaskingRates,
    draws: MaskingDraws<'_>,
) -> Masked {
    let mut masked = Masked {
        ids: ids.to_vec(),
        labels: vec![IGNORED; ids.len()],
    };
    for i in (0..ids.len()).filter(|&i| chosen[i]) {
        masked.labels[i] = i64::from(ids[i]);
        if draws.action[i] < rates.mask {
            masked.ids[i] = mask_id;
        } else if draws.action[i] < rates.mask + rates.random {
            masked.ids[i] = draws.random_ids[i];
        }
    }
    masked
}

/// Hides tokens with draws from the generator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Masker {
    /// How often what happens.
    pub rates: MaskingRates,
    /// Id of the mask token.
    pub mask_id: u32,
    /// Random tokens are drawn from `0..vocab_size`.
    pub vocab_size: u32,
}

impl Masker {
    /// Hides tokens of one sequence. `key` names the sequence: (seed, masking, step) folded with the place in the batch.
    ///
    /// # Errors
    /// As [`mask_tokens`].
    ///
    /// # Panics
    /// When `vocab_size` is 0.
    pub fn mask(
        &self,
        ids: &[u32],
        special: &[bool],
        words: Option<&[Vec<usize>]>,
        key: Key,
    ) -> Result<Masked, ObjectiveError> {
        let (select, action, random_ids) = self.draws(ids.len(), key);
        let draws = MaskingDraws {
            select: &select,
            action: &action,
            random_ids: &random_ids,
        };
        mask_tokens(ids, special, self.mask_id, self.rates, draws, words)
    }

    /// Hides runs of up to `longest` words ([`super::ngram`]); words hold no special tokens.
    ///
    /// # Panics
    /// When `vocab_size` is 0.
    pub fn mask_ngrams(
        &self,
        ids: &[u32],
        words: &[Vec<usize>],
        longest: usize,
        key: Key,
    ) -> Masked {
        let (select, action, random_ids) = self.draws(ids.len(), key);
        let draws = MaskingDraws {
            select: &select,
            action: &action,
            random_ids: &random_ids,
        };
        // Stream 0 selects; here the selection has draws of its own beneath it.
        let chosen = ngram::sample(words, longest, self.rates.chosen, ids.len(), key.fold(0));
        hide_chosen(ids, &chosen, self.mask_id, self.rates, draws)
    }

    /// Selection draws, action draws and random tokens of a sequence.
    fn draws(&self, length: usize, key: Key) -> (Vec<f64>, Vec<f64>, Vec<u32>) {
        let uniform = |stream: u64| -> Vec<f64> {
            let key = key.fold(stream);
            (0..length as u64)
                .map(|position| key.uniform_f64_at(position))
                .collect()
        };
        let random = key.fold(2);
        let random_ids = (0..length as u64)
            .map(|position| random.below_at(position, u64::from(self.vocab_size)) as u32)
            .collect();
        (uniform(0), uniform(1), random_ids)
    }
}

#[cfg(test)]
mod tests {
    use malmoi_kernels::random::Purpose;

    use super::*;

    const RATES: MaskingRates = MaskingRates {
        chosen: 0.5,
        mask: 0.8,
        random: 0.1,
    };

    #[test]
    fn a_word_is_chosen_by_the_draw_of_its_first_token() {
        let draws = MaskingDraws {
            select: &[0.9, 0.1, 0.9, 0.9],
            action: &[0.0, 0.5, 0.85, 0.95],
            random_ids: &[7; 4],
        };
        let words = [vec![0], vec![1, 2, 3]];
        let masked = mask_tokens(
            &[10, 11, 12, 13],
            &[false; 4],
            4,
            RATES,
            draws,
            Some(&words),
        )
        .unwrap();
        assert_eq!(masked.ids, [10, 4, 7, 13]);
        assert_eq!(masked.labels, [IGNORED, 11, 12, 13]);
    }

    #[test]
    fn special_tokens_are_never_chosen() {
        let draws = MaskingDraws {
            select: &[0.0; 3],
            action: &[0.0; 3],
            random_ids: &[7; 3],
        };
        let masked = mask_tokens(&[1, 2, 3], &[true, false, true], 4, RATES, draws, None).unwrap();
        assert_eq!(
            (masked.ids, masked.labels),
            (vec![1, 4, 3], vec![IGNORED, 2, IGNORED])
        );
    }

    #[test]
    fn the_published_rates_come_out_of_the_generator() {
        let masker = Masker {
            rates: MaskingRates::default(),
            mask_id: 4,
            vocab_size: 1000,
        };
        let n = 100_000;
        let ids = vec![2000u32; n];
        let key = Key::new(1, Purpose::Masking, 0);
        let masked = masker.mask(&ids, &vec![false; n], None, key).unwrap();
        assert_eq!(
            masked,
            masker.mask(&ids, &vec![false; n], None, key).unwrap()
        );
        let count = |f: &dyn Fn(usize) -> bool| (0..n).filter(|&i| f(i)).count() as f64;
        let chosen = count(&|i| masked.labels[i] != IGNORED);
        let mask = count(&|i| masked.ids[i] == 4);
        let kept = count(&|i| masked.labels[i] != IGNORED && masked.ids[i] == 2000);
        // Five standard deviations of each binomial count.
        assert!((chosen - 15_000.0).abs() < 565.0, "{chosen}");
        assert!((mask / chosen - 0.8).abs() < 0.017, "{mask}");
        assert!((kept / chosen - 0.1).abs() < 0.013, "{kept}");
    }

    #[test]
    fn lists_of_other_lengths_and_bad_rates_are_refused() {
        let draws = MaskingDraws {
            select: &[0.0; 2],
            action: &[0.0; 3],
            random_ids: &[7; 3],
        };
        let error = mask_tokens(&[1, 2, 3], &[false; 3], 4, RATES, draws, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the list of selection draws has 2 entries: expected 3, one for each token"
        );
        assert!(
            MaskingRates {
                chosen: 0.0,
                ..RATES
            }
            .validate()
            .is_err()
        );
        assert!(
            MaskingRates {
                mask: 0.95,
                ..RATES
            }
            .validate()
            .is_err()
        );
        assert!(MaskingRates::default().validate().is_ok());
    }
}
