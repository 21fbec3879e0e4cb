//! The tokenised corpus file.
//!
//! Little-endian. A header of 64 bytes: magic `MALMOIC\0`, format version (u32), bytes per token (u32: 2 or 4), vocabulary
//! hash (u64), vocabulary size (u64), number of tokens, sentences and documents (u64 each), check sum of these 56 bytes
//! (FNV-1a, u64). Then the tokens, padded to a multiple of 8 bytes; then for every sentence where its tokens end (u64);
//! then for every document where its sentences end (u64). Documents and sentences are kept apart so that objectives can
//! choose either.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{CorpusProblem, Result, TextError};

/// Version of the format that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"MALMOIC\0";
const HEADER: usize = 64;

/// Sizes of a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CorpusTotals {
    /// Number of tokens.
    pub tokens: u64,
    /// Number of sentences.
    pub sentences: u64,
    /// Number of documents.
    pub documents: u64,
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    width: u32,
    hash: u64,
    vocab_size: u64,
    totals: CorpusTotals,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.width.to_le_bytes());
        let numbers = [
            self.hash,
            self.vocab_size,
            self.totals.tokens,
            self.totals.sentences,
            self.totals.documents,
        ];
        for (slot, number) in bytes[16..56].chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        let sum = fnv(&bytes[..56]);
        bytes[56..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CorpusProblem> {
        if bytes.len() < 8 || &bytes[..8] != MAGIC {
            return Err(CorpusProblem::NotACorpus);
        }
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Err(CorpusProblem::Size {
                expected: HEADER as u64,
                found: bytes.len() as u64,
            });
        };
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let version = u32_at(8);
        if version != FORMAT_VERSION {
            return Err(CorpusProblem::Version {
                found: version,
                expected: FORMAT_VERSION,
            });
        }
        if u64_at(56) != fnv(&header[..56]) {
            return Err(CorpusProblem::Damaged("the header's check sum is wrong"));
        }
        let header = Self {
            width: u32_at(12),
            hash: u64_at(16),
            vocab_size: u64_at(24),
            totals: CorpusTotals {
                tokens: u64_at(32),
                sentences: u64_at(40),
                documents: u64_at(48),
            },
        };
        if header.width != 2 && header.width != 4 {
            return Err(CorpusProblem::Damaged("tokens must have 2 or 4 bytes"));
        }
        Ok(header)
    }

    /// Where sentence ends and document ends begin, and the length of the file.
    fn layout(&self) -> Option<(u64, u64, u64)> {
        let tokens = self.totals.tokens.checked_mul(u64::from(self.width))?;
        let sentences = tokens
            .checked_add(HEADER as u64)?
            .checked_next_multiple_of(8)?;
        let documents = sentences.checked_add(self.totals.sentences.checked_mul(8)?)?;
        let end = documents.checked_add(self.totals.documents.checked_mul(8)?)?;
        Some((sentences, documents, end))
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Writes a tokenised corpus, streaming: memory does not grow with the corpus.
pub struct CorpusBuilder {
    target: PathBuf,
    tokens: BufWriter<temporary::Temporary>,
    sentences: BufWriter<temporary::Temporary>,
    documents: BufWriter<temporary::Temporary>,
    header: Header,
    /// Sentences that belong to finished documents.
    finished_sentences: u64,
}

impl CorpusBuilder {
    /// Starts a corpus at `path`; nothing appears there before [`CorpusBuilder::finish`]. `vocab_size` decides between 2
    /// and 4 bytes a token.
    ///
    /// # Errors
    /// [`TextError::Io`] when the folder cannot be written.
    pub fn create(path: &Path, vocab_size: usize, vocabulary_hash: u64) -> Result<Self> {
        let open = |suffix: &str| -> Result<_> {
            let mut name = path.file_name().unwrap_or_default().to_os_string();
            name.push(format!(".{}.{suffix}.tmp", std::process::id()));
            let temporary = path.with_file_name(name);
            Ok(BufWriter::with_capacity(
                1 << 20,
                temporary::Temporary::create(temporary)?,
            ))
        };
        let header = Header {
            width: if vocab_size <= 1 << 16 { 2 } else { 4 },
            hash: vocabulary_hash,
            vocab_size: vocab_size as u64,
            totals: CorpusTotals::default(),
        };
        let mut builder = Self {
            tokens: open("tokens")?,
            sentences: open("sentences")?,
            documents: open("documents")?,
            target: path.to_path_buf(),
            header,
            finished_sentences: 0,
        };
        // The place of the header; its numbers are known at the end.
        builder.write_tokens(&[0; HEADER])?;
        Ok(builder)
    }

    fn write_tokens(&mut self, bytes: &[u8]) -> Result<()> {
        self.tokens
            .write_all(bytes)
            .map_err(TextError::io(&self.target))
    }

    /// Adds a sentence to the current document. Empty ones are ignored.
    ///
    /// # Errors
    /// [`TextError::Io`]; [`TextError::BadCorpus`] for an id outside the vocabulary.
    pub fn sentence(&mut self, ids: &[u32]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        for &id in ids {
            if u64::from(id) >= self.header.vocab_size {
                return Err(TextError::BadCorpus {
                    path: self.target.clone(),
                    problem: CorpusProblem::Damaged("an id is outside the vocabulary"),
                });
            }
            if self.header.width == 2 {
                self.write_tokens(&(id as u16).to_le_bytes())?;
            } else {
                self.write_tokens(&id.to_le_bytes())?;
            }
        }
        let totals = &mut self.header.totals;
        totals.tokens += ids.len() as u64;
        totals.sentences += 1;
        let end = totals.tokens.to_le_bytes();
        self.sentences
            .write_all(&end)
            .map_err(TextError::io(&self.target))
    }

    /// Ends the current document; a document without a sentence is ignored.
    ///
    /// # Errors
    /// [`TextError::Io`].
    pub fn end_document(&mut self) -> Result<()> {
        let end = self.header.totals.sentences;
        if end == self.finished_sentences {
            return Ok(());
        }
        self.finished_sentences = end;
        self.header.totals.documents += 1;
        self.documents
            .write_all(&end.to_le_bytes())
            .map_err(TextError::io(&self.target))
    }

    /// Writes the index and the header, syncs, and gives the file its name.
    ///
    /// # Errors
    /// [`TextError::Io`]; [`TextError::EmptyCorpus`] when there is no token.
    pub fn finish(mut self) -> Result<CorpusTotals> {
        self.end_document()?;
        if self.header.totals.tokens == 0 {
            return Err(TextError::EmptyCorpus(vec![self.target]));
        }
        let io = TextError::io;
        let target = self.target.clone();
        let bytes = self.header.totals.tokens * u64::from(self.header.width);
        let padding = (8 - (bytes + HEADER as u64) % 8) % 8;
        self.write_tokens(&[0; 8][..padding as usize])?;
        for index in [&mut self.sentences, &mut self.documents] {
            index.flush().map_err(io(&target))?;
            let file = index.get_mut().file();
            file.seek(SeekFrom::Start(0)).map_err(io(&target))?;
            std::io::copy(file, &mut self.tokens).map_err(io(&target))?;
        }
        self.tokens.flush().map_err(io(&target))?;
        let header = self.header.to_bytes();
        let file = self.tokens.get_mut().file();
        file.seek(SeekFrom::Start(0)).map_err(io(&target))?;
        file.write_all(&header).map_err(io(&target))?;
        file.sync_all().map_err(io(&target))?;
        self.tokens.get_mut().rename(&target)?;
        Ok(self.header.totals)
    }
}

/// Files that disappear unless they are renamed.
mod temporary {
    use super::{File, Path, PathBuf, Result, TextError, Write};

    pub(super) struct Temporary {
        file: File,
        path: PathBuf,
        kept: bool,
    }

    impl Temporary {
        pub(super) fn create(path: PathBuf) -> Result<Self> {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)
                .map_err(TextError::io(&path))?;
            Ok(Self {
                file,
                path,
                kept: false,
            })
        }

        pub(super) fn file(&mut self) -> &mut File {
            &mut self.file
        }

        pub(super) fn rename(&mut self, target: &Path) -> Result<()> {
            std::fs::rename(&self.path, target).map_err(TextError::io(target))?;
            self.kept = true;
            Ok(())
        }
    }

    impl Write for Temporary {
        fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
            self.file.write(buffer)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            self.file.flush()
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            if !self.kept {
                // Nothing can be done about a file that cannot be removed.
                let _ = std::fs::remove_file(&self.path);
            }
        }
    }
}

