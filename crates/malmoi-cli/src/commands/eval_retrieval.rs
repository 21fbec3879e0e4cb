//! `malmoi eval retrieval`.

use std::path::PathBuf;

use clap::Args;
use malmoi_infer::retrieval::{Found, centre, retrieval};
use malmoi_models::SentenceLayout;
use malmoi_tasks::read_records;
use serde_json::json;

use crate::arguments::{Global, ModelArguments};
use crate::embedding::{EmbedFlags, embed_all};
use crate::failure::Result;
use crate::{model, output, progress};

/// Retrieval: how often a text's nearest neighbour is its translation
#[derive(Args, Debug)]
#[command(
    after_help = "Each row holds a text and its translation (or another partner). Texts become vectors as in `malmoi embed`; every source looks for its \
                  target among all targets, and the other way round. Ties count as failures.\n\nExample:\n  malmoi eval retrieval --model malmoi-xlm \
                  --data pairs.tsv --source-column ko --target-column en --source-language 0 --target-language 1"
)]
pub struct Retrieval {
    #[command(flatten)]
    model: ModelArguments,
    /// Pairs: .tsv, .csv or .jsonl (also .gz, .zst)
    #[arg(long, visible_alias = "pairs", value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    embed: EmbedFlags,
    /// Column of the sources
    #[arg(
        long,
        value_name = "NAME",
        default_value = "source",
        help_heading = "Columns"
    )]
    source_column: String,
    /// Column of the targets
    #[arg(
        long,
        value_name = "NAME",
        default_value = "target",
        help_heading = "Columns"
    )]
    target_column: String,
    /// Language id of the sources, for models that tell languages apart (XLM)
    #[arg(long, value_name = "N")]
    source_language: Option<u32>,
    /// Language id of the targets
    #[arg(long, value_name = "N")]
    target_language: Option<u32>,
    /// Take the mean of a side from each of its vectors first: what all texts of a language have in common
    #[arg(long)]
    center: bool,
    /// Encoding of the file
    #[arg(long, value_name = "NAME", default_value = "utf-8")]
    encoding: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Retrieval {
    pub fn run(self, global: &Global) -> Result<()> {
        let columns = [self.source_column.as_str(), self.target_column.as_str()];
        let records = read_records(&self.data, &columns, &self.encoding)?;
        let layout = SentenceLayout::read(&model::directory(&self.model.model, global)?)?;
        let pipeline = model::pipeline(&self.model, global)?;
        let n_texts = 2 * records.len() as u64;
        let bar = progress::bar(global.quiet, n_texts, "embedding", "texts");
        let mut truncated = 0;
        let mut side = |column: &str, language| -> Result<Vec<Vec<f32>>> {
            let texts: Result<Vec<String>, _> = records.iter().map(|r| r.text(column)).collect();
            let (options, mut vectors) =
                (self.embed.options(layout.as_ref(), language), Vec::new());
            embed_all(&pipeline, &texts?, &options, &bar, |_, embedding| {
                truncated += usize::from(embedding.truncated);
                vectors.push(embedding.vector);
                Ok(())
            })?;
            Ok(vectors)
        };
        let mut sources = side(columns[0], self.source_language)?;
        let mut targets = side(columns[1], self.target_language)?;
        bar.finish_and_clear();
        if self.center {
            centre(&mut sources);
            centre(&mut targets);
        }
        let found = retrieval(&sources, &targets);
        let chance = 1.0 / records.len() as f64;
        if self.json {
            return output::json(&json!({
                "accuracy": found.accuracy(),
                "forward": found.forward, "backward": found.backward,
                "chance": chance, "pairs": records.len(), "truncated": truncated,
            }));
        }
        let row = |name: String, found: Found| {
            let share = |x: f64| format!("{x:.4}");
            let Found {
                accuracy,
                among_five,
                mean_reciprocal_rank,
            } = found;
            let shares = [accuracy, among_five, mean_reciprocal_rank].map(share);
            [&[name], &shares[..]].concat()
        };
        let heading = ["", "nearest", "among five", "reciprocal rank"];
        output::table(
            "lrrr",
            &[
                heading.map(str::to_owned).to_vec(),
                row(format!("{} → {}", columns[0], columns[1]), found.forward),
                row(format!("{} → {}", columns[1], columns[0]), found.backward),
            ],
        )?;
        output::line(format!(
            "{} pairs, {truncated} cut texts; by chance {chance:.4}",
            output::thousands(records.len())
        ))
    }
}
