//! `malmoi predict`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::{Args, Subcommand};
use malmoi_infer::predict::{PredictOptions, predict};
use malmoi_tasks::qa::source_file;
use malmoi_tasks::{Case, Oddity, OutputKind, Record, Records, TaskError, read_stdin};
use malmoi_text::RowFormat;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::arguments::{Global, ModelArguments};
use crate::commands::zeroshot_classify::ZeroShotClassify;
use crate::failure::{Failure, INTERRUPTED, Result};
use crate::input::TextArguments;
use crate::task::{
    ChoiceFlags, ClassifyFlags, PairFlags, QaFlags, RegressFlags, TagFlags, TaskArguments,
    Text2textFlags,
};
use crate::tuned::Tuned;
use crate::{interrupt, output, progress};

/// What a fine-tuned model can be asked.
#[derive(Subcommand, Debug)]
pub enum Predict {
    /// The label of each text
    #[command(
        after_help = "--input takes a table (.tsv, .csv, .jsonl, also .gz, .zst) or a file with one text a line.\n\nExample:\n  malmoi predict classify --model malmoi-sentiment --prompt \"정말 재미있는 영화였다\""
    )]
    Classify(Run<ClassifyFlags>),
    /// The value of each text
    #[command(
        after_help = "Example:\n  malmoi predict regress --model malmoi-similarity --input pairs.tsv"
    )]
    Regress(Run<RegressFlags>),
    /// The label of each pair of texts
    #[command(after_help = "Example:\n  malmoi predict pair --model malmoi-nli --input pairs.tsv")]
    Pair(Run<PairFlags>),
    /// The entities in each text, with their places
    #[command(
        after_help = "--input takes texts (a line each), or files with a token a line (.conll, .tsv).\n\nExample:\n  malmoi predict tag --model malmoi-names --prompt \"이순신은 서울에서 태어났다.\""
    )]
    Tag(Run<TagFlags>),
    /// The answer to each question, with its place in the context
    #[command(
        after_help = "--input takes SQuAD's JSON or a table with a context and a question; without it, JSON lines come through stdin.\n\nExample:\n  malmoi predict qa --model malmoi-answers --input questions.jsonl"
    )]
    Qa(Run<QaFlags>),
    /// The choice for each row
    #[command(
        after_help = "Example:\n  malmoi predict choice --model malmoi-copa --input copa.tsv"
    )]
    Choice(Run<ChoiceFlags>),
    /// The text that belongs to each text
    #[command(
        after_help = "Example:\n  malmoi predict text2text --model malmoi-chat --prompt \"오늘 뭐 먹지?\""
    )]
    Text2text(Run<Text2textFlags>),
    /// Labels that the model was never trained on
    ZeroShotClassify(ZeroShotClassify),
}

impl Predict {
    pub fn run(self, global: &Global) -> Result<()> {
        match self {
            Self::Classify(verb) => verb.run(global),
            Self::Regress(verb) => verb.run(global),
            Self::Pair(verb) => verb.run(global),
            Self::Tag(verb) => verb.run(global),
            Self::Qa(verb) => verb.run(global),
            Self::Choice(verb) => verb.run(global),
            Self::Text2text(verb) => verb.run(global),
            Self::ZeroShotClassify(verb) => verb.run(global),
        }
    }
}

/// Predictions of one task, a JSON line a row.
#[derive(Args, Debug)]
pub struct Run<T: TaskArguments + Args> {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    text: TextArguments,
    #[command(flatten)]
    task: T,
    /// Tokens of an input (default: those of fine-tuning)
    #[arg(long, value_name = "N")]
    max_len: Option<usize>,
}

/// Rows that are read, predicted and printed together: memory stays the same for any number of rows, and the first line comes soon.
const WINDOW: usize = 512;

impl<T: TaskArguments + Args> Run<T> {
    fn run(self, global: &Global) -> Result<()> {
        let tuned = Tuned::open(&self.model, &self.task, self.max_len, global)?;
        let mut records = self.records(&tuned)?;
        let mut empty = Empty::default();
        // After Ctrl-C the window that is being worked on is still printed.
        let interrupted = interrupt::graceful();
        loop {
            let window = records
                .by_ref()
                .take(WINDOW)
                .collect::<std::result::Result<Vec<Record>, _>>()?;
            if window.is_empty() {
                empty.report(global);
                return Ok(());
            }
            predict_window(&tuned, &window, &mut empty)?;
            if interrupted.load(Ordering::Relaxed) {
                return Err(Failure::Said(INTERRUPTED));
            }
        }
    }

