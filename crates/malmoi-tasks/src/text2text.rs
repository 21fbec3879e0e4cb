//! A text from a text: translation, summaries, answers. Every task can be told as one (Raffel et al. 2020, section 2.4).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::encoder::{Encoded, Encoder};
use crate::error::TaskError;
use crate::metrics::bleu::{BleuOptions, Tokenization, corpus_bleu};
use crate::metrics::chrf::corpus_chrf;
use crate::metrics::rouge::{rouge_l, rouge_n};
use crate::metrics::{PrecisionRecall, mean};
use crate::records::Record;
use crate::task::{Case, OutputKind, Prediction, Sequence, Task, Truth};

/// A text from a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Text2text {
    /// Column of the source.
    pub source_column: String,
    /// Column of the target.
    pub target_column: String,
    /// Written before every source, to tell tasks apart ("summarize: ").
    pub prefix: String,
    /// Tokens of a target, the end token included; also the most that is generated.
    pub max_target_len: usize,
}

impl Default for Text2text {
    fn default() -> Self {
        Self {
            source_column: "source".into(),
            target_column: "target".into(),
            prefix: String::new(),
            max_target_len: 64,
        }
    }
}

impl Task for Text2text {
    fn name(&self) -> &'static str {
        "text2text"
    }

    fn output(&self) -> OutputKind {
        OutputKind::Text
    }

    fn inputs(&self) -> Vec<&str> {
        vec![&self.source_column]
    }

    fn targets(&self) -> Vec<&str> {
        vec![&self.target_column]
    }

    fn labels(&self, _: &[Record]) -> Result<Vec<String>, TaskError> {
        Ok(Vec::new())
    }

    /// The source with its prefix. For a decoder alone, the end token after the source says that the target begins.
    fn case(
        &self,
        record: &Record,
        labels: Option<&[String]>,
        encoder: &Encoder<'_>,
    ) -> Result<Case, TaskError> {
        let source = format!("{}{}", self.prefix, record.text(&self.source_column)?);
        let mut encoded = if encoder.decoder_only {
            let (ids, truncated) = encoder.ended(&source, encoder.max_len)?;
            let segments = vec![0; ids.len()];
            Encoded {
                inputs: vec![Sequence { ids, segments }],
                truncated,
                empty: source.trim().is_empty(),
            }
        } else {
            encoder.encode(&source, None)?
        };
        let truth = match labels {
            None => None,
            Some(_) => {
                let target = record.text(&self.target_column)?;
                let (ids, cut) = encoder.ended(&target, self.max_target_len)?;
                encoded.truncated |= cut;
                Some(Truth::Text(target, ids))
            }
        };
        Ok(Case::new(encoded, truth, record))
    }

    fn decode(&self, _: &Case, _: &[f32], _: &[String]) -> Prediction {
        Prediction::Text(String::new())
    }

    /// From 0 to 100: `bleu` of the corpus with the words of mteval's 13a, `bleu_characters` with characters for words, as for Korean, `chrf`, and
    /// the mean F1 of `rouge_1`, `rouge_2` and `rouge_l`, which know words of ASCII letters and digits alone. From 0 to 1: `exact_match`, the share of
    /// texts that are equal but for white space at their ends.
    fn score(
        &self,
        truths: &[Truth],
        predictions: &[Prediction],
        _: &[String],
    ) -> Vec<(&'static str, f64)> {
        let (mut right, mut said) = (Vec::new(), Vec::new());
        for pair in truths.iter().zip(predictions) {
            if let (Truth::Text(truth, _), Prediction::Text(text)) = pair {
                right.push(truth.trim().to_owned());
                said.push(text.trim().to_owned());
            }
        }
        let equal = right.iter().zip(&said).map(|(a, b)| f64::from(a == b));
        let exact = mean(equal);
        let rouge = |of: &dyn Fn(&str, &str) -> PrecisionRecall| {
            100.0
                * mean(
                    said.iter()
                        .zip(&right)
                        .map(|(said, right)| of(said, right).f1),
                )
        };
        let rouges = [
            rouge(&|said, right| rouge_n(said, right, 1)),
            rouge(&|said, right| rouge_n(said, right, 2)),
            rouge(&rouge_l),
        ];
        let references = [right];
        let bleu = |tokenization| {
            let options = BleuOptions {
                tokenization,
                ..BleuOptions::default()
            };
            corpus_bleu(&said, &references, options).score
        };
        vec![
            ("bleu", bleu(Tokenization::Mteval13a)),
            ("bleu_characters", bleu(Tokenization::Characters)),
            ("chrf", corpus_chrf(&said, &references, 0)),
            ("rouge_1", rouges[0]),
            ("rouge_2", rouges[1]),
            ("rouge_l", rouges[2]),
            ("exact_match", exact),
        ]
    }

    fn judged_by(&self) -> (&'static str, bool) {
        ("bleu", true)
    }

    fn show(&self, _: &Case, prediction: &Prediction, _: &[String]) -> Value {
        match prediction {
            Prediction::Text(text) => json!({ "text": text }),
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(pairs: &[(&str, &str)]) -> impl Fn(&str) -> f64 + use<> {
        let truths: Vec<Truth> = (pairs.iter())
            .map(|(_, right)| Truth::Text((*right).into(), Vec::new()))
            .collect();
        let said: Vec<Prediction> = (pairs.iter())
            .map(|(said, _)| Prediction::Text((*said).into()))
            .collect();
        let found = Text2text::default().score(&truths, &said, &[]);
        move |name| found.iter().find(|(known, _)| *known == name).unwrap().1
    }

    #[test]
    fn overlap_is_counted_in_words_and_in_characters() {
        let get = scores(&[("The cat sat.", "the cat ran"), ("so it is", "so it is")]);
        // Two of three words, one of two pairs; the other text has all.
        assert!((get("rouge_1") - 100.0 * (2.0 / 3.0 + 1.0) / 2.0).abs() < 1e-9);
        assert!((get("rouge_2") - 75.0).abs() < 1e-9);
        assert!((get("rouge_l") - 100.0 * (2.0 / 3.0 + 1.0) / 2.0).abs() < 1e-9);
        assert!((get("exact_match") - 0.5).abs() < 1e-9);
        // Two particles differ: 9 of 11 characters, 6 of 10 pairs, 3 of 9 and 2 of 8 longer runs are right, but only half the words.
        let get = scores(&[("오늘은 날씨가 아주 좋았다", "오늘도 날씨는 아주 좋았다")]);
        let orders: f64 = 9.0 / 11.0 * (6.0 / 10.0) * (3.0 / 9.0) * (2.0 / 8.0);
        assert!((get("bleu_characters") - 100.0 * orders.powf(0.25)).abs() < 1e-9);
        assert!(get("bleu") < get("bleu_characters"));
        let get = scores(&[("오늘은 비가 왔다", "오늘은 비가 왔다")]);
        assert!((get("bleu_characters") - 100.0).abs() < 1e-9);
    }
}
