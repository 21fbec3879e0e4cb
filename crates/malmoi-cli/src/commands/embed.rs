//! `malmoi embed`.

use clap::{Args, ValueEnum};
use malmoi_infer::embed::{EmbedOptions, Pooling, cosine};
use malmoi_models::SentenceLayout;
use serde_json::json;

use crate::arguments::{Global, ModelArguments};
use crate::failure::Result;
use crate::input::TextArguments;
use crate::{model, output, progress};

/// Texts that are tokenized and embedded before the first results are printed.
const TEXTS_AT_ONCE: usize = 256;

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
    /// How the token vectors become one (default: as the model's folder says, or mean)
    #[arg(long, value_enum)]
    pooling: Option<PoolingName>,
    /// Divide each vector by its length
    #[arg(long)]
    normalize: bool,
    /// Print a JSON line a text: text, embedding, tokens, truncated
    #[arg(long)]
    json: bool,
}

/// Ways of pooling.
#[derive(ValueEnum, Debug, Clone, Copy)]
pub enum PoolingName {
    /// The mean
    Mean,
    /// The first token
    Cls,
    /// The last token
    Last,
    /// The largest value of each dimension
    Max,
    /// The sum over the root of the number of tokens
    MeanSqrtLen,
    /// The mean with weights that grow with the place
    WeightedMean,
}

impl From<PoolingName> for Pooling {
    fn from(name: PoolingName) -> Self {
        match name {
            PoolingName::Mean => Self::Mean,
            PoolingName::Cls => Self::Cls,
            PoolingName::Last => Self::Last,
            PoolingName::Max => Self::Max,
            PoolingName::MeanSqrtLen => Self::MeanSqrtLen,
            PoolingName::WeightedMean => Self::WeightedMean,
        }
    }
}

impl Embed {
    pub fn run(self, global: &Global) -> Result<()> {
        let texts = self.text.texts()?;
        let layout = SentenceLayout::read(&model::directory(&self.model.model, global)?)?;
        let pipeline = model::pipeline(&self.model, global)?;
        let given = self.pooling.map(Pooling::from);
        let options = EmbedOptions {
            pooling: given
                .or(layout.as_ref().map(|layout| layout.pooling))
                .unwrap_or_default(),
            normalize: self.normalize || layout.as_ref().is_some_and(|layout| layout.normalize),
            max_len: layout.and_then(|layout| layout.max_len),
            ..Default::default()
        };
        let bar = progress::bar(global.quiet, texts.len() as u64, "embedding", "texts");
        let (mut vectors, mut truncated) = (Vec::new(), 0);
        for part in texts.chunks(TEXTS_AT_ONCE) {
            let borrowed: Vec<&str> = part.iter().map(String::as_str).collect();
            for (text, embedding) in part.iter().zip(pipeline.embed(&borrowed, &options)?) {
                truncated += usize::from(embedding.truncated);
                if self.json {
                    let (tokens, truncated) = (embedding.tokens, embedding.truncated);
                    output::json(
                        &json!({ "text": text, "embedding": embedding.vector, "tokens": tokens, "truncated": truncated }),
                    )?;
                } else {
                    vectors.push(embedding.vector);
                }
            }
            bar.inc(part.len() as u64);
        }
        bar.finish_and_clear();
        if !self.json {
            print_cosines(&texts, &vectors)?;
        }
        if truncated > 0 {
            progress::remark(
                global.quiet,
                format!("note: {truncated} text(s) were longer than the model and lost their end"),
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
