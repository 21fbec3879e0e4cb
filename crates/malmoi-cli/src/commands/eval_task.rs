//! `malmoi eval` of fine-tuned models.

use std::path::PathBuf;

use clap::Args;
use malmoi_infer::predict::{PredictOptions, predict};
use malmoi_tasks::charts::ConfusionTable;
use malmoi_tasks::{Case, OutputKind, Record, Truth, collected, report};
use malmoi_train::finetune::score;
use serde_json::{Map, json};

use crate::arguments::{Global, ModelArguments};
use crate::failure::{Failure, Result};
use crate::task::TaskArguments;
use crate::tuned::Tuned;
use crate::{output, progress};

/// Classes up to which the confusion matrix is printed.
const MOST_PRINTED: usize = 12;

/// Measures a model on the rows of a table.
#[derive(Args, Debug)]
pub struct EvalTask<T: TaskArguments + Args> {
    #[command(flatten)]
    model: ModelArguments,
    /// Rows: a table (.tsv, .csv, .jsonl, also .gz, .zst; .parquet) or a file of the task's own layout
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    task: T,
    /// Tokens of an input (default: those of fine-tuning)
    #[arg(long, value_name = "N")]
    max_len: Option<usize>,
    /// Tokens that go through the model together; changes the time, not the scores
    #[arg(long, value_name = "N", default_value_t = PredictOptions::default().tokens_per_batch)]
    batch_tokens: usize,
    /// Encoding of the file
    #[arg(long, value_name = "NAME", default_value = "utf-8")]
    encoding: String,
    /// Write the confusion matrix of classes, tags or choices: .svg for a picture, .json for numbers
    #[arg(long, value_name = "FILE")]
    confusion: Option<PathBuf>,
    /// Write the rows that came out wrong, a JSON line each (values: all rows, the furthest off first)
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl<T: TaskArguments + Args> EvalTask<T> {
    pub fn run(self, global: &Global) -> Result<()> {
        let tuned = Tuned::open(&self.model, &self.task, self.max_len, global)?;
        let (task, labels) = (tuned.spec.task(), tuned.labels());
        let with_classes = [OutputKind::Classes, OutputKind::Tags, OutputKind::Choice];
        if self.confusion.is_some() && !with_classes.contains(&task.output()) {
            return Err(Failure::input(format!(
                "--confusion: the task {} does not choose one class of several, so there is no confusion matrix; leave it out",
                task.name()
            )));
        }
        let records = collected(task.rows(&self.data, &self.encoding, true)?, &self.data)?;
        let encoder = tuned.encoder();
        let cases = records
            .iter()
            .map(|record| task.case(record, Some(labels), &encoder))
            .collect::<std::result::Result<Vec<Case>, _>>()?;
        for text in report::oddities(&cases, "") {
            progress::remark(global.quiet, format!("warning: {text}"));
        }
        let bar = progress::bar(global.quiet, cases.len() as u64, "measuring", "rows");
        let (model, tokenizer) = (&tuned.pipeline.model, &tuned.pipeline.tokenizer);
        let options = PredictOptions {
            max_new_tokens: tuned.spec.max_new_tokens(),
            tokens_per_batch: self.batch_tokens,
            ..PredictOptions::default()
        };
        let predictions = predict(model, tokenizer, task, &cases, &options, &mut |done| {
            bar.set_position(done as u64);
        })?;
        let found = score(model, &tuned.spec, &cases, &predictions)?;
        bar.finish_and_clear();
        let truncated = cases.iter().filter(|case| case.truncated).count();
        let truths: Vec<Truth> = cases.iter().filter_map(|case| case.truth.clone()).collect();
        let confusion = match task.output() {
            OutputKind::Choice => {
                let numbers = ConfusionTable::numbers(&predictions);
                ConfusionTable::of(&truths, &predictions, &numbers)
            }
            _ => ConfusionTable::of(&truths, &predictions, labels),
        };
        if let (Some(path), Some(table)) = (&self.confusion, &confusion) {
            let svg = path.extension().is_some_and(|end| end == "svg");
            let text = if svg {
                table.svg()
            } else {
                json!(table).to_string() + "\n"
            };
            output::to_file(path, &text)?;
        }
        if let Some(path) = &self.errors {
            let rows: Vec<(Record, Case)> =
                records.into_iter().zip(cases.iter().cloned()).collect();
            let wrong = report::errors(task, &rows, &predictions, labels);
            let lines: String = wrong.iter().map(|row| format!("{row}\n")).collect();
            output::to_file(path, &lines)?;
        }
        if self.json {
            let mut row: Map<_, _> = found
                .all()
                .map(|(name, value)| (name.to_string(), json!(value)))
                .collect();
            row.insert("rows".into(), json!(cases.len()));
            row.insert("truncated".into(), json!(truncated));
            return output::json(&row);
        }
        let mut rows: Vec<Vec<String>> = found
            .all()
            .map(|(name, value)| vec![name.replace('_', " "), format!("{value:.4}")])
            .collect();
        rows.push(vec!["rows".into(), output::thousands(cases.len())]);
        rows.push(vec!["cut rows".into(), output::thousands(truncated)]);
        output::table("lr", &rows)?;
        match confusion.filter(|table| table.labels.len() <= MOST_PRINTED) {
            None => Ok(()),
            Some(table) => {
                output::line("")?;
                let align = format!("l{}", "r".repeat(table.labels.len()));
                output::table(&align, &table.rows())
            }
        }
    }
}
