//! `malmoi fill-mask`.

use clap::Args;
use serde_json::json;

use crate::arguments::{Global, ModelArguments};
use crate::failure::Result;
use crate::input::TextArguments;
use crate::{model, output};

/// Find the best words for blanks with an encoder
#[derive(Args, Debug)]
#[command(
    after_help = "Write the tokenizer's mask token (usually [MASK]) where a word is missing. Several blanks are filled each on its own.\n\nExample:\n  \
                  malmoi fill-mask --model malmoi-quickstart/bert --prompt \"이 영화는 정말 [MASK].\""
)]
pub struct FillMask {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    text: TextArguments,
    /// Words for each blank
    #[arg(long, value_name = "K", default_value_t = 5)]
    top_k: usize,
    /// Print a JSON line a text
    #[arg(long)]
    json: bool,
}

impl FillMask {
    pub fn run(self, global: &Global) -> Result<()> {
        let texts = self.text.texts()?;
        let pipeline = model::pipeline(&self.model, global)?;
        let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
        for (text, blanks) in texts.iter().zip(pipeline.fill_mask(&borrowed, self.top_k)?) {
            if self.json {
                output::json(&json!({ "text": text, "blanks": blanks }))?;
                continue;
            }
            output::line(text)?;
            for (number, fillings) in blanks.iter().enumerate() {
                if blanks.len() > 1 {
                    output::line(format!("blank {}", number + 1))?;
                }
                let row = |f: &malmoi_infer::pipeline::Filling| {
                    vec![
                        format!("{:6.2} %", 100.0 * f.probability),
                        f.word.clone(),
                        f.token.clone(),
                        f.text.clone(),
                    ]
                };
                output::table("rlll", &fillings.iter().map(row).collect::<Vec<_>>())?;
            }
        }
        Ok(())
    }
}
