//! From text files to a tokenised corpus file.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::documents::{CorpusOptions, Document, documents};
use super::token_file::{CorpusBuilder, CorpusTotals};
use crate::Progress;
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// How a corpus is tokenised.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// How the text is read.
    pub corpus: CorpusOptions,
    /// For generation models: each sentence but the last of a document ends with a line feed, so that the model sees the
    /// lines. Without it sentences are encoded as they are.
    pub keep_line_breaks: bool,
}

/// Documents encoded at once; large enough to keep every core busy, small enough for constant memory.
const BATCH: usize = 1_024;

/// Tokenises text files into one corpus file, sentence by sentence, without special tokens. The file does not depend on
/// the number of threads.
///
/// # Errors
/// The errors of reading, encoding and writing; [`TextError::EmptyCorpus`](crate::TextError::EmptyCorpus) when no text is
/// found. On an error nothing is left at `target`.
pub fn build_token_corpus(
    paths: &[PathBuf],
    target: &Path,
    tokenizer: &Tokenizer,
    options: &BuildOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<CorpusTotals> {
    let mut builder =
        CorpusBuilder::create(target, tokenizer.vocab_size(), tokenizer.vocabulary_hash())?;
    let mut source = documents(paths, &options.corpus);
    let mut done = 0;
    let mut first = true;
    loop {
        let batch: Vec<Document> = source.by_ref().take(BATCH).collect::<Result<_>>()?;
        if batch.is_empty() {
            break;
        }
        let encoded: Vec<Result<Vec<Vec<u32>>>> = batch
            .par_iter()
            .map(|document| encode_document(tokenizer, document, options.keep_line_breaks))
            .collect();
        for (document, sentences) in batch.iter().zip(encoded) {
            if !document.continues && !first {
                builder.end_document()?;
            }
            first = false;
            for ids in sentences? {
                builder.sentence(&ids)?;
            }
        }
        done += batch.len() as u64;
        progress(Progress {
            stage: "tokenise documents",
            done,
            total: None,
        });
    }
    builder.finish()
}

fn encode_document(
    tokenizer: &Tokenizer,
    document: &Document,
    keep_line_breaks: bool,
) -> Result<Vec<Vec<u32>>> {
    let last = document.sentences.len() - 1;
    document
        .sentences
        .iter()
        .enumerate()
        .map(|(index, sentence)| {
            if keep_line_breaks && index < last {
                tokenizer.encode_ids(&format!("{sentence}\n"), false)
            } else {
                tokenizer.encode_ids(sentence, false)
            }
        })
        .collect()
}
