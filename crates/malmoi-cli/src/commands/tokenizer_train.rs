//! `malmoi tokenizer train`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use malmoi_text::{Algorithm, CorpusOptions, HangulSafe, ReadOptions, TrainOptions, train};
use serde_json::json;

use crate::arguments::Global;
use crate::failure::{Failure, Result};
use crate::{output, progress};

/// Train a tokenizer on text files
#[derive(Args, Debug)]
#[command(
    after_help = "Files may be larger than memory, and .gz or .zst. The vocabulary is the same for any number of threads.\nPython's AutoTokenizer loads the result.\n\nExample:\n  \
                  malmoi tokenizer train --kind wordpiece --vocab-size 8000 --out my-tokenizer data/ko_corpus_reviews/train.txt.gz"
)]
pub struct Train {
    /// Text files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Algorithm
    #[arg(long, value_enum)]
    kind: Kind,
    /// Tokens, special ones included
    #[arg(long, value_name = "N", default_value_t = 8000)]
    vocab_size: usize,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Least count of a pair or character
    #[arg(long, value_name = "N", default_value_t = 2)]
    min_frequency: u64,
    /// Lower-case the text first
    #[arg(long)]
    lowercase: bool,
    /// Drop accents (é becomes e); Hangul stays whole
    #[arg(long)]
    strip_accents: bool,
    /// Another special token; may be given several times
    #[arg(long, value_name = "TOKEN")]
    special: Vec<String>,
    /// Memory for word counts, in MiB
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    memory: u64,
    /// .tsv, .csv, .jsonl: column or field of the text
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Encoding of the files (utf-8, cp949 …)
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// Replace tokenizer files that are there
    #[arg(long)]
    overwrite: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Kind {
    /// BERT's: [CLS] text [SEP]
    Wordpiece,
    /// GPT-2's, over bytes
    Bpe,
    /// T5's
    Unigram,
    /// One token a character
    Char,
}

impl Train {
    fn options(&self) -> TrainOptions {
        let algorithm = match self.kind {
            Kind::Wordpiece => Algorithm::WordPiece,
            Kind::Bpe => Algorithm::Bpe,
            Kind::Unigram => Algorithm::Unigram,
            Kind::Char => Algorithm::Char,
        };
        let normalizer = (self.lowercase || self.strip_accents).then(|| HangulSafe {
            lowercase: self.lowercase,
            strip_accents: self.strip_accents,
            split_chinese: algorithm == Algorithm::WordPiece,
            ..HangulSafe::default()
        });
        TrainOptions {
            min_frequency: self.min_frequency,
            extra_special: self.special.clone(),
            normalizer,
            memory: usize::try_from(self.memory << 20).unwrap_or(usize::MAX),
            ..TrainOptions::new(algorithm, self.vocab_size)
        }
    }

    pub fn run(self, global: &Global) -> Result<()> {
        if !self.overwrite && self.out.join("tokenizer.json").exists() {
            return Err(Failure::input(format!(
                "{} already holds a tokenizer: choose another --out, or pass --overwrite",
                self.out.display()
            )));
        }
        let read = ReadOptions {
            encoding: self.encoding.clone(),
            ..ReadOptions::default()
        };
        let corpus = CorpusOptions {
            field: self.column.clone(),
            read,
            ..CorpusOptions::default()
        };
        let bar = progress::spinner(global.quiet, "reading");
        let trained = train(&self.files, &corpus, &self.options(), &mut |p| {
            bar.set_message(match p.total {
                Some(total) => format!(
                    "{}: {} of {}",
                    p.stage,
                    output::thousands(p.done as usize),
                    output::thousands(total as usize)
                ),
                None => format!("{}: {}", p.stage, output::thousands(p.done as usize)),
            });
        })?;
        bar.finish_and_clear();
        std::fs::create_dir_all(&self.out).map_err(|error| Failure::io(&self.out, &error))?;
        trained.tokenizer.save(&self.out, None)?;
        let report = &trained.report;
        if report.counts.dropped > 0 {
            progress::remark(
                global.quiet,
                format!(
                    "note: {} words seen at most {} times were left out to stay within --memory",
                    output::thousands(report.counts.dropped as usize),
                    report.counts.dropped_up_to
                ),
            );
        }
        if self.json {
            return output::json(
                &json!({ "out": self.out, "kind": trained.tokenizer.kind(), "report": report }),
            );
        }
        output::line(format!(
            "{}: {} with {} tokens; {} of {} characters known, {:.3} % of the text",
            self.out.display(),
            trained.tokenizer.kind(),
            output::thousands(report.vocab_size),
            output::thousands(report.alphabet),
            output::thousands(report.characters),
            100.0 * report.coverage
        ))
    }
}
