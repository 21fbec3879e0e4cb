//! Text files as a stream of documents, in constant memory.

use std::path::PathBuf;

use super::lines::{LineReader, ReadOptions};
use super::rows::{RowFormat, RowOptions, RowReader};
use crate::error::{Result, TextError};

/// What separates documents in plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DocumentMode {
    /// Empty lines if the first 1,000 lines of the file have one, else one document a line. What was chosen can be asked
    /// with [`Documents::mode`].
    #[default]
    Auto,
    /// Each line is a document.
    Lines,
    /// Documents are separated by empty lines; their lines are sentences.
    Paragraphs,
    /// The whole file is one document, line breaks included. It comes in pieces of about 64 KiB, cut at line ends.
    File,
}

/// How a corpus is read.
#[derive(Debug, Clone, Default)]
pub struct CorpusOptions {
    /// What separates documents in plain text.
    pub mode: DocumentMode,
    /// For `.jsonl`, `.tsv` and `.csv` files: the field or column that holds the text (`text` when `None`). Each row is a
    /// document.
    pub field: Option<String>,
    /// Split each line into sentences at `.`, `!`, `?`, `…` and `。` followed by white space.
    pub split_sentences: bool,
    /// Encoding and bounds.
    pub read: ReadOptions,
}

/// One document, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// The sentences (lines) in order; none is empty.
    pub sentences: Vec<String>,
    /// True when this piece goes on from the previous one (only in [`DocumentMode::File`]).
    pub continues: bool,
}

/// Pieces of a whole-file document have about this many bytes.
const PIECE: usize = 64 << 10;
/// Lines looked at to find out whether empty lines separate documents.
const DETECT_LINES: usize = 1_000;

/// Streams the documents of several files. Files that hold no text are skipped; a corpus without any document is the
/// error [`TextError::EmptyCorpus`].
pub fn documents(paths: &[PathBuf], options: &CorpusOptions) -> Documents {
    Documents {
        paths: paths.to_vec(),
        next: 0,
        options: options.clone(),
        current: None,
        any: false,
        done: false,
        chosen: None,
    }
}

/// Iterator over documents; made by [`documents`]. It ends after the first error.
pub struct Documents {
    paths: Vec<PathBuf>,
    next: usize,
    options: CorpusOptions,
    current: Option<Source>,
    any: bool,
    done: bool,
    chosen: Option<DocumentMode>,
}

enum Source {
    Text {
        lines: LineReader,
        mode: DocumentMode,
        continues: bool,
    },
    Rows(RowReader, String),
}

impl Documents {
    /// How documents are separated in the plain-text file being read; `None` before the first and for tables.
    pub fn mode(&self) -> Option<DocumentMode> {
        self.chosen
    }

    fn open_next(&mut self) -> Result<bool> {
        let Some(path) = self.paths.get(self.next) else {
            return Ok(false);
        };
        self.next += 1;
        self.current = Some(if let Some(format) = RowFormat::of(path) {
            let field = self.options.field.clone().unwrap_or_else(|| "text".into());
            let options = RowOptions {
                format: Some(format),
                columns: vec![field.clone()],
                read: self.options.read.clone(),
            };
            Source::Rows(RowReader::open(path, &options)?, field)
        } else {
            let mode = match self.options.mode {
                DocumentMode::Auto => {
                    let mut lines = LineReader::open(path, &self.options.read)?;
                    let mut seen_text = false;
                    let mut mode = DocumentMode::Lines;
                    for _ in 0..DETECT_LINES {
                        match lines.next_line()? {
                            // Only an empty line between two texts separates.
                            Some(line) if line.trim().is_empty() => {
                                if seen_text && mode == DocumentMode::Lines {
                                    mode = DocumentMode::Auto;
                                }
                            }
                            Some(_) if mode == DocumentMode::Auto => {
                                mode = DocumentMode::Paragraphs;
                                break;
                            }
                            Some(_) => seen_text = true,
                            None => break,
                        }
                    }
                    if mode == DocumentMode::Paragraphs {
                        mode
                    } else {
                        DocumentMode::Lines
                    }
                }
                mode => mode,
            };
            self.chosen = Some(mode);
            let lines = LineReader::open(path, &self.options.read)?;
            Source::Text {
                lines: if mode == DocumentMode::File {
                    lines.keeping_ends()
                } else {
                    lines
                },
                mode,
                continues: false,
            }
        });
        Ok(true)
    }

    fn advance(&mut self) -> Result<Option<Document>> {
        loop {
            if self.current.is_none() && !self.open_next()? {
                if self.any {
                    return Ok(None);
                }
                return Err(TextError::EmptyCorpus(self.paths.clone()));
            }
            let split = self.options.split_sentences;
            let found = match &mut self.current {
                Some(Source::Text {
                    lines,
                    mode,
                    continues,
                }) => next_text(lines, *mode, continues, split)?,
                Some(Source::Rows(rows, field)) => next_row(rows, field, split)?,
                None => None,
            };
            match found {
                Some(document) => {
                    self.any = true;
                    return Ok(Some(document));
                }
                None => self.current = None,
            }
        }
    }
}

impl Iterator for Documents {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.advance() {
            Ok(Some(document)) => Some(Ok(document)),
            Ok(None) => {
                self.done = true;
                None
            }
            Err(error) => {
                self.done = true;
                Some(Err(error))
            }
        }
    }
}

fn next_text(
    lines: &mut LineReader,
    mode: DocumentMode,
    continues: &mut bool,
    split: bool,
) -> Result<Option<Document>> {
    let mut document = Document::default();
    if mode == DocumentMode::File {
        let mut piece = String::new();
        while piece.len() < PIECE {
            match lines.next_line()? {
                Some(line) => piece.push_str(line),
                None => break,
            }
        }
        if piece.is_empty() {
            return Ok(None);
        }
        document.sentences.push(piece);
        document.continues = std::mem::replace(continues, true);
        return Ok(Some(document));
    }
    while let Some(line) = lines.next_line()? {
        let line = line.trim();
        if line.is_empty() {
            if document.sentences.is_empty() {
                continue;
            }
            break;
        }
        push_sentences(line, split, &mut document.sentences);
        if mode == DocumentMode::Lines {
            break;
        }
    }
    Ok((!document.sentences.is_empty()).then_some(document))
}

fn next_row(rows: &mut RowReader, field: &str, split: bool) -> Result<Option<Document>> {
    while let Some(row) = rows.next_row()? {
        let mut document = Document::default();
        for line in row.get(field).unwrap_or("").lines() {
            let line = line.trim();
            if !line.is_empty() {
                push_sentences(line, split, &mut document.sentences);
            }
        }
        if !document.sentences.is_empty() {
            return Ok(Some(document));
        }
    }
    Ok(None)
}

fn push_sentences(line: &str, split: bool, sentences: &mut Vec<String>) {
    if !split {
        sentences.push(line.to_owned());
        return;
    }
    let mut start = 0;
    let mut after_end = false;
    for (at, c) in line.char_indices() {
        if c.is_whitespace() {
            if after_end {
                sentences.push(line[start..at].to_owned());
                start = at + c.len_utf8();
            }
            after_end = false;
        } else if at >= start {
            after_end = matches!(c, '.' | '!' | '?' | '…' | '。')
                || (after_end && matches!(c, '"' | '\'' | ')' | '”' | '’'));
        }
    }
    let rest = line[start..].trim();
    if !rest.is_empty() {
        sentences.push(rest.to_owned());
    }
}
