//! `malmoi embed`.

use clap::Args;
use malmoi_infer::embed::{EmbedOptions, cosine};
use malmoi_infer::pipeline::Embedding;
use malmoi_models::SentenceLayout;
use serde_json::json;

use crate::arguments::{Global, ModelArguments};
use crate::embedding::{EmbedFlags, embed_all};
use crate::failure::Result;
use crate::input::TextArguments;
use crate::{model, output, progress};

/// Turn texts into vectors
#[derive(Args, Debug)]
#[command(
    after_help = "Without --json, a table of the cosines between the texts is printed.\n\nExample:\n  malmoi embed --model malmoi-quickstart/bert --normalize --json --prompt \"배우의 연기가 좋았다.\""
)]
pub struct Embed {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    text: TextArguments,
    #[command(flatten)]
    embed: EmbedFlags,
    /// Language id of the texts, for models that tell languages apart (XLM)
    #[arg(long, value_name = "N")]
    language: Option<u32>,
    /// Divide each vector by its length
    #[arg(long)]
    normalize: bool,
    /// Print a JSON line a text: text, embedding, tokens, truncated
    #[arg(long)]
    json: bool,
}

impl Embed {
    pub fn run(self, global: &Global) -> Result<()> {
        let texts = self.text.texts()?;
        let layout = SentenceLayout::read(&model::directory(&self.model.model, global)?)?;
        let pipeline = model::pipeline(&self.model, global)?;
        let options = EmbedOptions {
            normalize: self.normalize || layout.as_ref().is_some_and(|layout| layout.normalize),
            ..self.embed.options(layout.as_ref(), self.language)
        };
        let bar = progress::bar(global.quiet, texts.len() as u64, "embedding", "texts");
        let (mut vectors, mut cut) = (Vec::new(), 0);
        embed_all(&pipeline, &texts, &options, &bar, |text, embedding| {
            let Embedding {
                vector,
                tokens,
                truncated,
            } = embedding;
            cut += usize::from(truncated);
            if self.json {
                let row = json!({ "text": text, "embedding": vector, "tokens": tokens, "truncated": truncated });
                return output::json(&row);
            }
            vectors.push(vector);
            Ok(())
        })?;
        bar.finish_and_clear();
        if !self.json {
            print_cosines(&texts, &vectors)?;
        }
        if cut > 0 {
            progress::remark(
                global.quiet,
                format!("note: {cut} text(s) were longer than the model and lost their end"),
            );
        }
        Ok(())
    }
}

/// A square of cosines with the texts beside it; of many texts, the nearest other text of each.
fn print_cosines(texts: &[String], vectors: &[Vec<f32>]) -> Result<()> {
    const SQUARE: usize = 12;
    let mut rows = Vec::new();
    for (i, (text, vector)) in texts.iter().zip(vectors).enumerate() {
        let mut row = vec![
            (i + 1).to_string(),
            text.chars().take(40).collect::<String>(),
        ];
        if texts.len() <= SQUARE {
            row.extend(
                vectors
                    .iter()
                    .map(|other| format!("{:.3}", cosine(vector, other))),
            );
        } else {
            let others = (0..vectors.len())
                .filter(|&j| j != i)
                .map(|j| (j, cosine(vector, &vectors[j])));
            if let Some((nearest, value)) = others.max_by(|a, b| a.1.total_cmp(&b.1)) {
                row.push(format!("nearest {} ({value:.3})", nearest + 1));
            }
        }
        rows.push(row);
    }
    output::table(&format!("rl{}", "r".repeat(texts.len())), &rows)
}
