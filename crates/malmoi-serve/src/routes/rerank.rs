//! `/rerank`: texts by how well they fit a query.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ModelQuery, predict};
use crate::body::{Answer, Json};
use crate::error::ApiError;
use crate::served::Ability;
use crate::state::App;
use crate::text::{TooLong, TruncationDirection};

/// A query and texts to order.
#[derive(Debug, Deserialize, ToSchema)]
pub struct RerankRequest {
    /// A served model.
    model: Option<String>,
    /// The query.
    query: String,
    /// The texts.
    texts: Vec<String>,
    /// Logits instead of values between 0 and 1.
    #[serde(default)]
    raw_scores: bool,
    /// Give the texts back.
    #[serde(default)]
    return_text: bool,
    /// Cut texts that are too long instead of refusing them.
    #[serde(default)]
    truncate: bool,
    /// Which end is cut.
    #[serde(default)]
    truncation_direction: TruncationDirection,
}

/// A text with its score.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rank {
    /// Which text, from 0.
    index: usize,
    /// Its score.
    score: f64,
    /// The text, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Texts by how well they fit a query, best first.
#[utoipa::path(post, path = "/rerank", tag = "text-embeddings-inference", params(ModelQuery), request_body = RerankRequest, responses((status = 200, body = Vec<Rank>), (status = "4XX", description = "The request cannot be done")))]
pub async fn rerank(
    State(app): State<App>,
    query: ModelQuery,
    Json(request): Json<RerankRequest>,
) -> Result<Answer<Vec<Rank>>, ApiError> {
    let name = request.model.or(query.model);
    let served = app.model(name.as_deref(), "reranking", |m| m.can(Ability::Rerank))?;
    let pair = |text: &String| (request.query.clone(), Some(text.clone()));
    let pairs: Vec<predict::Pair> = request.texts.iter().map(pair).collect();
    let too_long = TooLong::new(request.truncate, request.truncation_direction);
    let (rows, usage) = predict::logits(&app, &served, &pairs, too_long).await?;
    let mut texts = request.texts.into_iter();
    let mut ranks: Vec<Rank> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| {
            let logit = f64::from(row[0]);
            let text = texts.next().filter(|_| request.return_text);
            Rank {
                index,
                score: match request.raw_scores {
                    true => logit,
                    false => 1.0 / (1.0 + (-logit).exp()),
                },
                text,
            }
        })
        .collect();
    ranks.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(Answer(ranks, usage))
}