/// A tokenised corpus, memory-mapped: opening it is quick, and only what is read is loaded.
pub struct TokenCorpus {
    map: crate::map::Map,
    header: Header,
    sentences: u64,
    documents: u64,
}

impl std::fmt::Debug for TokenCorpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCorpus")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl TokenCorpus {
    /// Opens a corpus. With `vocabulary_hash` it must have been made with that vocabulary.
    ///
    /// The header, the size of the file and the whole index are checked; the tokens are not read (see
    /// [`TokenCorpus::check_tokens`]). The file must not be changed while it is open.
    ///
    /// # Errors
    /// [`TextError::BadCorpus`] says what is wrong; [`TextError::Io`].
    pub fn open(path: &Path, vocabulary_hash: Option<u64>) -> Result<Self> {
        let map = crate::map::Map::open(path)?;
        let bad = |problem| TextError::BadCorpus {
            path: path.to_path_buf(),
            problem,
        };
        let header = Header::from_bytes(map.bytes()).map_err(bad)?;
        let found = map.bytes().len() as u64;
        let (sentences, documents, end) = header.layout().ok_or_else(|| {
            bad(CorpusProblem::Damaged(
                "the header's numbers are impossible",
            ))
        })?;
        if end != found {
            return Err(bad(CorpusProblem::Size {
                expected: end,
                found,
            }));
        }
        if let Some(expected) = vocabulary_hash
            && expected != header.hash
        {
            return Err(bad(CorpusProblem::Vocabulary {
                found: header.hash,
                expected,
            }));
        }
        let corpus = Self {
            map,
            header,
            sentences,
            documents,
        };
        corpus.check_index().map_err(bad)?;
        Ok(corpus)
    }

    /// Ends must ascend and reach exactly what they index.
    fn check_index(&self) -> Result<(), CorpusProblem> {
        let totals = self.header.totals;
        for (start, count, total) in [
            (self.sentences, totals.sentences, totals.tokens),
            (self.documents, totals.documents, totals.sentences),
        ] {
            let mut previous = 0;
            for index in 0..count {
                let end = self.u64_at(start + 8 * index);
                if end <= previous {
                    return Err(CorpusProblem::Damaged("the index does not ascend"));
                }
                previous = end;
            }
            if previous != total {
                return Err(CorpusProblem::Damaged(
                    "the index does not cover the tokens",
                ));
            }
        }
        Ok(())
    }

    /// Reads every token and checks that it is in the vocabulary.
    ///
    /// # Errors
    /// [`CorpusProblem::Damaged`].
    pub fn check_tokens(&self) -> Result<(), CorpusProblem> {
        let size = self.header.vocab_size;
        if self
            .tokens(0..self.header.totals.tokens)
            .iter()
            .all(|id| u64::from(id) < size)
        {
            Ok(())
        } else {
            Err(CorpusProblem::Damaged("an id is outside the vocabulary"))
        }
    }

    /// Sizes.
    pub fn totals(&self) -> CorpusTotals {
        self.header.totals
    }

    /// Hash of the vocabulary it was made with.
    pub fn vocabulary_hash(&self) -> u64 {
        self.header.hash
    }

    /// Size of that vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.header.vocab_size as usize
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.header.totals.documents as usize
    }

    /// True without a document; files that [`CorpusBuilder`] writes never are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn u64_at(&self, at: u64) -> u64 {
        let at = at as usize;
        let bytes = self.map.bytes();
        bytes
            .get(at..at + 8)
            .and_then(|slice| slice.first_chunk())
            .map_or(0, |chunk| u64::from_le_bytes(*chunk))
    }

    /// Element `index` of an index that begins at `start`, with 0 before the first.
    fn bound(&self, start: u64, index: u64) -> u64 {
        if index == 0 {
            0
        } else {
            self.u64_at(start + 8 * (index - 1))
        }
    }

    /// Indices, in the whole corpus, of the sentences of a document.
    ///
    /// # Panics
    /// When there is no such document.
    pub fn document_sentences(&self, document: usize) -> std::ops::Range<usize> {
        assert!(
            document < self.len(),
            "document {document} of {}",
            self.len()
        );
        let document = document as u64;
        let start = self.bound(self.documents, document);
        let end = self.bound(self.documents, document + 1);
        start as usize..end as usize
    }

    /// Positions, in the whole corpus, of the tokens of a sentence (numbered in the whole corpus).
    ///
    /// # Panics
    /// When there is no such sentence.
    pub fn sentence_span(&self, sentence: usize) -> std::ops::Range<u64> {
        let count = self.header.totals.sentences;
        assert!((sentence as u64) < count, "sentence {sentence} of {count}");
        let sentence = sentence as u64;
        self.bound(self.sentences, sentence)..self.bound(self.sentences, sentence + 1)
    }

    /// Positions, in the whole corpus, of the tokens of a document.
    ///
    /// # Panics
    /// When there is no such document.
    pub fn document_span(&self, document: usize) -> std::ops::Range<u64> {
        let sentences = self.document_sentences(document);
        self.bound(self.sentences, sentences.start as u64)
            ..self.bound(self.sentences, sentences.end as u64)
    }

    /// The tokens of a document.
    ///
    /// # Panics
    /// When there is no such document.
    pub fn document(&self, document: usize) -> Tokens<'_> {
        self.tokens(self.document_span(document))
    }

    /// The tokens of a sentence (numbered in the whole corpus; see [`TokenCorpus::document_sentences`]).
    ///
    /// # Panics
    /// When there is no such sentence.
    pub fn sentence(&self, sentence: usize) -> Tokens<'_> {
        self.tokens(self.sentence_span(sentence))
    }

    /// The tokens at positions of the whole corpus, across documents.
    ///
    /// # Panics
    /// When the range does not lie inside the corpus.
    pub fn tokens(&self, span: std::ops::Range<u64>) -> Tokens<'_> {
        let total = self.header.totals.tokens;
        assert!(
            span.start <= span.end && span.end <= total,
            "tokens {span:?} of {total}"
        );
        let width = self.header.width as usize;
        let start = HEADER + span.start as usize * width;
        let end = HEADER + span.end as usize * width;
        let bytes = &self.map.bytes()[start..end];
        match width {
            2 => Tokens::U16(bytes.as_chunks().0),
            _ => Tokens::U32(bytes.as_chunks().0),
        }
    }
}

