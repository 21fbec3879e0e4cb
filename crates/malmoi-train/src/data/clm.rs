//! Examples of causal language modelling.

use std::sync::Arc;

use malmoi_kernels::random::Purpose;

use super::order::EpochOrder;
use super::{Draws, Example, Examples, Tokens};
use crate::config::ClmSampling;
use crate::error::TrainError;

/// Cuts sequences of `context` tokens, and the token after each, out of the joined documents.
///
/// The stream is every document with the separator after it. A separator that is read begins the next document: it is the
/// last thing the document before predicts and the first thing the next one sees.
pub struct ClmData {
    tokens: Arc<dyn Tokens>,
    context: usize,
    separator: Option<u32>,
    reset_positions: bool,
    cross_document_attention: bool,
    sampling: ClmSampling,
    order: EpochOrder,
}

/// How documents meet inside a sequence, and how sequences are drawn.
#[derive(Debug, Clone, Copy)]
pub struct ClmOptions {
    /// Tokens of a sequence.
    pub context: usize,
    /// The token after each document.
    pub separator: Option<u32>,
    /// Count positions from 0 in every document.
    pub reset_positions: bool,
    /// Let tokens attend to earlier documents of the sequence.
    pub cross_document_attention: bool,
    /// How sequences are cut.
    pub sampling: ClmSampling,
}

impl ClmData {
    /// Examples of a tokenised corpus. `name` stands in messages.
    ///
    /// # Errors
    /// [`TrainError::Corpus`] when there are fewer than two tokens.
    pub fn new(
        tokens: Arc<dyn Tokens>,
        name: &str,
        options: ClmOptions,
    ) -> Result<Self, TrainError> {
        let ClmOptions {
            context,
            separator,
            reset_positions,
            cross_document_attention,
            sampling,
        } = options;
        let mut data = Self {
            tokens,
            context,
            separator,
            reset_positions,
            cross_document_attention,
            sampling,
            order: EpochOrder::new(1),
        };
        let length = data.stream_len();
        if length < 2 {
            return Err(TrainError::Corpus {
                corpus: name.to_string(),
                problem: format!(
                    "{length} tokens, expected at least 2 to predict one from another; add text"
                ),
            });
        }
        // A corpus shorter than the context gives shorter sequences.
        data.context = context.min((length - 1) as usize);
        let blocks = data.blocks();
        if blocks > u64::from(u32::MAX) {
            return Err(TrainError::Corpus {
                corpus: name.to_string(),
                problem: format!(
                    "{blocks} sequences, expected at most {}; raise objective.context or split the corpus",
                    u32::MAX
                ),
            });
        }
        data.order = EpochOrder::new(blocks as usize);
        Ok(data)
    }

    /// Tokens of all documents with their separators.
    fn stream_len(&self) -> u64 {
        self.tokens.n_tokens() + self.separators(self.tokens.n_documents())
    }

    /// Separators after the first `documents` documents.
    fn separators(&self, documents: usize) -> u64 {
        self.separator.map_or(0, |_| documents as u64)
    }

    /// Complete blocks that do not overlap.
    fn blocks(&self) -> u64 {
        (self.stream_len() - 1) / self.context as u64
    }

    /// Place in the stream where a document begins.
    fn document_start(&self, document: usize) -> u64 {
        self.tokens.document(document).start + self.separators(document)
    }

    /// The `context` tokens from `start` on and what each predicts.
    fn window(&self, start: u64) -> Example {
        let wanted = self.context + 1;
        let mut stream = Vec::with_capacity(wanted);
        // Places (of this window) at which another document begins.
        let mut borders = Vec::new();
        let n_documents = self.tokens.n_documents();
        let mut document = last_at_most(n_documents, start, |d| self.document_start(d));
        let mut at = start;
        while stream.len() < wanted && document < n_documents {
            let range = self.tokens.document(document);
            let first = self.document_start(document);
            if self.separator.is_none() && at == first && !range.is_empty() && !stream.is_empty() {
                borders.push(stream.len());
            }
            let end = first + (range.end - range.start);
            if at < end {
                let from = range.start + (at - first);
                let until = range.end.min(from + (wanted - stream.len()) as u64);
                self.tokens.read(from..until, &mut stream);
                at += until - from;
            }
            if at == end
                && stream.len() < wanted
                && let Some(separator) = self.separator
            {
                borders.push(stream.len());
                stream.push(separator);
                at += 1;
            }
            if at >= end + self.separators(1) {
                document += 1;
            }
        }
        self.example(&stream, borders)
    }

    fn example(&self, stream: &[u32], mut borders: Vec<usize>) -> Example {
        let n = stream.len().saturating_sub(1);
        borders.retain(|&border| border > 0);
        // Without a separator nothing in a document says what the next one begins with.
        let hidden = |place: usize| {
            self.separator.is_none()
                && !self.cross_document_attention
                && borders.contains(&(place + 1))
        };
        let targets = (0..n)
            .filter(|&place| !hidden(place))
            .map(|place| (place, stream[place + 1]))
            .collect();
        borders.retain(|&border| border < n);
        let mut positions: Vec<u32> = (0..n as u32).collect();
        if self.reset_positions {
            let mut from = 0;
            let mut next = borders.iter().peekable();
            for (place, position) in positions.iter_mut().enumerate() {
                if next.next_if_eq(&&place).is_some() {
                    from = place;
                }
                *position = (place - from) as u32;
            }
        }
        let mut starts = vec![0];
        if !self.cross_document_attention {
            starts.extend(borders);
        }
        Example {
            ids: stream[..n].to_vec(),
            starts,
            positions,
            targets,
            ..Example::default()
        }
    }
}

/// The last of `0..n` whose `start` is at most `at`; 0 when there is none. `start` rises.
fn last_at_most(n: usize, at: u64, start: impl Fn(usize) -> u64) -> usize {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low + (high - low) / 2;
        if start(middle) <= at {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low.saturating_sub(1)
}

impl Examples for ClmData {
    fn per_epoch(&self) -> u64 {
        self.blocks()
    }

    fn mean_tokens(&self) -> f64 {
        self.context as f64
    }

    fn training(&self, seed: u64, n: u64) -> Result<Example, TrainError> {
        let spare = self.stream_len() - 1 - self.context as u64;
        let start = match self.sampling {
            ClmSampling::RandomWindow => Draws::Training(seed)
                .key(Purpose::Shuffle, n)
                .below_at(0, spare + 1),
            ClmSampling::Packed => {
                let (epoch, block) = self.order.place(seed, n);
                // What is left over at the end moves the blocks by a few tokens, differently in every epoch.
                let slack = (self.stream_len() - 1) % self.context as u64;
                let offset = Draws::Training(seed)
                    .key(Purpose::Other(2), epoch)
                    .below_at(0, slack + 1);
                offset + block as u64 * self.context as u64
            }
        };
        Ok(self.window(start))
    }

    fn evaluation_count(&self) -> u64 {
        self.blocks()
    }

    fn evaluation(&self, n: u64) -> Result<Example, TrainError> {
        Ok(self.window(n * self.context as u64))
    }
}
