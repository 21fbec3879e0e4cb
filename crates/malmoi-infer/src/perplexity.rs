//! Perplexity of a decoder on running text, with overlapping windows.
//!
//! A model sees at most `max_len` tokens at once. Windows that overlap give every scored token at least
//! `window − stride` tokens of context (all but the first window's), at the price of computing the overlap again.

use std::sync::Arc;

use malmoi_models::{Labels, Model, PackedBatch, VocabularyTargets};
use serde::Serialize;

use crate::InferError;
use crate::embed::by_budget;

/// How a text is cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowOptions {
    /// Tokens of a window; at most the model's positions.
    pub window: usize,
    /// Tokens by which windows advance; 1 to `window`.
    pub stride: usize,
    /// Tokens that go through the model together.
    pub tokens_per_batch: usize,
}

/// The score of a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Perplexity {
    /// Tokens scored: all but the first of the text.
    pub tokens: usize,
    /// Words (separated by white space) of the scored text.
    pub words: usize,
    /// UTF-8 bytes of the scored text.
    pub bytes: usize,
    /// Summed negative log-likelihood, in nats.
    pub nats: f64,
}

impl Perplexity {
    /// Mean loss a token, in nats.
    pub fn loss(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// exp(nats / tokens).
    pub fn per_token(&self) -> f64 {
        self.loss().exp()
    }

    /// exp(nats / words): comparable between tokenizers.
    pub fn per_word(&self) -> f64 {
        (self.nats / self.words as f64).exp()
    }

    /// exp(nats / bytes): comparable between tokenizers and languages without spaces.
    pub fn per_byte(&self) -> f64 {
        (self.nats / self.bytes as f64).exp()
    }

    /// Bits a byte.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / self.bytes as f64 / std::f64::consts::LN_2
    }
}

/// A window: tokens `start..end` of a text, of which those from `score_from` on are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    text: usize,
    start: usize,
    score_from: usize,
    end: usize,
}

/// Windows that predict every token of text number `text` but the first exactly once.
fn windows(text: usize, n_tokens: usize, window: usize, stride: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    let (mut start, mut scored) = (0, 1);
    while scored < n_tokens {
        let end = (start + window).min(n_tokens);
        windows.push(Window {
            text,
            start,
            score_from: scored,
            end,
        });
        scored = end;
        start += stride;
    }
    windows
}

/// Summed negative log-likelihood (nats) of all tokens of some texts but the first of each, given what precedes them in their window.
///
/// # Errors
/// [`InferError::WrongModel`] for a model that isn't a decoder with a language-model head, [`InferError::TooShort`] when no text has
/// two tokens, [`InferError::Setting`], [`InferError::Batch`].
pub fn negative_log_likelihood<S: AsRef<[u32]>>(
    model: &Model,
    texts: &[S],
    options: &WindowOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<f64, InferError> {
    crate::needs_decoder(model, "perplexity")?;
    let max_len = model.config().max_len();
    let wrong = |name, value: usize, expected| {
        Err(InferError::Setting {
            name,
            value: value.to_string(),
            expected,
        })
    };
    if options.window < 2 || options.window > max_len {
        return wrong(
            "window",
            options.window,
            format!("2 to {max_len}, the model's positions"),
        );
    }
    // A token at the start of a window can only be predicted by the window before it, so windows share at least one.
    if options.stride == 0 || options.stride >= options.window {
        return wrong(
            "stride",
            options.stride,
            format!("1 to {}, one less than the window", options.window - 1),
        );
    }
    let windows: Vec<Window> = texts
        .iter()
        .enumerate()
        .flat_map(|(text, ids)| windows(text, ids.as_ref().len(), options.window, options.stride))
        .collect();
    if windows.is_empty() {
        return Err(InferError::TooShort {
            found: texts
                .iter()
                .map(|ids| ids.as_ref().len())
                .max()
                .unwrap_or(0),
            expected: 2,
        });
    }
    let mut nats = 0.0;
    for range in by_budget(
        windows.iter().map(|w| w.end - w.start),
        options.tokens_per_batch,
    ) {
        let windows = &windows[range];
        let sequences: Vec<&[u32]> = windows
            .iter()
            .map(|w| &texts[w.text].as_ref()[w.start..w.end])
            .collect();
        let batch = PackedBatch::from_sequences(&sequences);
        let mut rows = Vec::new();
        let mut targets = Vec::new();
        for (window, at) in windows.iter().zip(batch.sequences()) {
            // The token before each scored one predicts it.
            let scored = window.score_from..window.end;
            rows.extend(
                scored
                    .clone()
                    .map(|token| (at.start + token - 1 - window.start) as u32),
            );
            targets.extend_from_slice(&texts[window.text].as_ref()[scored]);
        }
        let scored = targets.len();
        let weights: Arc<[f32]> = vec![1.0; scored].into();
        let labels = Labels::Vocabulary(VocabularyTargets {
            rows: rows.into(),
            targets: targets.into(),
            weights,
        });
        nats += model.loss(&batch, &labels)?.loss;
        progress(scored);
    }
    Ok(nats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_predict_every_token_but_the_first_once() {
        for (n, window, stride) in [
            (2, 8, 4),
            (8, 8, 4),
            (9, 8, 7),
            (30, 8, 3),
            (31, 8, 1),
            (5, 2, 1),
        ] {
            let windows = windows(0, n, window, stride);
            let scored: Vec<usize> = windows.iter().flat_map(|w| w.score_from..w.end).collect();
            assert_eq!(scored, (1..n).collect::<Vec<_>>(), "{n} {window} {stride}");
            assert!(
                windows
                    .iter()
                    .all(|w| w.end - w.start <= window && w.score_from > w.start),
                "{windows:?}"
            );
        }
    }

    #[test]
    fn rates_are_per_token_word_and_byte() {
        let p = Perplexity {
            tokens: 4,
            words: 2,
            bytes: 8,
            nats: 8.0 * std::f64::consts::LN_2,
        };
        assert!((p.per_token() - 4.0).abs() < 1e-12);
        assert!((p.per_word() - 16.0).abs() < 1e-9);
        assert!((p.bits_per_byte() - 1.0).abs() < 1e-12);
    }
}
