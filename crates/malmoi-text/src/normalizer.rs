//! The Hangul-safe normaliser.
//!
//! Accent stripping decomposes text (NFD) and drops combining marks. Decomposed Hangul is a sequence of jamo, so a stock
//! BERT normaliser with `strip_accents` turns every syllable into two or three tokens. Here the text is composed again
//! afterwards (NFC), which restores each syllable. NFC, not NFKC: compatibility jamo such as `ㅋ` and `ㅠ`, which Korean
//! writers use on purpose, stay what they are.
//!
//! Everything is built from stock parts of the `tokenizers` format, so Python reads the same `tokenizer.json`.

use serde::{Deserialize, Serialize};
use tokenizers::normalizers::{
    BertNormalizer, Lowercase, NFC, NFD, NormalizerWrapper, Sequence, StripAccents,
};

/// Choices of the Hangul-safe normaliser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HangulSafe {
    /// Lower-case letters that have a case.
    pub lowercase: bool,
    /// Drop combining marks (`é` becomes `e`); Hangul is never decomposed.
    pub strip_accents: bool,
    /// Drop control characters and turn every white space into a plain space.
    pub clean_text: bool,
    /// Surround each Chinese character with spaces, as BERT does.
    pub split_chinese: bool,
}

impl Default for HangulSafe {
    fn default() -> Self {
        Self {
            lowercase: false,
            strip_accents: false,
            clean_text: true,
            split_chinese: true,
        }
    }
}

impl HangulSafe {
    /// The normaliser: NFC; cleaning; lower-casing; then, for accents, NFD, mark removal and NFC again.
    pub fn build(&self) -> NormalizerWrapper {
        let mut steps: Vec<NormalizerWrapper> = vec![NFC.into()];
        if self.clean_text || self.split_chinese {
            steps.push(
                BertNormalizer::new(self.clean_text, self.split_chinese, Some(false), false).into(),
            );
        }
        if self.lowercase {
            steps.push(Lowercase.into());
        }
        if self.strip_accents {
            steps.extend([NFD.into(), StripAccents.into(), NFC.into()]);
        } else if self.lowercase {
            // Lower-casing can decompose (İ becomes i and a dot); composing again keeps the output in NFC.
            steps.push(NFC.into());
        }
        match steps.len() {
            1 => NFC.into(),
            _ => Sequence::new(steps).into(),
        }
    }
}
