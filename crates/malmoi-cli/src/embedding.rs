//! How texts become vectors: the flags of it, and the walk over many texts.

use clap::Args;
use indicatif::ProgressBar;
use malmoi_infer::Pipeline;
use malmoi_infer::embed::{EmbedOptions, Pooling};
use malmoi_infer::pipeline::Embedding;
use malmoi_models::SentenceLayout;

use crate::failure::Result;

/// Texts that are tokenized and embedded before the first results are used.
const TEXTS_AT_ONCE: usize = 256;

/// How the states of a text become one vector
#[derive(Args, Debug)]
pub struct EmbedFlags {
    /// How the token vectors become one: mean, cls, last, max, mean-sqrt-len, weighted-mean (default: as the model's folder says, or mean)
    #[arg(long, value_name = "NAME")]
    pooling: Option<Pooling>,
    /// Pool the output of this block (0: the embeddings) instead of the last one's
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
}

impl EmbedFlags {
    /// What the flags say, over what the model's folder says.
    pub fn options(&self, layout: Option<&SentenceLayout>, language: Option<u32>) -> EmbedOptions {
        EmbedOptions {
            pooling: (self.pooling)
                .or(layout.map(|layout| layout.pooling))
                .unwrap_or_default(),
            normalize: false,
            layer: self.layer,
            language,
            max_len: layout.and_then(|layout| layout.max_len),
            ..EmbedOptions::default()
        }
    }
}

/// Hands each text with its vector to `each`, in order; `bar` counts texts.
pub fn embed_all(
    pipeline: &Pipeline,
    texts: &[String],
    options: &EmbedOptions,
    bar: &ProgressBar,
    mut each: impl FnMut(&str, Embedding) -> Result<()>,
) -> Result<()> {
    for part in texts.chunks(TEXTS_AT_ONCE) {
        let borrowed: Vec<&str> = part.iter().map(String::as_str).collect();
        for (text, embedding) in part.iter().zip(pipeline.embed(&borrowed, options)?) {
            each(text, embedding)?;
        }
        bar.inc(part.len() as u64);
    }
    Ok(())
}
