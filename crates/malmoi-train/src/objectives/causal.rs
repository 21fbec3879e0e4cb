//! Causal language modelling: labels, blocks of joined documents, and windows for perplexity.

use super::IGNORED;

/// Labels of a padded sequence: the ids where the mask is true, [`IGNORED`] elsewhere.
pub fn labels(ids: &[u32], attended: &[bool]) -> Vec<i64> {
    ids.iter()
        .zip(attended)
        .map(|(&id, &real)| if real { i64::from(id) } else { IGNORED })
        .collect()
}

/// What the logits at each position are scored against: the label of the next position, and nothing at the last.
pub fn shifted_targets(labels: &[i64]) -> Vec<i64> {
    labels
        .iter()
        .skip(1)
        .copied()
        .chain((!labels.is_empty()).then_some(IGNORED))
        .collect()
}

/// Number of targets that a loss counts.
pub fn counted(targets: &[i64]) -> usize {
    targets.iter().filter(|&&target| target != IGNORED).count()
}

/// Joins documents with `end_id` after each, cuts them into blocks of `block_size`, and drops the remainder. A block size of 0
/// gives no block.
pub fn blocks<'a>(
    documents: impl IntoIterator<Item = &'a [u32]>,
    end_id: u32,
    block_size: usize,
) -> Vec<Vec<u32>> {
    if block_size == 0 {
        return Vec::new();
    }
    let mut blocks = Vec::new();
    let mut block = Vec::with_capacity(block_size);
    for document in documents {
        for &id in document.iter().chain(std::iter::once(&end_id)) {
            block.push(id);
            if block.len() == block_size {
                blocks.push(std::mem::replace(
                    &mut block,
                    Vec::with_capacity(block_size),
                ));
            }
        }
    }
    blocks
}

/// One window over a long text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First token.
    pub begin: usize,
    /// One past the last token.
    pub end: usize,
    /// How many tokens at its end were in no window before. They are the ones to score; the first token of the text is
    /// among them but has no prediction.
    pub fresh: usize,
}

/// Windows of `window` tokens every `stride` over a text of `length` tokens; every token is fresh in exactly one. The last window
/// ends with the text. A stride above the window would leave gaps and is taken as the window.
pub fn strided_windows(length: usize, window: usize, stride: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    if window == 0 {
        return windows;
    }
    let stride = stride.clamp(1, window);
    let (mut begin, mut scored) = (0, 0);
    while scored < length {
        let end = (begin + window).min(length);
        windows.push(Window {
            begin,
            end,
            fresh: end - scored,
        });
        scored = end;
        begin += stride;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_fresh_once() {
        for length in 0..40 {
            for window in 1..12 {
                for stride in 1..14 {
                    let windows = strided_windows(length, window, stride);
                    assert_eq!(windows.iter().map(|w| w.fresh).sum::<usize>(), length);
                    assert!(
                        windows
                            .iter()
                            .all(|w| w.fresh <= w.end - w.begin && w.end - w.begin <= window)
                    );
                }
            }
        }
    }

    #[test]
    fn an_empty_sequence_has_no_targets() {
        assert!(shifted_targets(&[]).is_empty());
        assert_eq!(shifted_targets(&[5]), [IGNORED]);
    }
}
