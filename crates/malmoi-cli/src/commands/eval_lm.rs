//! `malmoi eval lm`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use malmoi_infer::Pipeline;
use malmoi_infer::likelihood::ScoreOptions;
use malmoi_infer::perplexity::{Perplexity, WindowOptions};
use malmoi_text::{CorpusOptions, DocumentMode, RowFormat, documents};
use serde_json::{Map, Value, json};

use crate::arguments::{Global, ModelArguments};
use crate::failure::Result;
use crate::{model, output, progress};

/// Language modelling: perplexity of a decoder, masked accuracy of an encoder
#[derive(Args, Debug)]
#[command(
    after_help = "A decoder reads the file as one text in windows that overlap by window - stride tokens; with --documents, each document begins anew.\nAn encoder has 15 % of the tokens \
                  of each line hidden; with --pseudo, each token in turn (pseudo-perplexity).\n\nExample:\n  malmoi eval lm --model malmoi-quickstart/gpt --data data/en_corpus_shakespeare/valid.txt --stride 64 --json"
)]
pub struct Lm {
    #[command(flatten)]
    model: ModelArguments,
    /// Text file, or a table with a document a row (.gz and .zst are unpacked)
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Column of a table (.tsv, .csv, .jsonl) that holds the text (default: text)
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// Decoder: what separates documents (default: nothing, the file is one text; rows of tables are documents)
    #[arg(long, value_enum)]
    documents: Option<Separator>,
    /// Tokens of a window (default: all positions of the model)
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// Tokens by which windows advance (default: half a window)
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Encoder: seed of the choice of hidden tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Encoder: hide each token in turn and sum what the model says of it
    #[arg(long)]
    pseudo: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What separates documents.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Separator {
    /// Nothing: the file is one text
    File,
    /// Line ends
    #[value(alias = "line")]
    Lines,
    /// Empty lines
    #[value(alias = "blank-line")]
    Paragraphs,
}

impl Lm {
    pub fn run(self, global: &Global) -> Result<()> {
        let pipeline = model::pipeline(&self.model, global)?;
        let causal = pipeline.model.config().is_causal();
        let table = RowFormat::of(&self.data).is_some();
        let separator = self.documents.unwrap_or(match causal && !table {
            true => Separator::File,
            false => Separator::Lines,
        });
        let options = CorpusOptions {
            mode: match separator {
                Separator::File => DocumentMode::File,
                Separator::Lines => DocumentMode::Lines,
                Separator::Paragraphs => DocumentMode::Paragraphs,
            },
            field: self.text_column.clone(),
            ..CorpusOptions::default()
        };
        // Pieces of a file are one text, lines of a document are sentences of it.
        let between = if separator == Separator::File {
            ""
        } else {
            "\n"
        };
        let mut texts = Vec::new();
        for document in documents(std::slice::from_ref(&self.data), &options) {
            texts.push(document?.sentences.join(between));
        }
        if separator == Separator::File {
            texts = vec![texts.concat()];
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let progress = progress::spinner(global.quiet, "measuring");
        match (causal, self.pseudo) {
            (true, _) => self.perplexity(&pipeline, &texts, separator, &progress),
            (false, true) => self.pseudo_perplexity(&pipeline, &texts, &progress),
            (false, false) => self.masked_accuracy(&pipeline, &texts, &progress),
        }
    }

    fn masked_accuracy(
        &self,
        pipeline: &Pipeline,
        texts: &[&str],
        progress: &ProgressBar,
    ) -> Result<()> {
        let found = pipeline.masked_accuracy(texts, self.seed)?;
        progress.finish_and_clear();
        if self.json {
            return output::json(&found);
        }
        output::line(format!(
            "masked accuracy {:.4} (most frequent token: {:.4}), loss {:.4} over {} hidden tokens",
            found.accuracy, found.most_frequent, found.loss, found.hidden
        ))
    }

    fn pseudo_perplexity(
        &self,
        pipeline: &Pipeline,
        texts: &[&str],
        progress: &ProgressBar,
    ) -> Result<()> {
        let texts: Vec<(&str, &str)> = texts.iter().map(|text| ("", *text)).collect();
        let scored = pipeline.likelihoods(&texts, &ScoreOptions::default(), &mut |done| {
            progress.set_message(format!("measuring: {} texts", output::thousands(done)));
        })?;
        let found = Perplexity {
            nats: -scored.iter().map(|s| s.log_likelihood).sum::<f64>(),
            tokens: scored.iter().map(|s| s.tokens).sum(),
            words: texts
                .iter()
                .map(|(_, t)| t.split_whitespace().count())
                .sum(),
            bytes: texts.iter().map(|(_, text)| text.len()).sum(),
        };
        progress.finish_and_clear();
        self.say(&found, "pseudo_", json!({ "documents": texts.len() }))
    }

    fn perplexity(
        &self,
        pipeline: &Pipeline,
        texts: &[&str],
        separator: Separator,
        progress: &ProgressBar,
    ) -> Result<()> {
        let window = self.window.unwrap_or(pipeline.model.config().max_len());
        let options = WindowOptions {
            window,
            stride: self.stride.unwrap_or((window / 2).max(1)),
            tokens_per_batch: window.max(2048),
        };
        let mut done = 0;
        let mut told = |tokens| {
            done += tokens;
            progress.set_message(format!("measuring: {} tokens", output::thousands(done)));
        };
        let found = match separator {
            Separator::File => pipeline.perplexity(texts[0], &options, &mut told)?,
            _ => pipeline.perplexity_of_documents(texts, &options, &mut told)?,
        };
        progress.finish_and_clear();
        let settings =
            json!({ "window": options.window, "stride": options.stride, "documents": texts.len() });
        self.say(&found, "", settings)
    }

    /// Prints a score; `kind` stands before the names of perplexities.
    fn say(&self, found: &Perplexity, kind: &str, settings: Value) -> Result<()> {
        if self.json {
            let mut row = Map::new();
            for (name, value) in [
                ("loss", found.loss()),
                ("perplexity", found.per_token()),
                ("perplexity_per_word", found.per_word()),
                ("perplexity_per_byte", found.per_byte()),
                ("bits_per_byte", found.bits_per_byte()),
            ] {
                row.insert(format!("{kind}{name}"), json!(value));
            }
            for (name, count) in [
                ("tokens", found.tokens),
                ("words", found.words),
                ("bytes", found.bytes),
            ] {
                row.insert(name.into(), json!(count));
            }
            row.extend(settings.as_object().cloned().unwrap_or_default());
            return output::json(&row);
        }
        let kind = kind.replace('_', "-");
        let rows = [
            ("loss (nats a token)", format!("{:.4}", found.loss())),
            ("perplexity, a token", format!("{:.3}", found.per_token())),
            ("perplexity, a word", format!("{:.3}", found.per_word())),
            ("perplexity, a byte", format!("{:.4}", found.per_byte())),
            ("bits a byte", format!("{:.4}", found.bits_per_byte())),
            ("tokens scored", output::thousands(found.tokens)),
        ];
        let row = |(key, value): (&str, String)| match key.starts_with("tokens") {
            true => vec![key.to_owned(), value],
            false => vec![format!("{kind}{key}"), value],
        };
        output::table("lr", &rows.map(row))
    }
}
