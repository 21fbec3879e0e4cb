//! Denoising rules of BART (Lewis et al. 2020): text infilling, sentence permutation and document rotation.

use malmoi_kernels::random::Key;

use super::ObjectiveError;

/// Replaces each span `(start, length)` by one mask token; a span of length 0 inserts a mask before `start`. Spans are in order and
/// do not overlap.
///
/// # Errors
/// A span that starts before the end of the previous one, or reaches past the sequence.
pub fn infill(
    tokens: &[u32],
    spans: &[(usize, usize)],
    mask_id: u32,
) -> Result<Vec<u32>, ObjectiveError> {
    let mut out = Vec::with_capacity(tokens.len() + spans.len());
    let mut at = 0;
    for &(start, length) in spans {
        if start < at || start > tokens.len() || length > tokens.len() - start {
            return Err(ObjectiveError::Outside {
                what: "span (overlapping its neighbour or too long) at",
                position: start,
                length: tokens.len(),
            });
        }
        out.extend(&tokens[at..start]);
        out.push(mask_id);
        at = start + length;
    }
    out.extend(&tokens[at..]);
    Ok(out)
}

/// The document beginning with token `start`, its beginning appended.
///
/// # Errors
/// A start outside the document.
pub fn rotate(tokens: &[u32], start: usize) -> Result<Vec<u32>, ObjectiveError> {
    if start > tokens.len() {
        return Err(ObjectiveError::Outside {
            what: "start",
            position: start,
            length: tokens.len(),
        });
    }
    Ok([&tokens[start..], &tokens[..start]].concat())
}

/// The sentences of a document in another order: `order[k]` is the one that comes k-th. Sentence i ends before token `ends[i]`, and the
/// next begins there.
///
/// # Errors
/// An order that is no permutation of the sentences, or ends that do not rise to the end of the document.
pub fn permute(tokens: &[u32], ends: &[usize], order: &[u32]) -> Result<Vec<u32>, ObjectiveError> {
    let rising = ends.windows(2).all(|pair| pair[0] <= pair[1]);
    if !rising || ends.last().copied().unwrap_or(0) != tokens.len() {
        return Err(ObjectiveError::Outside {
            what: "end of the last sentence",
            position: ends.last().copied().unwrap_or(0),
            length: tokens.len(),
        });
    }
    let mut seen = vec![false; ends.len()];
    let mut out = Vec::with_capacity(tokens.len());
    for &sentence in order {
        let sentence = sentence as usize;
        if seen.get(sentence) != Some(&false) {
            return Err(ObjectiveError::Outside {
                what: "repeated or missing sentence",
                position: sentence,
                length: ends.len(),
            });
        }
        seen[sentence] = true;
        let start = sentence.checked_sub(1).map_or(0, |before| ends[before]);
        out.extend(&tokens[start..ends[sentence]]);
    }
    if order.len() == ends.len() {
        return Ok(out);
    }
    Err(ObjectiveError::Outside {
        what: "missing sentence",
        position: order.len(),
        length: ends.len(),
    })
}

/// How much is hidden by infilling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InfillRates {
    /// Share of the tokens that are hidden (published: 0.3).
    pub probability: f64,
    /// Mean of the Poisson distribution of span lengths (published: 3).
    pub mean_span: f64,
}

impl InfillRates {
    /// Spans to hide in a sequence of `length` tokens: lengths are drawn one after another until they hold the share of tokens to
    /// hide, the last cut to it, and every arrangement of them among the other tokens is equally likely. In order, `(start, length)`.
    pub fn spans(&self, length: usize, key: Key) -> Vec<(usize, usize)> {
        let hidden = (length as f64 * self.probability).round() as usize;
        let mut lengths = Vec::new();
        let mut left = hidden;
        while left > 0 {
            let draw = key.uniform_f64_at(lengths.len() as u64);
            let span = poisson(self.mean_span, draw).min(left);
            lengths.push(span);
            left -= span;
        }
        // Spans and kept tokens in a row; a random choice of the places in it that are spans.
        let kept = length - hidden;
        let places = key.fold(1).permutation(kept + lengths.len());
        let mut places: Vec<u32> = places.into_iter().take(lengths.len()).collect();
        places.sort_unstable();
        let mut before = 0;
        let mut spans = Vec::with_capacity(lengths.len());
        for (number, (place, span)) in places.into_iter().zip(lengths).enumerate() {
            // Kept tokens before this span, and the tokens of the spans before it.
            let start = place as usize - number + before;
            spans.push((start, span));
            before += span;
        }
        spans
    }
}