/// Tokens inside a mapped file.
#[derive(Debug, Clone, Copy)]
pub enum Tokens<'a> {
    /// Two bytes a token.
    U16(&'a [[u8; 2]]),
    /// Four bytes a token.
    U32(&'a [[u8; 4]]),
}

impl<'a> Tokens<'a> {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        match self {
            Self::U16(tokens) => tokens.len(),
            Self::U32(tokens) => tokens.len(),
        }
    }

    /// True without a token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Token `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<u32> {
        match self {
            Self::U16(tokens) => tokens.get(index).map(|t| u32::from(u16::from_le_bytes(*t))),
            Self::U32(tokens) => tokens.get(index).map(|t| u32::from_le_bytes(*t)),
        }
    }

    /// The tokens in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        (0..self.len()).map(move |index| self.get(index).unwrap_or(0))
    }

    /// Appends the tokens to a list.
    pub fn extend_into(&self, out: &mut Vec<u32>) {
        match self {
            Self::U16(tokens) => {
                out.extend(tokens.iter().map(|t| u32::from(u16::from_le_bytes(*t))));
            }
            Self::U32(tokens) => out.extend(tokens.iter().map(|t| u32::from_le_bytes(*t))),
        }
    }

    /// The tokens as a list.
    pub fn to_vec(&self) -> Vec<u32> {
        let mut out = Vec::with_capacity(self.len());
        self.extend_into(&mut out);
        out
    }
}
