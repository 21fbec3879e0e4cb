//! Extractive question answering (Devlin et al. 2019): long contexts in overlapping windows, and the best span of the logits.

/// One window over a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextWindow {
    /// First context token.
    pub start: usize,
    /// Number of context tokens.
    pub length: usize,
}

/// Windows for `[CLS] question [SEP] context [SEP]` of at most `max_len` tokens, starts advancing by `stride`; the last one ends with
/// the context. `None` when the question leaves no room for a context token; a stride of 0, or above the size of a window, is taken
/// as that size.
pub fn context_windows(
    context: usize,
    question: usize,
    max_len: usize,
    stride: usize,
) -> Option<Vec<ContextWindow>> {
    let room = max_len.checked_sub(question + 3).filter(|&room| room > 0)?;
    let stride = if stride == 0 { room } else { stride.min(room) };
    let mut windows = Vec::new();
    let mut start = 0;
    loop {
        let length = room.min(context - start);
        windows.push(ContextWindow { start, length });
        if start + length == context {
            return Some(windows);
        }
        start += stride;
    }
}

/// For each context token the window in which it has the most context around it: the largest of
/// min(left, right) + 0.01 · length, the first of several.
pub fn max_context(windows: &[ContextWindow], context: usize) -> Vec<usize> {
    (0..context)
        .map(|token| {
            let mut best = (0, f64::NEG_INFINITY);
            for (i, window) in windows.iter().enumerate() {
                if (window.start..window.start + window.length).contains(&token) {
                    let left = token - window.start;
                    let right = window.start + window.length - 1 - token;
                    let score = left.min(right) as f64 + 0.01 * window.length as f64;
                    if score > best.1 {
                        best = (i, score);
                    }
                }
            }
            best.0
        })
        .collect()
}

/// A candidate answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// First token.
    pub start: usize,
    /// Last token.
    pub end: usize,
    /// Sum of the two logits.
    pub score: f64,
}

/// The `count` best spans, best first: start at most end, at most `max_len` tokens, both ends inside the context. Equal scores are
/// ordered by start, then end.
pub fn best_spans(
    start_logits: &[f64],
    end_logits: &[f64],
    in_context: &[bool],
    max_len: usize,
    count: usize,
) -> Vec<Span> {
    let length = start_logits
        .len()
        .min(end_logits.len())
        .min(in_context.len());
    let mut spans: Vec<Span> = Vec::new();
    for start in (0..length).filter(|&i| in_context[i]) {
        for end in (start..length.min(start.saturating_add(max_len))).filter(|&i| in_context[i]) {
            let score = start_logits[start] + end_logits[end];
            let place = spans.partition_point(|span| span.score >= score);
            if place < count {
                spans.insert(place, Span { start, end, score });
                spans.truncate(count);
            }
        }
    }
    spans
}

/// Score of "no answer": both logits of the first token.
pub fn null_score(start_logits: &[f64], end_logits: &[f64]) -> Option<f64> {
    Some(start_logits.first()? + end_logits.first()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_context_is_one_window_and_a_long_question_is_refused() {
        assert_eq!(
            context_windows(3, 4, 14, 5),
            Some(vec![ContextWindow {
                start: 0,
                length: 3
            }])
        );
        assert_eq!(
            context_windows(0, 4, 14, 5),
            Some(vec![ContextWindow {
                start: 0,
                length: 0
            }])
        );
        assert_eq!(context_windows(3, 11, 14, 5), None);
        assert_eq!(context_windows(3, 99, 14, 5), None);
    }

    #[test]
    fn every_context_token_is_in_a_window() {
        for stride in 0..12 {
            let windows = context_windows(50, 2, 12, stride).unwrap();
            for token in 0..50 {
                assert!(
                    windows
                        .iter()
                        .any(|w| (w.start..w.start + w.length).contains(&token)),
                    "{stride} {token}"
                );
            }
        }
    }

    #[test]
    fn spans_respect_length_and_context() {
        let spans = best_spans(
            &[9.0, 1.0, 2.0],
            &[0.0, 5.0, 6.0],
            &[false, true, true],
            1,
            5,
        );
        assert_eq!(
            spans.iter().map(|s| (s.start, s.end)).collect::<Vec<_>>(),
            [(2, 2), (1, 1)]
        );
    }
}
