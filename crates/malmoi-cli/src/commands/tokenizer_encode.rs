//! `malmoi tokenizer encode`.

use std::path::PathBuf;

use clap::Args;
use malmoi_text::{EncodeOptions, Encoding, Tokenizer};
use serde_json::json;

use crate::arguments::Global;
use crate::failure::{Failure, Result};
use crate::{input, output};

/// Encode text and show its tokens
#[derive(Args, Debug)]
#[command(
    after_help = "Offsets count characters of the original text.\n\nExample:\n  malmoi tokenizer encode --tokenizer malmoi-quickstart/bert --text \"말모이는 낱말을 모은다\""
)]
pub struct Encode {
    /// Folder (or file) of the tokenizer
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// A text; may be given several times
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    text: Vec<String>,
    /// A file with one text a line (without --text and --input: stdin)
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Leave out special tokens
    #[arg(long)]
    no_special: bool,
    /// Cut to this many tokens
    #[arg(long, value_name = "N")]
    max_len: Option<usize>,
    /// Print a JSON line a text
    #[arg(long)]
    json: bool,
}

impl Encode {
    pub fn run(self, _global: &Global) -> Result<()> {
        let tokenizer = Tokenizer::load(&self.tokenizer)?;
        let texts = input::TextArguments {
            prompts: self.text.clone(),
            input: self.input.clone(),
        }
        .texts()?;
        let truncation = match self.max_len {
            Some(0) => return Err(Failure::input("--max-len is 0: expected 1 or more")),
            bound => bound.map(malmoi_text::Truncation::to),
        };
        let options = EncodeOptions {
            add_special: !self.no_special,
            truncation,
            ..EncodeOptions::default()
        };
        for text in &texts {
            let encoding = tokenizer.encode(text, None, &options)?;
            if self.json {
                output::json(
                    &json!({ "text": text, "ids": encoding.ids, "tokens": encoding.tokens, "offsets": encoding.offsets }),
                )?;
            } else {
                print(text, &encoding)?;
            }
        }
        Ok(())
    }
}

fn print(text: &str, encoding: &Encoding) -> Result<()> {
    output::line(format!("{text}\n{} tokens", encoding.len()))?;
    let row = |i: usize| {
        let (start, end) = encoding.byte_offsets[i];
        vec![
            encoding.ids[i].to_string(),
            encoding.tokens[i].clone(),
            text.get(start..end).unwrap_or_default().to_owned(),
        ]
    };
    output::table("rll", &(0..encoding.len()).map(row).collect::<Vec<_>>())
}
