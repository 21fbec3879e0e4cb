//! `/predict`: classes of texts.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ModelQuery;
use crate::body::{Answer, Json, Usage};
use crate::error::ApiError;
use crate::served::{Ability, Served};
use crate::state::App;
use crate::text::{self, TooLong, TruncationDirection};
use crate::worker::{Sequence, Want};

/// A text, a pair of texts, or a batch of either.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PredictInputs {
    /// A text.
    Text(String),
    /// One text, or a pair: two texts in a flat list are a pair.
    Pair(Vec<String>),
    /// A batch of texts (lists of one) and pairs (lists of two).
    Batch(Vec<Vec<String>>),
}

/// Texts to classify.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PredictRequest {
    /// A served model.
    model: Option<String>,
    /// The texts.
    inputs: PredictInputs,
    /// Logits instead of probabilities.
    #[serde(default)]
    raw_scores: bool,
    /// Cut texts that are too long instead of refusing them.
    #[serde(default)]
    truncate: bool,
    /// Which end is cut.
    #[serde(default)]
    truncation_direction: TruncationDirection,
}

/// A class with its score.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Prediction {
    /// The probability; a logit with `raw_scores`, the value itself of a regression.
    pub score: f64,
    /// The class.
    pub label: String,
}

/// Answers of both shapes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum PredictResponse {
    /// Of one text.
    One(Vec<Prediction>),
    /// Of a batch.
    Many(Vec<Vec<Prediction>>),
}

/// A text, perhaps with another.
pub type Pair = (String, Option<String>);

/// Classes of each text with their logits, `[B][K]`, and what it took.
pub async fn logits(
    app: &App,
    served: &Served,
    pairs: &[Pair],
    too_long: TooLong,
) -> Result<(Vec<Vec<f32>>, Usage), ApiError> {
    super::check_batch(app, pairs.len())?;
    let mut usage = Usage::default();
    let mut sequences: Vec<Sequence> = Vec::with_capacity(pairs.len());
    for (first, second) in pairs {
        super::check_text(app, first)?;
        let second = second.as_deref();
        second
            .map(|text| super::check_text(app, text))
            .transpose()?;
        let encoded = text::encode(&served.pipeline, first, second, too_long, usize::MAX)?;
        usage.tokens += encoded.encoding.len();
        usage.truncated |= encoded.truncated;
        sequences.push(encoded.sequence());
    }
    if sequences.is_empty() {
        return Ok((Vec::new(), usage));
    }
    let values = served
        .worker
        .encode(&served.pipeline, sequences, Want::Outputs)
        .await?;
    let width = values.len() / pairs.len();
    Ok((values.chunks(width).map(<[f32]>::to_vec).collect(), usage))
}

/// Scores of classes, best first.
fn predictions(labels: &[String], logits: &[f32], raw: bool) -> Vec<Prediction> {
    // A single output is a value, not a choice.
    let scores: Vec<f64> = match raw || logits.len() == 1 {
        true => logits.iter().map(|&x| f64::from(x)).collect(),
        false => softmax(logits),
    };
    let mut all: Vec<Prediction> = labels
        .iter()
        .zip(scores)
        .map(|(label, score)| Prediction {
            score,
            label: label.clone(),
        })
        .collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all
}

/// Probabilities of one row of logits.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let wide: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
    malmoi_infer::sampling::softmax(&wide)
}

/// Classes of texts.
#[utoipa::path(post, path = "/predict", tag = "text-embeddings-inference", params(ModelQuery), request_body = PredictRequest, responses((status = 200, body = PredictResponse), (status = "4XX", description = "The request cannot be done")))]
pub async fn predict(
    State(app): State<App>,
    query: ModelQuery,
    Json(request): Json<PredictRequest>,
) -> Result<Response, ApiError> {
    let name = request.model.or(query.model);
    let served = app.model(name.as_deref(), "classes", |m| m.can(Ability::Predict))?;
    let as_pair = |mut list: Vec<String>| match list.len() {
        1 => Ok((list.remove(0), None)),
        2 => {
            let second = list.pop();
            Ok((list.remove(0), second))
        }
        n => Err(ApiError::invalid(format!(
            "an input has {n} texts: expected a text, or a pair of texts"
        ))
        .at("inputs")),
    };
    let (pairs, alone) = match request.inputs {
        PredictInputs::Text(text) => (vec![(text, None)], true),
        PredictInputs::Pair(list) => (vec![as_pair(list)?], true),
        PredictInputs::Batch(lists) => {
            let pairs = lists.into_iter().map(as_pair).collect::<Result<_, _>>();
            (pairs?, false)
        }
    };
    let too_long = TooLong::new(request.truncate, request.truncation_direction);
    let (rows, usage) = logits(&app, &served, &pairs, too_long).await?;
    let labels = served.labels(rows.first().map_or(0, Vec::len));
    let mut all: Vec<Vec<Prediction>> = (rows.iter())
        .map(|row| predictions(&labels, row, request.raw_scores))
        .collect();
    let answer = match (alone, all.pop()) {
        (true, Some(one)) => PredictResponse::One(one),
        (_, last) => {
            all.extend(last);
            PredictResponse::Many(all)
        }
    };
    Ok(Answer(answer, usage).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_come_best_first() {
        let labels = ["a".to_owned(), "b".to_owned()];
        let all = predictions(&labels, &[0.0, 3.0_f32.ln()], false);
        assert_eq!(all[0].label, "b");
        assert!((all[0].score - 0.75).abs() < 1e-6);
        assert_eq!(predictions(&labels[..1], &[-2.5], false)[0].score, -2.5);
    }
}