    /// The rows of a table, or a record a text.
    fn records(&self, tuned: &Tuned) -> Result<Records> {
        let task = tuned.spec.task();
        let columns: Vec<String> = task.inputs().iter().map(ToString::to_string).collect();
        let table = self.text.input.as_deref().filter(|path| is_table(path));
        if let Some(path) = table {
            return Ok(task.rows(path, "utf-8", false)?);
        }
        let [column] = columns.as_slice() else {
            let piped = self.text.prompts.is_empty() && self.text.input.is_none();
            if piped && !io::stdin().is_terminal() {
                return Ok(read_stdin(&task.inputs())?);
            }
            return Err(Failure::input(format!(
                "this model reads several texts a row: give --input with a table that has the columns {}, or pipe JSON lines into stdin",
                columns.join(" and ")
            )));
        };
        if !self.text.prompts.is_empty() {
            let texts = self.text.texts()?;
            let records: Vec<_> = (texts.iter().enumerate())
                .map(|(row, text)| Ok(Record::new(format!("text {}", row + 1), &[(column, text)])))
                .collect();
            return Ok(Box::new(records.into_iter()));
        }
        let (origin, lines) = self.text.lines()?;
        let (origin, column): (Arc<str>, _) = (origin.into(), column.clone());
        let mut number = 0;
        // An empty line gets an answer too, so that the rows that come out are those that went in.
        Ok(Box::new(lines.map(
            move |line| -> Result<Record, TaskError> {
                number += 1;
                let line = line.map_err(TaskError::from)?;
                let cells = vec![(column.clone(), Value::String(line))];
                Ok(Record::at(Arc::clone(&origin), number, cells))
            },
        )))
    }
}

/// Rows with an empty text: how many, of how many, and where the first one is.
#[derive(Default)]
struct Empty {
    count: usize,
    rows: usize,
    first: Option<String>,
}

impl Empty {
    fn add(&mut self, cases: &[Case]) {
        self.rows += cases.len();
        for case in cases {
            if let Some((Oddity::EmptyText, place)) = &case.oddity {
                self.count += 1;
                self.first.get_or_insert_with(|| place.clone());
            }
        }
    }

    fn report(&self, global: &Global) {
        if let Some(first) = &self.first {
            let text = format!(
                "warning: {} of {} rows {}; the first is at {first}",
                self.count,
                self.rows,
                Oddity::EmptyText.describe()
            );
            progress::remark(global.quiet, text);
        }
    }
}

/// Whether a file has rows of its own layout, or is a text a line.
fn is_table(path: &Path) -> bool {
    let (path, _) = source_file(path);
    let name = path.display().to_string().to_ascii_lowercase();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    let own = [".json", ".conll", ".bio", ".iob", ".iob2"];
    RowFormat::of(&path).is_some() || own.iter().any(|end| name.ends_with(end))
}

/// Predicts and prints some rows, in their order.
fn predict_window(tuned: &Tuned, records: &[Record], empty: &mut Empty) -> Result<()> {
    let (task, encoder) = (tuned.spec.task(), tuned.encoder());
    let cases = records
        .par_iter()
        .map(|record| task.case(record, None, &encoder))
        .collect::<std::result::Result<Vec<Case>, _>>()?;
    empty.add(&cases);
    let options = PredictOptions {
        max_new_tokens: tuned.spec.max_new_tokens(),
        ..PredictOptions::default()
    };
    let (model, tokenizer) = (&tuned.pipeline.model, &tuned.pipeline.tokenizer);
    let predictions = predict(model, tokenizer, task, &cases, &options, &mut |_| ())?;
    let columns = task.inputs();
    for (record, (case, prediction)) in records.iter().zip(cases.iter().zip(&predictions)) {
        let mut row = Map::new();
        // Tags are shown with their text, whatever it was read from.
        if task.output() != OutputKind::Tags {
            for column in &columns {
                row.insert(
                    column.to_string(),
                    record.value(column).cloned().unwrap_or(Value::Null),
                );
            }
        }
        if let Value::Object(shown) = task.show(case, prediction, tuned.labels()) {
            // The input may be called what the output is called.
            row.extend(
                shown
                    .into_iter()
                    .map(|(key, value)| match row.contains_key(&key) {
                        true => (format!("predicted_{key}"), value),
                        false => (key, value),
                    })
                    .collect::<Vec<_>>(),
            );
        }
        row.insert("tokens".into(), json!(case.tokens()));
        row.insert("truncated".into(), json!(case.truncated));
        output::json(&Value::Object(row))?;
    }
    Ok(())
}
