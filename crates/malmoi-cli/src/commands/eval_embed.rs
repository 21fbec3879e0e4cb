//! `malmoi eval embed`.

use std::path::PathBuf;

use clap::Args;
use malmoi_models::{Pooling, SentenceLayout};
use malmoi_train::embedding::{Columns, evaluate, read_pairs};
use serde_json::{Map, json};

use crate::arguments::{Global, ModelArguments};
use crate::commands::finetune_embed::PairFlags;
use crate::failure::Result;
use crate::{model, output, progress};

/// Vectors of sentences: correlation of cosines with scores, or retrieval
#[derive(Args, Debug)]
#[command(
    after_help = "With --label-column, Spearman's and Pearson's correlation of the cosines with the scores. Without, or with --positive, each first text looks for its second one \
                  among all second texts.\n\nExample:\n  malmoi eval embed --model malmoi-embed --data sts-valid.tsv --label-column score --json"
)]
pub struct EvalEmbed {
    #[command(flatten)]
    model: ModelArguments,
    /// Pairs: .tsv, .csv or .jsonl (also .gz, .zst)
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    columns: PairFlags,
    /// How the token vectors become one (default: as the model's folder says, or mean)
    #[arg(long, value_name = "NAME")]
    pooling: Option<Pooling>,
    /// Tokens of a text; longer ones are cut and counted (default: as the model's folder says)
    #[arg(long, value_name = "N")]
    max_len: Option<usize>,
    /// Encoding of the file
    #[arg(long, value_name = "NAME", default_value = "utf-8")]
    encoding: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl EvalEmbed {
    pub fn run(self, global: &Global) -> Result<()> {
        let layout = SentenceLayout::read(&model::directory(&self.model.model, global)?)?;
        let pipeline = model::pipeline(&self.model, global)?;
        let pooling = self
            .pooling
            .or(layout.as_ref().map(|layout| layout.pooling));
        let bound = layout.and_then(|layout| layout.max_len);
        let most = pipeline.model.config().max_len();
        let max_len = self.max_len.or(bound).unwrap_or(most).min(most);
        let column = |given: Option<String>, usual: &str| given.unwrap_or_else(|| usual.into());
        let columns = Columns {
            text_column: column(self.columns.text_column, "sentence1"),
            pair_column: column(self.columns.pair_column, "sentence2"),
            negative_column: None,
            label_column: self.columns.label_column,
            positive: self.columns.positive,
        };
        let spinner = progress::spinner(global.quiet, "measuring");
        let tokenizer = &pipeline.tokenizer;
        let pairs = read_pairs(&self.data, &columns, tokenizer, max_len, &self.encoding)?;
        let found = evaluate(&pipeline.model, &pairs, pooling.unwrap_or_default())?;
        spinner.finish_and_clear();
        let truncated = pairs.iter().filter(|pair| pair.truncated).count();
        if self.json {
            let metrics = found.metrics.iter();
            let mut row: Map<_, _> = metrics.map(|m| (m.name.clone(), json!(m.value))).collect();
            row.insert("rows".into(), json!(pairs.len()));
            row.insert("truncated".into(), json!(truncated));
            return output::json(&row);
        }
        let metrics = found.metrics.iter();
        let mut rows: Vec<Vec<String>> = metrics
            .map(|m| vec![m.name.replace('_', " "), format!("{:.4}", m.value)])
            .collect();
        rows.push(vec!["rows".into(), output::thousands(pairs.len())]);
        rows.push(vec!["cut rows".into(), output::thousands(truncated)]);
        output::table("lr", &rows)
    }
}