/// The number at which the cumulative Poisson distribution exceeds `draw`, uniform in `[0, 1)`.
fn poisson(mean: f64, draw: f64) -> usize {
    // The tail beyond is below 1e-15 for every mean that is checked in a configuration.
    const LARGEST: usize = 200;
    let (mut number, mut probability) = (0, (-mean).exp());
    let mut cumulative = probability;
    while draw >= cumulative && number < LARGEST {
        number += 1;
        probability *= mean / number as f64;
        cumulative += probability;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_spans_and_starts_are_refused() {
        assert!(infill(&[1, 2, 3], &[(0, 2), (1, 1)], 9).is_err());
        assert!(infill(&[1, 2, 3], &[(2, 2)], 9).is_err());
        assert!(infill(&[1, 2, 3], &[(usize::MAX, 1)], 9).is_err());
        assert_eq!(infill(&[1, 2, 3], &[(3, 0)], 9).unwrap(), [1, 2, 3, 9]);
        assert!(rotate(&[1, 2], 3).is_err());
    }

    #[test]
    fn sentences_come_in_the_order_given() {
        let tokens = [1, 2, 3, 4, 5, 6];
        assert_eq!(
            permute(&tokens, &[2, 3, 6], &[2, 0, 1]).unwrap(),
            [4, 5, 6, 1, 2, 3]
        );
        for (ends, order) in [
            (&[2, 3, 5][..], &[0, 1, 2][..]),
            (&[3, 2, 6], &[0, 1, 2]),
            (&[2, 6], &[0, 0]),
            (&[2, 6], &[1]),
            (&[2, 6], &[0, 2]),
        ] {
            assert!(permute(&tokens, ends, order).is_err(), "{ends:?} {order:?}");
        }
    }

    #[test]
    fn span_lengths_follow_poisson_and_cover_their_share() {
        let rates = InfillRates {
            probability: 0.3,
            mean_span: 3.0,
        };
        let (mut count, mut empty, mut starts) = (0.0, 0.0, vec![0_usize; 10]);
        let n = 2000;
        for example in 0..n {
            let key = Key::new(7, malmoi_kernels::random::Purpose::Masking, example);
            let spans = rates.spans(200, key);
            assert_eq!(spans.iter().map(|span| span.1).sum::<usize>(), 60);
            let tokens: Vec<u32> = (0..200).collect();
            let infilled = infill(&tokens, &spans, 999).expect("in order, without overlap");
            assert_eq!(infilled.len(), 140 + spans.len());
            // The last span is cut, and so no draw of the distribution.
            for (start, length) in &spans[..spans.len() - 1] {
                count += 1.0;
                empty += f64::from(u8::from(*length == 0));
                starts[start * 10 / 201] += 1;
            }
        }
        // P(0) = e^-3 = 0.0498, with a standard error of sqrt(0.0498 * 0.95 / 38,000) = 0.0011.
        assert!((empty / count - 0.0498).abs() < 0.006, "{}", empty / count);
        // The last tenth lacks the last spans, which are not counted.
        let mean = starts[..9].iter().sum::<usize>() as f64 / 9.0;
        for tenth in &starts[..9] {
            let share = *tenth as f64 / mean;
            assert!(
                (share - 1.0).abs() < 0.1,
                "spans start everywhere: {starts:?}"
            );
        }
        assert_eq!(
            rates.spans(0, Key::new(1, malmoi_kernels::random::Purpose::Masking, 0)),
            []
        );
    }

    #[test]
    fn poisson_inverts_its_distribution() {
        // e^-3 = 0.0498, (1 + 3) e^-3 = 0.1991, (1 + 3 + 4.5) e^-3 = 0.4232.
        for (draw, expected) in [
            (0.0, 0),
            (0.0497, 0),
            (0.05, 1),
            (0.19, 1),
            (0.2, 2),
            (0.4233, 3),
        ] {
            assert_eq!(poisson(3.0, draw), expected, "{draw}");
        }
    }
}
