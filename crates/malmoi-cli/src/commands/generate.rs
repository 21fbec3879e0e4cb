//! `malmoi generate`.

use clap::Args;
use malmoi_infer::Pipeline;
use malmoi_infer::beam::BeamOptions;
use malmoi_infer::generate::{FinishReason, Flow, GenerateOptions};
use malmoi_infer::pipeline::Continuation;
use malmoi_infer::sampling::SamplingSettings;
use serde_json::{Value, json};

use crate::arguments::{Global, ModelArguments};
use crate::failure::{Failure, INTERRUPTED, Result};
use crate::input::TextArguments;
use crate::profile::ProfileArguments;
use crate::{interrupt, model, output, progress};

/// Continue texts with a decoder, or rewrite them with an encoder-decoder
#[derive(Args, Debug)]
#[command(
    after_help = "Greedy by default; --temperature, --top-k, --top-p, --min-p or --sample draw from the distribution.\nOne prompt is \
                  shown as it grows; several prompts run as one batch. A model that rewrites texts (T5) prints the new text alone.\n\nExamples:\n  malmoi generate --model malmoi-quickstart/gpt --prompt \"이 영화는\" --temperature 0.8 --top-k 50 --seed 7\n  \
                  malmoi generate --model openai-community/gpt2 --input prompts.txt --num-beams 4 --json"
)]
pub struct Generate {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    text: TextArguments,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    /// Tokens to generate before the text may end
    #[arg(long, value_name = "N")]
    min_new_tokens: Option<usize>,
    /// Draw from the distribution instead of taking the most probable token
    #[arg(long)]
    sample: bool,
    /// Divide the logits: below 1 is bolder, above 1 wilder
    #[arg(long, value_name = "X")]
    temperature: Option<f64>,
    /// Draw from the K most probable tokens
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the most probable tokens that together have this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Draw from tokens with at least this share of the best one's probability
    #[arg(long, value_name = "P")]
    min_p: Option<f64>,
    /// Weaken tokens already seen (above 1)
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f64>,
    /// Never repeat N tokens in a row
    #[arg(long, value_name = "N")]
    no_repeat_ngram: Option<usize>,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// End the text before this string; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Beam search with this many hypotheses
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["sample", "temperature", "top_k", "top_p", "min_p", "stop", "log_probabilities"])]
    num_beams: usize,
    /// Beam search: exponent of the length that scores are divided by
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    length_penalty: f64,
    /// Beam search: stop as soon as enough hypotheses have ended
    #[arg(long)]
    early_stopping: bool,
    /// Beam search: hypotheses to print for each prompt
    #[arg(long, value_name = "N", default_value_t = 1)]
    num_return_sequences: usize,
    /// Do not end at the tokenizer's end token
    #[arg(long)]
    ignore_end: bool,
    /// With --json: the log-probability of every token
    #[arg(long, requires = "json")]
    log_probabilities: bool,
    /// Print a JSON line a text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    profile: ProfileArguments,
}

impl Generate {
    fn sampling(&self) -> SamplingSettings {
        let drawn = self.temperature.is_some()
            || self.top_k.is_some()
            || self.top_p.is_some()
            || self.min_p.is_some();
        SamplingSettings {
            do_sample: self.sample || drawn,
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram,
            min_new_tokens: self.min_new_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            ..Default::default()
        }
    }

    pub fn run(self, global: &Global) -> Result<()> {
        let prompts = self.text.texts()?;
        let pipeline = model::pipeline(&self.model, global)?;
        let ids = prompts
            .iter()
            .enumerate()
            .map(|(row, text)| pipeline.prompt_ids(text, row))
            .collect::<Result<Vec<_>, _>>()?;
        let end_ids = if self.ignore_end {
            Vec::new()
        } else {
            pipeline.end_ids().to_vec()
        };
        self.profile.start();
        if self.num_beams > 1 {
            self.beams(&pipeline, &prompts, &ids, end_ids)?;
            return self.profile.finish("f32");
        }
        let options = GenerateOptions {
            max_new_tokens: self.max_new_tokens,
            end_ids,
            sampling: self.sampling(),
            seed: self.seed,
            log_probabilities: self.log_probabilities,
        };
        interrupt::graceful();
        let live = prompts.len() == 1 && !self.json;
        // A continuation is shown behind its prompt, a new text alone.
        let lead = |row: usize| {
            if pipeline.transforms() {
                ""
            } else {
                prompts[row].as_str()
            }
        };
        // The prompt is shown with the first new text, so that a refused one leaves stdout empty.
        let (mut failed, mut shown) = (None, false);
        let texts = pipeline.generate(&ids, &options, &self.stop, &mut |_, text| {
            if live {
                let before = if shown { "" } else { lead(0) };
                shown = true;
                if let Err(failure) = output::piece(before).and_then(|()| output::piece(text)) {
                    failed = Some(failure);
                    return Flow::Cancel;
                }
            }
            if interrupt::requested() {
                Flow::Cancel
            } else {
                Flow::Continue
            }
        })?;
        if let Some(failure) = failed {
            return Err(failure);
        }
        if live {
            output::line(if shown { "" } else { lead(0) })?;
        }
        for (index, text) in texts.iter().enumerate() {
            if self.json {
                output::json(&row(&prompts[index], text))?;
            } else if !live {
                output::line(format!("{}{}", lead(index), text.text))?;
            }
        }
        self.profile.finish("f32")?;
        if interrupt::requested() {
            return Err(Failure::Said(INTERRUPTED));
        }
        let max_len = pipeline.model.config().position_limit();
        let cut = |(ids, text): (&Vec<u32>, &Continuation)| {
            text.finish_reason == FinishReason::Length
                && text.ids.len() < self.max_new_tokens
                && ids.len() + text.ids.len() >= max_len
        };
        if ids.iter().zip(&texts).any(cut) {
            progress::remark(
                global.quiet,
                format!("note: the text ended at the model's last position ({max_len})"),
            );
        }
        Ok(())
    }

    fn beams(
        &self,
        pipeline: &Pipeline,
        prompts: &[String],
        ids: &[Vec<u32>],
        end_ids: Vec<u32>,
    ) -> Result<()> {
        let options = BeamOptions {
            num_beams: self.num_beams,
            num_return_sequences: self.num_return_sequences,
            max_new_tokens: self.max_new_tokens,
            length_penalty: self.length_penalty,
            early_stopping: self.early_stopping,
            end_ids,
            sampling: self.sampling(),
        };
        for (prompt, texts) in prompts.iter().zip(pipeline.beam_search(ids, &options)?) {
            let lead = if pipeline.transforms() { "" } else { prompt };
            for text in texts {
                if self.json {
                    output::json(&row(prompt, &text))?;
                } else {
                    output::line(format!("{lead}{}", text.text))?;
                }
            }
        }
        Ok(())
    }
}

fn row(prompt: &str, text: &Continuation) -> Value {
    let mut row = json!({ "prompt": prompt });
    if let (Value::Object(row), Ok(Value::Object(rest))) = (&mut row, serde_json::to_value(text)) {
        row.extend(rest);
    }
    row
}
