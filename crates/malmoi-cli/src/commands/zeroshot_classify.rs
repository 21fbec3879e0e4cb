//! `malmoi predict zero-shot-classify`.

use clap::{Args, ValueEnum};
use malmoi_infer::Pipeline;
use malmoi_infer::likelihood::ScoreOptions;
use malmoi_infer::zeroshot_classify::{Candidates, Method, classify};
use malmoi_tasks::zeroshot::Normalization;
use serde_json::json;

use crate::arguments::{Global, ModelArguments};
use crate::failure::{Failure, Result};
use crate::input::TextArguments;
use crate::{model, output};

/// Lines that are read before their results are printed.
const LINES_AT_ONCE: usize = 64;

/// Labels that the model was never trained on
#[derive(Args, Debug)]
#[command(
    after_help = "A model fine-tuned for inference (classes entailment, neutral, contradiction) judges whether the text entails the template with each label.\n\
                  Any other language model is asked how probable each label is behind the text. Lines are read and answered as they come.\n\nExamples:\n  \
                  malmoi predict zero-shot-classify --model malmoi-nli --labels 정치,경제,스포츠 --prompt \"대표팀이 결승에 올랐다.\"\n  \
                  malmoi predict zero-shot-classify --model gpt2 --labels sports,politics --template \"\\nTopic: {label}\" --input texts.txt"
)]
pub struct ZeroShotClassify {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    text: TextArguments,
    /// The labels, separated by commas
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', required = true)]
    labels: Vec<String>,
    /// The sentence that names a label, {label} in it (default: by the kind of model and the labels' script)
    #[arg(long, value_name = "TEXT")]
    template: Option<String>,
    /// Judge every label for itself; several may fit
    #[arg(long)]
    multi_label: bool,
    /// Language model: how labels of different lengths are compared
    #[arg(long, value_enum, default_value = "unconditional")]
    normalize: NormalizeName,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum NormalizeName {
    /// Log-likelihood as it is
    Sum,
    /// Divided by tokens
    Tokens,
    /// Divided by bytes
    Bytes,
    /// Less that of the label without the text
    Unconditional,
}

impl ZeroShotClassify {
    pub fn run(self, global: &Global) -> Result<()> {
        let pipeline = model::pipeline(&self.model, global)?;
        let method = Method::of(&pipeline.model)?;
        let candidates = Candidates {
            template: match &self.template {
                Some(template) => template.clone(),
                None => usual_template(method, &self.labels).to_owned(),
            },
            labels: self.labels.iter().map(|l| l.trim().to_owned()).collect(),
            multi_label: self.multi_label,
            normalization: match self.normalize {
                NormalizeName::Sum => Normalization::Sum,
                NormalizeName::Tokens => Normalization::Tokens,
                NormalizeName::Bytes => Normalization::Bytes,
                NormalizeName::Unconditional => Normalization::Unconditional,
            },
        };
        candidates.check(method)?;
        let answer = |texts: &[String]| answer(&pipeline, texts, &candidates, method);
        if !self.text.prompts.is_empty() {
            return answer(&self.text.prompts);
        }
        let (name, mut lines) = self.text.lines()?;
        let mut found = false;
        loop {
            let window = (lines.by_ref().take(LINES_AT_ONCE))
                .collect::<std::result::Result<Vec<String>, _>>()?;
            if window.is_empty() {
                break;
            }
            found = true;
            answer(&window)?;
        }
        match found {
            true => Ok(()),
            false => Err(Failure::input(format!(
                "{name}: no text found, expected one text a line"
            ))),
        }
    }
}

/// A sentence that suits most labels.
fn usual_template(method: Method, labels: &[String]) -> &'static str {
    let korean = labels.iter().flat_map(|label| label.chars());
    let korean = korean.into_iter().any(|c| ('가'..='힣').contains(&c));
    match (method, korean) {
        (Method::Entailment { .. }, false) => "This example is {label}.",
        (Method::Entailment { .. }, true) => "이 글의 주제는 {label}이다.",
        (Method::LanguageModel, false) => "\nTopic: {label}",
        (Method::LanguageModel, true) => "\n주제: {label}",
    }
}

/// Prints a JSON line a text, the most probable label first.
fn answer(
    pipeline: &Pipeline,
    texts: &[String],
    candidates: &Candidates,
    method: Method,
) -> Result<()> {
    let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
    let options = ScoreOptions::default();
    let found = classify(pipeline, &borrowed, candidates, method, &options)?;
    for (text, found) in texts.iter().zip(found) {
        let mut order: Vec<usize> = (0..candidates.labels.len()).collect();
        order.sort_by(|&a, &b| found.scores[b].total_cmp(&found.scores[a]));
        let labels: Vec<&str> = order.iter().map(|&i| &*candidates.labels[i]).collect();
        let scores: Vec<f64> = order.iter().map(|&i| found.scores[i]).collect();
        output::json(&json!({
            "text": text, "label": labels[0], "probability": scores[0], "labels": labels, "scores": scores,
            "tokens": pipeline.tokenizer.encode_ids(text, false)?.len(), "truncated": found.truncated,
        }))?;
    }
    Ok(())
}
