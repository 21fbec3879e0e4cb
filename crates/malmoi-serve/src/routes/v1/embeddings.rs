//! `/v1/embeddings`.

use axum::extract::State;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::settings::check_rest;
use crate::body::{Answer, Json};
use crate::error::ApiError;
use crate::routes::embed;
use crate::routes::tokenize::OneOrMany;
use crate::served::Ability;
use crate::state::App;
use crate::text::TooLong;

/// How vectors are written.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// Numbers.
    #[default]
    Float,
    /// The bytes of 32-bit floats, little end first, in base 64.
    Base64,
}

/// Texts to turn into vectors.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Request {
    /// A served model.
    model: Option<String>,
    /// A text or several.
    input: OneOrMany<String>,
    /// How vectors are written.
    #[serde(default)]
    encoding_format: EncodingFormat,
    /// Keep only so many values of each vector (which is normalised again).
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
    /// Ignored.
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Map<String, Value>,
}

/// A vector.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Vector {
    /// Numbers.
    Float(Vec<f32>),
    /// Base 64.
    Base64(String),
}

/// A vector of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct Embedding {
    /// `embedding`.
    object: &'static str,
    /// Which text, from 0.
    index: usize,
    /// The vector.
    embedding: Vector,
}

/// Tokens of a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingUsage {
    /// Tokens read.
    prompt_tokens: usize,
    /// The same.
    total_tokens: usize,
}

/// Vectors.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingList {
    /// `list`.
    object: &'static str,
    /// The vectors.
    data: Vec<Embedding>,
    /// The model.
    model: String,
    /// Tokens.
    usage: EmbeddingUsage,
}

/// A vector of length 1 for each text.
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai", request_body = Request, responses((status = 200, body = EmbeddingList), (status = "4XX", description = "The request cannot be done")))]
pub async fn create(
    State(app): State<App>,
    Json(request): Json<Request>,
) -> Result<Answer<EmbeddingList>, ApiError> {
    check_rest(&request.rest)?;
    let served = app.model(request.model.as_deref(), "vectors", |m| {
        m.can(Ability::Embed)
    })?;
    let texts = request.input.into_vec();
    if texts.is_empty() {
        return Err(ApiError::invalid("no text: expected at least one").at("input"));
    }
    let (vectors, usage) = embed::vectors(
        &app,
        &served,
        &texts,
        TooLong::Refuse,
        true,
        request.dimensions,
    )
    .await?;
    let written = |vector: Vec<f32>| match request.encoding_format {
        EncodingFormat::Float => Vector::Float(vector),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            Vector::Base64(BASE64_STANDARD.encode(bytes))
        }
    };
    let data = (vectors.into_iter().enumerate())
        .map(|(index, vector)| Embedding {
            object: "embedding",
            index,
            embedding: written(vector),
        })
        .collect();
    let list = EmbeddingList {
        object: "list",
        data,
        model: served.name.clone(),
        usage: EmbeddingUsage {
            prompt_tokens: usage.tokens,
            total_tokens: usage.tokens,
        },
    };
    Ok(Answer(list, usage))
}
