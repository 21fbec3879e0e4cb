//! Span corruption (Raffel et al. 2020): spans of tokens are replaced by sentinels in the input and spelled out in the target.

use malmoi_kernels::random::Key;

use super::{ObjectiveError, same_length};

/// Inputs and targets of one corrupted sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrupted {
    /// The text with a sentinel for every noise span, then the end token.
    pub inputs: Vec<u32>,
    /// The noise with a sentinel for every span of text, then the end token.
    pub targets: Vec<u32>,
}

/// Replaces every maximal run where `hide` is true by one sentinel; sentinels count down from `first_sentinel`.
fn replace_runs(
    tokens: &[u32],
    hide: impl Fn(usize) -> bool,
    first_sentinel: u32,
    end_id: u32,
) -> Vec<u32> {
    let mut out = Vec::with_capacity(tokens.len() + 1);
    let mut sentinel = first_sentinel;
    for (i, &token) in tokens.iter().enumerate() {
        if !hide(i) {
            out.push(token);
        } else if i == 0 || !hide(i - 1) {
            out.push(sentinel);
            sentinel = sentinel.saturating_sub(1);
        }
    }
    out.push(end_id);
    out
}

/// Corrupts `tokens` where `noise` is true. The published masks start with text (not noise); the sentinels of inputs and targets
/// correspond for such masks only.
///
/// # Errors
/// A mask of another length.
pub fn corrupt(
    tokens: &[u32],
    noise: &[bool],
    first_sentinel: u32,
    end_id: u32,
) -> Result<Corrupted, ObjectiveError> {
    same_length("the noise mask", noise.len(), tokens.len())?;
    Ok(Corrupted {
        inputs: replace_runs(tokens, |i| noise[i], first_sentinel, end_id),
        targets: replace_runs(tokens, |i| !noise[i], first_sentinel, end_id),
    })
}

/// How much is corrupted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpanRates {
    /// Share of the tokens that are noise (published: 0.15).
    pub density: f64,
    /// Mean length of a noise span (published: 3).
    pub mean_span: f64,
}

impl SpanRates {
    /// Number of noise tokens and of noise spans in a sequence of `length` tokens: between 1 and `length - 1` tokens, at least
    /// one span. A sequence of fewer than two tokens has no noise.
    pub fn counts(&self, length: usize) -> (usize, usize) {
        if length < 2 {
            return (0, 0);
        }
        let tokens =
            ((length as f64 * self.density).round_ties_even() as usize).clamp(1, length - 1);
        let spans = ((tokens as f64 / self.mean_span).round_ties_even() as usize).max(1);
        (tokens, spans)
    }

    /// Lengths of inputs and targets, end tokens included, for `length` raw tokens.
    fn lengths(&self, length: usize) -> (usize, usize) {
        let noise = (length as f64 * self.density).round_ties_even() as usize;
        let spans = (noise as f64 / self.mean_span).round_ties_even() as usize;
        (length - noise.min(length) + spans + 1, noise + spans + 1)
    }

    /// The largest raw length whose corrupted input fits into `inputs_len` tokens, and the length of its targets.
    ///
    /// # Errors
    /// A density or mean outside its range, or an `inputs_len` that holds no token beside the end token.
    pub fn raw_length(&self, inputs_len: usize) -> Result<(usize, usize), ObjectiveError> {
        if !(self.density > 0.0 && self.density < 1.0) {
            return Err(ObjectiveError::Setting {
                name: "the noise density",
                value: self.density.to_string(),
                expected: "a number above 0 and below 1",
            });
        }
        if !(self.mean_span >= 1.0 && self.mean_span.is_finite()) {
            return Err(ObjectiveError::Setting {
                name: "the mean length of a noise span",
                value: self.mean_span.to_string(),
                expected: "a number of 1 or more",
            });
        }
        let mut length = 0;
        while self.lengths(length + 1).0 <= inputs_len {
            length += 1;
        }
        if length == 0 {
            return Err(ObjectiveError::NoRoom {
                max_len: inputs_len,
                needed: 2,
            });
        }
        // With half of the tokens noise, rounding may make the targets longer than the inputs; the published code gives up one token.
        if self.density == 0.5 && self.lengths(length).1 > self.lengths(length).0 {
            length -= 1;
        }
        Ok((length, self.lengths(length).1))
    }

    /// A random noise mask: text and noise spans in turn, beginning with text and ending with noise, each partition of the two
    /// totals into spans equally likely.
    pub fn noise_mask(&self, length: usize, key: Key) -> Vec<bool> {
        let (tokens, spans) = self.counts(length);
        // Each span needs a noise token and a text token before it.
        let spans = spans.min(tokens).min(length - tokens);
        if spans == 0 {
            return vec![false; length];
        }
        let noise = segment_lengths(tokens, spans, key.fold(0));
        let text = segment_lengths(length - tokens, spans, key.fold(1));
        let mut mask = Vec::with_capacity(length);
        for (text, noise) in text.into_iter().zip(noise) {
            mask.resize(mask.len() + text, false);
            mask.resize(mask.len() + noise, true);
        }
        mask
    }
}

/// Splits `total` into `parts` positive lengths, every composition equally likely: `parts - 1` distinct borders are drawn.
fn segment_lengths(total: usize, parts: usize, key: Key) -> Vec<usize> {
    let mut borders: Vec<usize> = key
        .permutation(total - 1)
        .into_iter()
        .take(parts - 1)
        .map(|border| border as usize + 1)
        .collect();
    borders.push(total);
    borders.sort_unstable();
    let mut before = 0;
    borders
        .into_iter()
        .map(|border| border - std::mem::replace(&mut before, border))
        .collect()
}

#[cfg(test)]
mod tests {
    use malmoi_kernels::random::Purpose;

    use super::*;

    #[test]
    fn random_masks_have_the_stated_counts() {
        let rates = SpanRates {
            density: 0.15,
            mean_span: 3.0,
        };
        for length in [0, 1, 2, 3, 7, 20, 100, 568] {
            for step in 0..20 {
                let mask = rates.noise_mask(length, Key::new(1, Purpose::Masking, step));
                let (tokens, spans) = rates.counts(length);
                assert_eq!(mask.len(), length);
                assert_eq!(mask.iter().filter(|&&n| n).count(), tokens);
                let starts = (0..length)
                    .filter(|&i| mask[i] && (i == 0 || !mask[i - 1]))
                    .count();
                assert_eq!(starts, spans);
                if spans > 0 {
                    assert!(!mask[0] && mask[length - 1]);
                }
            }
        }
    }

    #[test]
    fn high_densities_leave_a_text_token_for_every_span() {
        let rates = SpanRates {
            density: 0.9,
            mean_span: 1.0,
        };
        let mask = rates.noise_mask(10, Key::new(1, Purpose::Masking, 0));
        assert_eq!(mask.iter().position(|&noise| noise), Some(1));
        assert_eq!(mask.iter().filter(|&&noise| noise).count(), 9);
        assert!(
            SpanRates {
                density: 1.0,
                mean_span: 3.0
            }
            .raw_length(10)
            .is_err()
        );
    }
}
