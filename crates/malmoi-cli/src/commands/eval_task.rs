//! `malmoi eval` of fine-tuned models.

use std::path::PathBuf;

use clap::Args;
use malmoi_train::finetune::{evaluate, read_cases};
use serde_json::{Map, json};

use crate::arguments::{Global, ModelArguments};
use crate::failure::Result;
use crate::task::TaskArguments;
use crate::tuned::Tuned;
use crate::{output, progress};

/// Measures a model on the rows of a table.
#[derive(Args, Debug)]
pub struct EvalTask<T: TaskArguments + Args> {
    #[command(flatten)]
    model: ModelArguments,
    /// Rows: .tsv, .csv or .jsonl (also .gz, .zst)
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    task: T,
    /// Tokens of an input (default: those of fine-tuning)
    #[arg(long, value_name = "N")]
    max_len: Option<usize>,
    /// Encoding of the file
    #[arg(long, value_name = "NAME", default_value = "utf-8")]
    encoding: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl<T: TaskArguments + Args> EvalTask<T> {
    pub fn run(self, global: &Global) -> Result<()> {
        let tuned = Tuned::open(&self.model, &self.task, self.max_len, global)?;
        let task = tuned.spec.task();
        let labels = Some(tuned.labels());
        let cases = read_cases(&self.data, task, labels, &tuned.encoder(), &self.encoding)?;
        let bar = progress::bar(global.quiet, cases.len() as u64, "measuring", "rows");
        let (model, tokenizer) = (&tuned.pipeline.model, &tuned.pipeline.tokenizer);
        let found = evaluate(model, tokenizer, &tuned.spec, &cases, &mut |done| {
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        let truncated = cases.iter().filter(|case| case.truncated).count();
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
        output::table("lr", &rows)
    }
}
