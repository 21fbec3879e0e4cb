//! `malmoi tokenizer inspect`: the Hangul doctor.

use std::path::PathBuf;

use clap::Args;
use malmoi_text::{
    CorpusOptions, DocumentMode, InspectReport, ReadOptions, Tokenizer, documents, inspect,
};

use crate::arguments::Global;
use crate::failure::Result;
use crate::{output, progress};

/// Measure how well a tokenizer fits a text (Hangul doctor)
#[derive(Args, Debug)]
#[command(
    after_help = "Unknown rate, decomposed Hangul, tokens an eojeol and a character, the words that cost most, and what to change.\n\nExample:\n  \
                  malmoi tokenizer inspect --tokenizer malmoi-quickstart/bert data/ko_corpus_reviews/valid.txt.gz"
)]
pub struct Inspect {
    /// Text files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Folder (or file) of the tokenizer
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// Words to list
    #[arg(long, value_name = "N", default_value_t = 10)]
    words: usize,
    /// .tsv, .csv, .jsonl: column or field of the text
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Encoding of the files (utf-8, cp949 …)
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn run(self, global: &Global) -> Result<()> {
        let tokenizer = Tokenizer::load(&self.tokenizer)?;
        let read = ReadOptions {
            encoding: self.encoding.clone(),
            ..ReadOptions::default()
        };
        let options = CorpusOptions {
            mode: DocumentMode::Lines,
            field: self.column.clone(),
            read,
            ..CorpusOptions::default()
        };
        let bar = progress::spinner(global.quiet, "reading");
        let mut read = 0usize;
        let lines = documents(&self.files, &options).flat_map(|document| match document {
            Ok(document) => document.sentences.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        });
        let counted = lines.inspect(|_| {
            read += 1;
            if read.is_multiple_of(1000) {
                bar.set_message(format!("{} lines", output::thousands(read)));
            }
        });
        let mut report = inspect(&tokenizer, counted)?;
        report.worst_words.truncate(self.words);
        bar.finish_and_clear();
        if self.json {
            output::json(&report)
        } else {
            print(&tokenizer, &report)
        }
    }
}

fn print(tokenizer: &Tokenizer, report: &InspectReport) -> Result<()> {
    let count = |n: u64| output::thousands(n as usize);
    let share = |rate: f64| format!("{:.3} %", 100.0 * rate);
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let rows = [
        (
            "tokenizer",
            format!(
                "{}, {} tokens",
                tokenizer.kind(),
                output::thousands(tokenizer.vocab_size())
            ),
        ),
        (
            "text",
            format!(
                "{} lines, {} eojeols, {} characters",
                count(report.lines),
                count(report.eojeols),
                count(report.characters)
            ),
        ),
        (
            "tokens",
            format!(
                "{} ({:.2} an eojeol, {:.3} a character)",
                count(report.tokens),
                report.tokens_per_eojeol,
                report.tokens_per_character
            ),
        ),
        (
            "unknown tokens",
            format!(
                "{} ({}; in {} of the eojeols)",
                count(report.unknown),
                share(report.unknown_rate),
                share(report.unknown_eojeol_rate)
            ),
        ),
        (
            "decomposed Hangul (NFD)",
            format!(
                "{} lines, {} jamo",
                count(report.nfd_lines),
                count(report.nfd_characters)
            ),
        ),
        ("tokenizer composes it", yes(report.composes_hangul)),
        (
            "tokenizer takes syllables apart",
            yes(report.decomposes_hangul),
        ),
        (
            "jamo such as ㅋ and ㅠ",
            format!(
                "{} in the text, kept as they are: {}",
                count(report.compatibility_jamo),
                yes(report.keeps_compatibility_jamo)
            ),
        ),
        (
            "lines that do not come back",
            count(report.round_trip_failures),
        ),
    ];
    output::table("ll", &rows.map(|(key, value)| vec![key.to_owned(), value]))?;
    if !report.worst_words.is_empty() {
        output::line("\nwords that cost most")?;
        let row =
            |w: &malmoi_text::WordReport| vec![count(w.count), w.word.clone(), w.tokens.join(" ")];
        output::table(
            "rll",
            &report.worst_words.iter().map(row).collect::<Vec<_>>(),
        )?;
    }
    report
        .round_trip_examples
        .iter()
        .try_for_each(|line| output::line(format!("does not come back: {line}")))?;
    if report.suggestions.is_empty() {
        return Ok(());
    }
    output::line("")?;
    report
        .suggestions
        .iter()
        .try_for_each(|text| output::line(format!("suggestion: {text}")))
}
