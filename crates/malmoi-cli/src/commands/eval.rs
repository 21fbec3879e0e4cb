//! `malmoi eval`.

use clap::Subcommand;

use crate::arguments::Global;
use crate::commands::eval_embed::EvalEmbed;
use crate::commands::eval_lm::Lm;
use crate::commands::eval_retrieval::Retrieval;
use crate::commands::eval_task::EvalTask;
use crate::commands::zeroshot::ZeroShot;
use crate::failure::Result;
use crate::task::{
    ChoiceFlags, ClassifyFlags, PairFlags, QaFlags, RegressFlags, TagFlags, Text2textFlags,
};

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
            Self::Pair(verb) => verb.run(global),
            Self::Tag(verb) => verb.run(global),
            Self::Qa(verb) => verb.run(global),
            Self::Choice(verb) => verb.run(global),
            Self::Text2text(verb) => verb.run(global),
            Self::ZeroShot(verb) => verb.run(global),
            Self::Embed(verb) => verb.run(global),
            Self::Retrieval(verb) => verb.run(global),
        }
    }
}
