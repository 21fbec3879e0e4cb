//! `malmoi eval`.

use clap::Subcommand;

use crate::arguments::Global;
use crate::commands::eval_embed::EvalEmbed;
use crate::commands::eval_lm::Lm;
use crate::commands::eval_retrieval::Retrieval;
use crate::commands::eval_task::EvalTask;
use crate::commands::zeroshot::ZeroShot;
use crate::failure::Result;
use crate::task::{ClassifyFlags, RegressFlags, Text2textFlags};

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
    /// Text from text: BLEU, chrF, exact matches
    #[command(
        after_help = "Example:\n  malmoi eval text2text --model malmoi-chat --data chat-valid.tsv --json"
    )]
    Text2text(EvalTask<Text2textFlags>),
    /// Questions without training: LAMBADA, BLiMP, PIQA, ARC, BoolQ, KoBEST, templates of your own
    #[command(name = "zeroshot")]
    ZeroShot(Box<ZeroShot>),
    /// Vectors of sentences: correlation of cosines with scores, or retrieval
    Embed(EvalEmbed),
    /// Retrieval: how often a text's nearest neighbour is its translation
    Retrieval(Retrieval),
}

impl Eval {
    pub fn run(self, global: &Global) -> Result<()> {
        match self {
            Self::Lm(lm) => lm.run(global),
            Self::Classify(verb) => verb.run(global),
            Self::Regress(verb) => verb.run(global),
            Self::Text2text(verb) => verb.run(global),
            Self::ZeroShot(verb) => verb.run(global),
            Self::Embed(verb) => verb.run(global),
            Self::Retrieval(verb) => verb.run(global),
        }
    }
}
