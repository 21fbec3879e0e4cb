//! Denoising rules of BART (Lewis et al. 2020): text infilling and document rotation.

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
}
