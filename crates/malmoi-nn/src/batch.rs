//! Packed batches: every row is a real token.

use std::sync::Arc;

/// The tokens of several sequences, one after another, without padding. N tokens, B sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedBatch {
    /// Token ids, `[N]`.
    pub ids: Arc<[u32]>,
    /// Where each sequence starts, and the end of the last: `[B + 1]`.
    pub cu_seqlens: Arc<[u32]>,
    /// Position of each token in its sequence, `[N]`.
    pub positions: Arc<[u32]>,
    /// Segment (token type) of each token, `[N]`; `None` when the caller gave none.
    pub segments: Option<Arc<[u32]>>,
    /// Language of each token, `[N]`, for models with language embeddings; `None` when the caller gave none.
    pub languages: Option<Arc<[u32]>>,
    /// Which rows may be attended to; `None` for all of them, which is what a packed batch wants.
    pub keys: Option<KeyRows>,
    /// What an encoder reads, as many sequences, when this is the batch of the decoder behind it.
    pub source: Option<Arc<PackedBatch>>,
}

/// Rows of a batch that serve as keys and values, when not all do. Published losses over padded batches (the span loss of
/// question answering) count padding positions as queries that no one attends to; this reproduces them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRows {
    /// Row numbers, sequence after sequence.
    pub rows: Arc<[u32]>,
    /// Where the rows of each sequence start, `[B + 1]`.
    pub cu_seqlens: Arc<[u32]>,
}

/// Why a batch cannot go through a model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// A token id outside the vocabulary.
    #[error(
        "token id {id} is outside the vocabulary of {vocab_size}: does the tokenizer belong to this model?"
    )]
    UnknownToken {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A position beyond the position table.
    #[error(
        "a sequence reaches position {position}, but the model has {max_len} positions: shorten or truncate the input"
    )]
    TooLong {
        /// The position, from 0.
        position: u32,
        /// Number of positions.
        max_len: usize,
    },
    /// A segment id outside the segment table.
    #[error("segment id {segment} is outside the model's {n_segments} segments")]
    UnknownSegment {
        /// The id.
        segment: u32,
        /// Number of segments.
        n_segments: usize,
    },
    /// A language id outside the language table.
    #[error("language id {language} is outside the model's {n_languages} languages")]
    UnknownLanguage {
        /// The id.
        language: u32,
        /// Number of languages; 0 for a model without language embeddings.
        n_languages: usize,
    },
    /// A decoder that needs a source, or a model that has no use for one.
    #[error("{0}")]
    Source(&'static str),
    /// No tokens at all, or an empty sequence.
    #[error("a sequence without tokens: every sequence needs at least one")]
    Empty,
}

impl PackedBatch {
    /// Packs sequences, with positions counted from 0 in each.
    pub fn from_sequences<S: AsRef<[u32]>>(sequences: &[S]) -> Self {
        let mut ids = Vec::new();
        let mut positions = Vec::new();
        let mut cu_seqlens = vec![0];
        for sequence in sequences {
            let sequence = sequence.as_ref();
            ids.extend_from_slice(sequence);
            positions.extend(0..sequence.len() as u32);
            cu_seqlens.push(ids.len() as u32);
        }
        Self {
            ids: ids.into(),
            cu_seqlens: cu_seqlens.into(),
            positions: positions.into(),
            segments: None,
            languages: None,
            keys: None,
            source: None,
        }
    }

    /// The same batch as the decoder's part of a pair, with what the encoder reads.
    ///
    /// # Panics
    /// When there is not one source a sequence.
    pub fn with_source(mut self, source: PackedBatch) -> Self {
        assert_eq!(
            source.n_sequences(),
            self.n_sequences(),
            "one source a sequence"
        );
        self.source = Some(Arc::new(source));
        self
    }

    /// The same batch with segment ids, `[N]`.
    ///
    /// # Panics
    /// When there is not one id a token.
    pub fn with_segments(mut self, segments: impl Into<Arc<[u32]>>) -> Self {
        let segments = segments.into();
        assert_eq!(segments.len(), self.ids.len(), "one segment id a token");
        self.segments = Some(segments);
        self
    }

