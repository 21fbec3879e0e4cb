//! The files of a run as tokenised corpora, made once and kept in its directory.

use std::fs;
use std::path::{Path, PathBuf};

use malmoi_text::{
    BuildOptions, CorpusBuilder, CorpusOptions, DocumentMode, ReadOptions, RowOptions, RowReader,
    TextError, TokenCorpus, Tokenizer, build_token_corpus, documents,
};

use super::setup;
use crate::config::{Documents, Objective, PretrainConfig};
use crate::data::Corpus;
use crate::error::TrainError;
use crate::files::checksum;
use crate::training::{Event, Observer};

/// Directory of tokenised text in a run directory.
const CORPUS: &str = "corpus";

/// What a corpus is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Train,
    Valid,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
        }
    }

    /// How it is called in messages.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Train => "the training text",
            Self::Valid => "the validation text",
        }
    }
}

/// Files that make one corpus, and how they are read.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) files: Vec<PathBuf>,
    reading: Reading,
}

#[derive(Debug, Clone)]
enum Reading {
    /// Documents of sentences.
    Text(BuildOptions),
    /// Rows of two texts, the first behind a prefix.
    Rows {
        columns: [String; 2],
        prefix: String,
        options: RowOptions,
    },
}

/// The corpora that an objective reads; for validation, none where the configuration names no files.
pub(super) fn sources(config: &PretrainConfig, role: Role) -> Vec<Source> {
    let data = &config.data;
    let list = match role {
        Role::Train => Some(&data.train),
        Role::Valid => data.valid.as_ref(),
    };
    let read = ReadOptions {
        encoding: Some(data.encoding.clone()),
        ..ReadOptions::default()
    };
    let rows = |columns: [&String; 2], prefix: &str| Reading::Rows {
        columns: columns.map(Clone::clone),
        prefix: prefix.to_owned(),
        options: RowOptions {
            columns: columns.map(Clone::clone).to_vec(),
            read: read.clone(),
            ..RowOptions::default()
        },
    };
    let text = || {
        Reading::Text(BuildOptions {
            corpus: CorpusOptions {
                mode: match data.documents {
                    Documents::Auto => DocumentMode::Auto,
                    Documents::Line => DocumentMode::Lines,
                    Documents::BlankLine => DocumentMode::Paragraphs,
                    Documents::File => DocumentMode::File,
                },
                field: data.column.clone(),
                split_sentences: data.split_sentences,
                read: read.clone(),
            },
            keep_line_breaks: matches!(config.objective, Objective::Clm(_)),
        })
    };
    let mut sources: Vec<Source> = list
        .map(|list| Source {
            files: setup::files(data, list),
            reading: match &config.objective {
                Objective::Tlm(tlm) => rows(tlm.columns.each_ref(), ""),
                Objective::Text2text(task) => {
                    rows([&task.source_column, &task.target_column], &task.prefix)
                }
                _ => text(),
            },
        })
        .into_iter()
        .collect();
    if let Objective::SpanCorruption(spans) = &config.objective {
        for task in &spans.tasks {
            let list = match role {
                Role::Train => Some(&task.train),
                Role::Valid => task.valid.as_ref(),
            };
            sources.extend(list.map(|list| Source {
                files: setup::files(data, list),
                reading: rows([&task.source_column, &task.target_column], &task.prefix),
            }));
        }
    }
    sources
}

impl Source {
    /// The options of plain text, which the tokenizer of characters wants to read as whole files.
    pub(super) fn with_whole_files(mut self) -> Self {
        if let Reading::Text(options) = &mut self.reading {
            options.corpus.mode = DocumentMode::File;
        }
        self
    }

    /// All texts, to train a tokenizer on.
    pub(super) fn texts(&self) -> Box<dyn Iterator<Item = Result<String, TextError>> + '_> {
        match &self.reading {
            Reading::Text(options) => Box::new(documents(&self.files, &options.corpus).flat_map(
                |document| match document {
                    Ok(document) => document.sentences.into_iter().map(Ok).collect::<Vec<_>>(),
                    Err(error) => vec![Err(error)],
                },
            )),
            Reading::Rows {
                columns,
                prefix,
                options,
            } => Box::new(self.files.iter().flat_map(move |file| {
                rows_of(file, columns, prefix, options).flat_map(|row| match row {
                    Ok(texts) => texts.into_iter().map(Ok).collect::<Vec<_>>(),
                    Err(error) => vec![Err(error)],
                })
            })),
        }
    }

    /// What tells two readings of the same files apart, for the name of the corpus.
    fn tag(&self) -> String {
        match &self.reading {
            Reading::Text(_) => String::new(),
            Reading::Rows {
                columns, prefix, ..
            } => {
                let text = format!("{}\t{}\t{prefix}", columns[0], columns[1]);
                format!("-{:08x}", crc32c::crc32c(text.as_bytes()))
            }
        }
    }
}

/// The two texts of every row of a table.
fn rows_of<'a>(
    file: &Path,
    columns: &'a [String; 2],
    prefix: &'a str,
    options: &RowOptions,
) -> Box<dyn Iterator<Item = Result<[String; 2], TextError>> + 'a> {
    let reader = match RowReader::open(file, options) {
        Ok(reader) => reader,
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    Box::new(reader.map(move |row| {
        let row = row?;
        let [first, second] = columns.each_ref().map(|c| row.get(c).unwrap_or_default());
        Ok([format!("{prefix}{first}"), second.to_owned()])
    }))
}

/// The tokenised corpus of a source and the name it is known by. It is made once; its file name holds checksums of the text, of how it
/// is read and of the vocabulary, so that other text is never taken for it.
pub(super) fn build(
    role: Role,
    number: usize,
    source: &Source,
    tokenizer: &Tokenizer,
    out: &Path,
    observer: &mut dyn Observer,
) -> Result<(Corpus, String), TrainError> {
    let name = format!("{}{}", checksum(&source.files)?, source.tag());
    let dir = out.join(CORPUS);
    fs::create_dir_all(&dir).map_err(|e| TrainError::io("create", &dir, e))?;
    let hash = tokenizer.vocabulary_hash();
    let number = if number == 0 {
        String::new()
    } else {
        format!("-{number}")
    };
    let path = dir.join(format!("{}{number}-{name}-{hash:016x}.tokens", role.word()));
    if !path.is_file() {
        let names: Vec<String> = source
            .files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        observer.event(&Event::Preparing(&format!(
            "tokenizing {}",
            names.join(", ")
        )));
        match &source.reading {
            Reading::Text(options) => {
                build_token_corpus(&source.files, &path, tokenizer, options, &mut |_| ())?;
            }
            Reading::Rows {
                columns,
                prefix,
                options,
            } => {
                let mut builder = CorpusBuilder::create(&path, tokenizer.vocab_size(), hash)?;
                for file in &source.files {
                    for row in rows_of(file, columns, prefix, options) {
                        for text in row? {
                            builder.sentence(&tokenizer.encode_ids(&text, false)?)?;
                        }
                        builder.end_document()?;
                    }
                }
                builder.finish()?;
            }
        }
    }
    Ok((Corpus(TokenCorpus::open(&path, Some(hash))?), name))
}
