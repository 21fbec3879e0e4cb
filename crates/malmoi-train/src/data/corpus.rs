//! A tokenised text, as the objectives see it.

use std::ops::Range;

use malmoi_text::TokenCorpus;

/// Tokens in documents, documents in sentences. Tokens are numbered through the whole text.
pub trait Tokens: Send + Sync {
    /// Number of tokens.
    fn n_tokens(&self) -> u64;

    /// Number of documents.
    fn n_documents(&self) -> usize;

    /// Tokens of a document.
    fn document(&self, document: usize) -> Range<u64>;

    /// Number of sentences of a document.
    fn n_sentences(&self, document: usize) -> u64;

    /// Tokens of some sentences of a document, which follow each other. The range is not empty.
    fn sentences(&self, document: usize, sentences: Range<u64>) -> Range<u64>;

    /// Appends tokens to a list.
    fn read(&self, range: Range<u64>, out: &mut Vec<u32>);
}

/// A memory-mapped corpus file.
#[derive(Debug)]
pub struct Corpus(pub TokenCorpus);

impl Tokens for Corpus {
    fn n_tokens(&self) -> u64 {
        self.0.totals().tokens
    }

    fn n_documents(&self) -> usize {
        self.0.len()
    }

    fn document(&self, document: usize) -> Range<u64> {
        self.0.document_span(document)
    }

    fn n_sentences(&self, document: usize) -> u64 {
        self.0.document_sentences(document).len() as u64
    }

    fn sentences(&self, document: usize, sentences: Range<u64>) -> Range<u64> {
        let first = self.0.document_sentences(document).start;
        let start = self.0.sentence_span(first + sentences.start as usize).start;
        let end = self.0.sentence_span(first + sentences.end as usize - 1).end;
        start..end
    }

    fn read(&self, range: Range<u64>, out: &mut Vec<u32>) {
        self.0.tokens(range).extend_into(out);
    }
}
