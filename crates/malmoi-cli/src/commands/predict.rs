//! `malmoi predict`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use malmoi_infer::predict::predict;
use malmoi_tasks::{Case, Record, TaskSpec, read_records};
use malmoi_text::RowFormat;
use serde_json::{Map, Value};

use crate::arguments::{Global, ModelArguments};
use crate::commands::zeroshot_classify::ZeroShotClassify;
use crate::failure::{Failure, Result};
use crate::input::TextArguments;
use crate::output;
use crate::task::{ClassifyFlags, RegressFlags, TaskArguments, Text2textFlags};
use crate::tuned::Tuned;

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

impl<T: TaskArguments + Args> Run<T> {
    fn run(self, global: &Global) -> Result<()> {
        let tuned = Tuned::open(&self.model, &self.task, self.max_len, global)?;
        let task = tuned.spec.task();
        let table = self
            .text
            .input
            .clone()
            .filter(|path: &PathBuf| RowFormat::of(path).is_some());
        let columns: Vec<String> = task.inputs().iter().map(ToString::to_string).collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let records = match table {
            Some(path) => read_records(&path, &columns, "utf-8")?,
            None if columns.len() > 1 => {
                return Err(Failure::input(format!(
                    "this model reads pairs of texts: give --input with a table that has the columns {}",
                    columns.join(" and ")
                )));
            }
            None => self
                .text
                .texts()?
                .iter()
                .enumerate()
                .map(|(row, text)| Record::new(format!("text {}", row + 1), &[(columns[0], text)]))
                .collect(),
        };
        let encoder = tuned.encoder();
        let cases = records
            .iter()
            .map(|record| task.case(record, None, &encoder))
            .collect::<std::result::Result<Vec<Case>, _>>()?;
        let most = match &tuned.spec {
            TaskSpec::Text2text(task) => task.max_target_len,
            _ => 1,
        };
        let (model, tokenizer) = (&tuned.pipeline.model, &tuned.pipeline.tokenizer);
        let predictions = predict(model, tokenizer, task, &cases, most, &mut |_| ())?;
        for (record, (case, prediction)) in records.iter().zip(cases.iter().zip(&predictions)) {
            let mut row = Map::new();
            for column in &columns {
                row.insert(column.to_string(), Value::String(record.text(column)?));
            }
            if let Value::Object(shown) = task.show(prediction, tuned.labels()) {
                // The input may be called what the output is called.
                row.extend(shown.into_iter().map(|(key, value)| {
                    match columns.contains(&key.as_str()) {
                        true => (format!("predicted_{key}"), value),
                        false => (key, value),
                    }
                }));
            }
            if case.truncated {
                row.insert("truncated".into(), Value::Bool(true));
            }
            output::json(&Value::Object(row))?;
        }
        Ok(())
    }
}
