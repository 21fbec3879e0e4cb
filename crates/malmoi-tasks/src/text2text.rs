//! A text from a text: translation, summaries, answers. Every task can be told as one (Raffel et al. 2020, section 2.4).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::encoder::{Encoded, Encoder};
use crate::error::TaskError;
use crate::metrics::bleu::{BleuOptions, corpus_bleu};
use crate::metrics::chrf::corpus_chrf;
use crate::metrics::mean;
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

    /// `bleu` and `chrf` of the corpus, from 0 to 100, and `exact_match`, the share of texts that are equal but for white space at
    /// their ends.
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
        let references = [right];
        vec![
            (
                "bleu",
                corpus_bleu(&said, &references, BleuOptions::default()).score,
            ),
            ("chrf", corpus_chrf(&said, &references, 0)),
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
