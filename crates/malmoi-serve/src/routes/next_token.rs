//! `/next-token`: what a decoder expects behind every token.

use axum::extract::State;
use malmoi_models::PackedBatch;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{Answer, Json, Usage};
use crate::error::ApiError;
use crate::served::Ability;
use crate::state::App;
use crate::text::{Actual, Candidate, Row, Token, TooLong};

/// Longest text, in tokens.
const MAX_TOKENS: usize = 512;

/// A text to look into.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A served model.
    model: Option<String>,
    /// The text.
    text: String,
    /// Candidates at each place, 1 to 100.
    #[serde(default = "ten")]
    #[schema(minimum = 1, maximum = 100)]
    top_k: usize,
    /// Divisor of the logits, above 0.
    #[serde(default = "one")]
    #[schema(exclusive_minimum = 0)]
    temperature: f64,
}

fn ten() -> usize {
    10
}

fn one() -> f64 {
    1.0
}

/// What is expected at each place.
#[derive(Debug, Serialize, ToSchema)]
pub struct Response {
    /// The model.
    model: String,
    /// The tokens.
    tokens: Vec<Token>,
    /// Whether the text was cut.
    truncated: bool,
    /// A place behind every token.
    positions: Vec<Position>,
}

/// What is expected behind a token.
#[derive(Debug, Serialize, ToSchema)]
pub struct Position {
    /// Index of the token.
    after: usize,
    /// The most probable next tokens.
    candidates: Vec<Candidate>,
    /// The token that follows; null behind the last.
    actual: Option<Actual>,
}

/// The probabilities of the next token behind each token of a text.
#[utoipa::path(post, path = "/next-token", tag = "introspection", request_body = Request, responses((status = 200, body = Response), (status = "4XX", description = "The request cannot be done")))]
pub async fn next_token(
    State(app): State<App>,
    Json(request): Json<Request>,
) -> Result<Answer<Response>, ApiError> {
    let served = app.model(request.model.as_deref(), "next tokens", |m| {
        m.can(Ability::NextToken)
    })?;
    let top_k = super::check_range("top_k", request.top_k, 1..=100)?;
    let temperature = request.temperature;
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(ApiError::invalid(format!(
            "temperature is {temperature}: expected a number above 0"
        ))
        .at("temperature"));
    }
    let (encoded, tokens) =
        super::read_text(&app, &served, &request.text, TooLong::CUT, MAX_TOKENS)?;
    let ids = encoded.encoding.ids.clone();
    let positions = served
        .worker
        .call(move |pipeline| {
            let rows: Vec<u32> = (0..ids.len() as u32).collect();
            let batch = PackedBatch::from_sequences(&[&ids]);
            let logits = pipeline.model.logits(&batch, &rows)?;
            let width = logits.len() / ids.len();
            (logits.chunks(width).enumerate())
                .map(|(after, logits)| {
                    let row = Row::new(logits, temperature);
                    let next = ids.get(after + 1);
                    Ok(Position {
                        after,
                        candidates: row.best(pipeline, top_k)?,
                        actual: next.map(|&id| row.actual(pipeline, id)).transpose()?,
                    })
                })
                .collect::<Result<Vec<_>, ApiError>>()
        })
        .await?;
    let usage = Usage {
        tokens: tokens.len(),
        truncated: encoded.truncated,
    };
    let response = Response {
        model: served.name.clone(),
        tokens,
        truncated: encoded.truncated,
        positions,
    };
    Ok(Answer(response, usage))
}