    /// The same batch with language ids, `[N]`.
    ///
    /// # Panics
    /// When there is not one id a token.
    pub fn with_languages(mut self, languages: impl Into<Arc<[u32]>>) -> Self {
        let languages = languages.into();
        assert_eq!(languages.len(), self.ids.len(), "one language id a token");
        self.languages = Some(languages);
        self
    }

    /// The same batch with other positions, `[N]`.
    ///
    /// # Panics
    /// When there is not one position a token.
    pub fn with_positions(mut self, positions: impl Into<Arc<[u32]>>) -> Self {
        let positions = positions.into();
        assert_eq!(positions.len(), self.ids.len(), "one position a token");
        self.positions = positions;
        self
    }

    /// Number of sequences, B.
    pub fn n_sequences(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// Number of tokens, N.
    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Rows of each sequence.
    pub fn sequences(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.cu_seqlens
            .windows(2)
            .map(|w| w[0] as usize..w[1] as usize)
    }

    /// Checks ids, positions and segments against the sizes of a model's tables, so that look-ups cannot fail later.
    ///
    /// # Errors
    /// The first token that does not fit.
    pub fn validate(
        &self,
        vocab_size: usize,
        max_len: usize,
        n_segments: usize,
    ) -> Result<(), BatchError> {
        if let Some(source) = &self.source {
            source.validate(vocab_size, max_len, n_segments)?;
        }
        if self.sequences().any(|rows| rows.is_empty()) {
            return Err(BatchError::Empty);
        }
        if let Some(&id) = self.ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(BatchError::UnknownToken { id, vocab_size });
        }
        if let Some(&position) = self
            .positions
            .iter()
            .find(|position| **position as usize >= max_len)
        {
            return Err(BatchError::TooLong { position, max_len });
        }
        let mut segments = self.segments.iter().flat_map(|segments| segments.iter());
        match segments.find(|segment| **segment as usize >= n_segments) {
            Some(&segment) => Err(BatchError::UnknownSegment {
                segment,
                n_segments,
            }),
            None => Ok(()),
        }
    }

    /// Checks language ids against a table of `n_languages`.
    ///
    /// # Errors
    /// The first id that does not fit.
    pub fn validate_languages(&self, n_languages: usize) -> Result<(), BatchError> {
        let mut languages = self.languages.iter().flat_map(|languages| languages.iter());
        match languages.find(|language| **language as usize >= n_languages) {
            Some(&language) => Err(BatchError::UnknownLanguage {
                language,
                n_languages,
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_sequences_apart() {
        let batch = PackedBatch::from_sequences(&[vec![5, 6, 7], vec![8]]);
        assert_eq!(&*batch.cu_seqlens, [0, 3, 4]);
        assert_eq!(&*batch.positions, [0, 1, 2, 0]);
        assert_eq!(batch.n_sequences(), 2);
    }

    #[test]
    fn validation_names_what_does_not_fit() {
        let batch = PackedBatch::from_sequences(&[vec![1, 9]]);
        assert_eq!(
            batch.validate(9, 4, 1),
            Err(BatchError::UnknownToken {
                id: 9,
                vocab_size: 9
            })
        );
        assert_eq!(
            batch.validate(10, 1, 1),
            Err(BatchError::TooLong {
                position: 1,
                max_len: 1
            })
        );
        let with = batch.clone().with_segments([0, 2]);
        assert_eq!(
            with.validate(10, 2, 2),
            Err(BatchError::UnknownSegment {
                segment: 2,
                n_segments: 2
            })
        );
        assert_eq!(
            PackedBatch::from_sequences(&[Vec::new()]).validate(1, 1, 1),
            Err(BatchError::Empty)
        );
        assert_eq!(batch.validate(10, 2, 1), Ok(()));
        assert_eq!(batch.validate_languages(0), Ok(()));
        let spoken = batch.with_languages([0, 3]);
        assert_eq!(spoken.validate_languages(4), Ok(()));
        assert_eq!(
            spoken.validate_languages(3),
            Err(BatchError::UnknownLanguage {
                language: 3,
                n_languages: 3
            })
        );
    }
}
