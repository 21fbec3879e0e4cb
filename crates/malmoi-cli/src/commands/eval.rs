//! `malmoi eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use malmoi_infer::perplexity::WindowOptions;
use malmoi_text::{CorpusOptions, DocumentMode, documents};
use serde_json::json;

use crate::arguments::{Global, ModelArguments};
use crate::commands::eval_retrieval::Retrieval;
use crate::commands::eval_task::EvalTask;
use crate::failure::Result;
use crate::task::{
    ChoiceFlags, ClassifyFlags, PairFlags, QaFlags, RegressFlags, TagFlags, Text2textFlags,
};
use crate::{model, output, progress};

/// What can be measured.
#[derive(Subcommand, Debug)]
pub enum Eval {
    /// Language modelling: perplexity of a decoder, masked accuracy of an encoder
    Lm(Lm),
    /// Classification: accuracy, F1, Matthews correlation
    #[command(
        after_help = "Example:\n  malmoi eval classify --model malmoi-sentiment --data data/ko_sentiment_nsmc/valid.tsv --json"
    )]
    Classify(EvalTask<ClassifyFlags>),
    /// Regression: Pearson and Spearman correlation, errors
    #[command(
        after_help = "Example:\n  malmoi eval regress --model malmoi-similarity --data sts.tsv --json"
    )]
    Regress(EvalTask<RegressFlags>),
    /// Classification of pairs: accuracy, F1, Matthews correlation
    #[command(
        after_help = "Example:\n  malmoi eval pair --model malmoi-nli --data nli-valid.tsv --confusion confusion.svg"
    )]
    Pair(EvalTask<PairFlags>),
    /// Tags: F1 of entities (default and strict), of characters
    #[command(
        after_help = "Example:\n  malmoi eval tag --model malmoi-names --data valid.tsv.gz --errors errors.jsonl"
    )]
    Tag(EvalTask<TagFlags>),
    /// Answers: exact matches and F1 of SQuAD or KorQuAD
    #[command(
        after_help = "Example:\n  malmoi eval qa --model malmoi-answers --data valid.json --normalization korquad --json"
    )]
    Qa(EvalTask<QaFlags>),
    /// Multiple choice: accuracy
    #[command(
        after_help = "Example:\n  malmoi eval choice --model malmoi-copa --data copa-valid.tsv --json"
    )]
    Choice(EvalTask<ChoiceFlags>),
    /// Text from text: BLEU, chrF, exact matches
    #[command(
        after_help = "Example:\n  malmoi eval text2text --model malmoi-chat --data chat-valid.tsv --json"
    )]
    Text2text(EvalTask<Text2textFlags>),
    /// Retrieval: how often a text's nearest neighbour is its translation
    Retrieval(Retrieval),
}

impl Eval {
    pub fn run(self, global: &Global) -> Result<()> {
        match self {
            Self::Lm(lm) => lm.run(global),
            Self::Classify(verb) => verb.run(global),
            Self::Regress(verb) => verb.run(global),
            Self::Pair(verb) => verb.run(global),
            Self::Tag(verb) => verb.run(global),
            Self::Qa(verb) => verb.run(global),
            Self::Choice(verb) => verb.run(global),
            Self::Text2text(verb) => verb.run(global),
            Self::Retrieval(verb) => verb.run(global),
        }
    }
}

/// Language modelling: perplexity of a decoder, masked accuracy of an encoder
#[derive(Args, Debug)]
#[command(
    after_help = "A decoder reads the file as one text in windows that overlap by window - stride tokens.\nAn encoder has 15 % of the tokens \
                  of each line hidden.\n\nExample:\n  malmoi eval lm --model malmoi-quickstart/gpt --data data/en_corpus_shakespeare/valid.txt --stride 64 --json"
)]
pub struct Lm {
    #[command(flatten)]
    model: ModelArguments,
    /// Text file (.gz and .zst are unpacked)
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Tokens of a window (default: all positions of the model)
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// Tokens by which windows advance (default: half a window)
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Encoder: seed of the choice of hidden tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Lm {
    fn run(self, global: &Global) -> Result<()> {
        let pipeline = model::pipeline(&self.model, global)?;
        let mode = if pipeline.model.config().is_causal() {
            DocumentMode::File
        } else {
            DocumentMode::Lines
        };
        let options = CorpusOptions {
            mode,
            ..CorpusOptions::default()
        };
        let mut texts = Vec::new();
        for document in documents(std::slice::from_ref(&self.data), &options) {
            texts.extend(document?.sentences);
        }
        if mode == DocumentMode::Lines {
            let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
            let spinner = progress::spinner(global.quiet, "measuring");
            let found = pipeline.masked_accuracy(&borrowed, self.seed)?;
            spinner.finish_and_clear();
            if self.json {
                return output::json(&found);
            }
            return output::line(format!(
                "masked accuracy {:.4} (most frequent token: {:.4}), loss {:.4} over {} hidden tokens",
                found.accuracy, found.most_frequent, found.loss, found.hidden
            ));
        }
        let window = self.window.unwrap_or(pipeline.model.config().max_len());
        let options = WindowOptions {
            window,
            stride: self.stride.unwrap_or((window / 2).max(1)),
            tokens_per_batch: window.max(2048),
        };
        let bar = progress::spinner(global.quiet, "measuring");
        let mut done = 0;
        let found = pipeline.perplexity(&texts.concat(), &options, &mut |tokens| {
            done += tokens;
            bar.set_message(format!("measuring: {} tokens", output::thousands(done)));
        })?;
        bar.finish_and_clear();
        let result = json!({
            "loss": found.loss(), "perplexity": found.per_token(), "perplexity_per_word": found.per_word(),
            "perplexity_per_byte": found.per_byte(), "bits_per_byte": found.bits_per_byte(),
            "tokens": found.tokens, "words": found.words, "bytes": found.bytes, "window": options.window, "stride": options.stride,
        });
        if self.json {
            return output::json(&result);
        }
        let rows = [
            ("loss (nats a token)", format!("{:.4}", found.loss())),
            ("perplexity, a token", format!("{:.3}", found.per_token())),
            ("perplexity, a word", format!("{:.3}", found.per_word())),
            ("perplexity, a byte", format!("{:.4}", found.per_byte())),
            ("bits a byte", format!("{:.4}", found.bits_per_byte())),
            ("tokens scored", output::thousands(found.tokens)),
        ];
        output::table("lr", &rows.map(|(key, value)| vec![key.to_owned(), value]))
    }
}
