//! `/embed`, `/embed_all` and `/similarity`: vectors.

use axum::extract::State;
use malmoi_infer::embed::{Pooling, cosine, normalize};
use serde::Deserialize;
use utoipa::ToSchema;

use super::ModelQuery;
use super::tokenize::OneOrMany;
use crate::body::{Answer, Json, Usage};
use crate::error::ApiError;
use crate::served::{Ability, Served};
use crate::state::App;
use crate::text::{self, TooLong, TruncationDirection};
use crate::worker::Want;

/// Texts to turn into vectors.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EmbedRequest {
    /// A served model.
    model: Option<String>,
    /// A text or several.
    inputs: OneOrMany<String>,
    /// Divide by the length of the vector.
    #[serde(default = "yes")]
    normalize: bool,
    /// Cut texts that are too long instead of refusing them.
    #[serde(default)]
    truncate: bool,
    /// Which end is cut.
    #[serde(default)]
    truncation_direction: TruncationDirection,
    /// Keep only so many values of each vector.
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
}

fn yes() -> bool {
    true
}

/// Hidden states of texts: a list of vectors for each, and what it took.
pub async fn hidden(
    app: &App,
    served: &Served,
    texts: &[String],
    too_long: TooLong,
) -> Result<(Vec<Vec<f32>>, Usage), ApiError> {
    super::check_batch(app, texts.len())?;
    let mut usage = Usage::default();
    let mut sequences = Vec::with_capacity(texts.len());
    for text in texts {
        super::check_text(app, text)?;
        let encoded = text::encode(&served.pipeline, text, None, too_long, usize::MAX)?;
        usage.tokens += encoded.encoding.len();
        usage.truncated |= encoded.truncated;
        sequences.push(encoded.sequence());
    }
    if sequences.is_empty() {
        return Ok((Vec::new(), usage));
    }
    let d = served.pipeline.model.config().d_model();
    let lengths: Vec<usize> = sequences.iter().map(|s| s.ids.len()).collect();
    let all = served
        .worker
        .encode(&served.pipeline, sequences, Want::Hidden)
        .await?;
    let mut rest = all.as_slice();
    let mut vectors = Vec::with_capacity(lengths.len());
    for length in lengths {
        let (own, others) = rest.split_at(length * d);
        vectors.push(own.to_vec());
        rest = others;
    }
    Ok((vectors, usage))
}

/// A vector for each text.
pub async fn vectors(
    app: &App,
    served: &Served,
    texts: &[String],
    too_long: TooLong,
    normal: bool,
    dimensions: Option<usize>,
) -> Result<(Vec<Vec<f32>>, Usage), ApiError> {
    let d = served.pipeline.model.config().d_model();
    let kept = match dimensions {
        Some(count) => super::check_range("dimensions", count, 1..=d)?,
        None => d,
    };
    let (states, usage) = hidden(app, served, texts, too_long).await?;
    let vector = |states: Vec<f32>| {
        let mut vector = served.pooling.pool(&states, d);
        vector.truncate(kept);
        if normal {
            normalize(&mut vector);
        }
        vector
    };
    Ok((states.into_iter().map(vector).collect(), usage))
}

/// A vector for each text.
#[utoipa::path(post, path = "/embed", tag = "text-embeddings-inference", params(ModelQuery), request_body = EmbedRequest, responses((status = 200, body = Vec<Vec<f32>>), (status = "4XX", description = "The request cannot be done")))]
pub async fn embed(
    State(app): State<App>,
    query: ModelQuery,
    Json(request): Json<EmbedRequest>,
) -> Result<Answer<Vec<Vec<f32>>>, ApiError> {
    let name = request.model.or(query.model);
    let served = app.model(name.as_deref(), "vectors", |m| m.can(Ability::Embed))?;
    let texts = request.inputs.into_vec();
    let (vectors, usage) = vectors(
        &app,
        &served,
        &texts,
        TooLong::new(request.truncate, request.truncation_direction),
        request.normalize,
        request.dimensions,
    )
    .await?;
    Ok(Answer(vectors, usage))
}

/// Texts of which every token gets a vector.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EmbedAllRequest {
    /// A served model.
    model: Option<String>,
    /// A text or several.
    inputs: OneOrMany<String>,
    /// Cut texts that are too long instead of refusing them.
    #[serde(default)]
    truncate: bool,
    /// Which end is cut.
    #[serde(default)]
    truncation_direction: TruncationDirection,
}

/// A vector for each token of each text.
#[utoipa::path(post, path = "/embed_all", tag = "text-embeddings-inference", params(ModelQuery), request_body = EmbedAllRequest, responses((status = 200, body = Vec<Vec<Vec<f32>>>), (status = "4XX", description = "The request cannot be done")))]
pub async fn embed_all(
    State(app): State<App>,
    query: ModelQuery,
    Json(request): Json<EmbedAllRequest>,
) -> Result<Answer<Vec<Vec<Vec<f32>>>>, ApiError> {
    let name = request.model.or(query.model);
    let served = app.model(name.as_deref(), "vectors", |m| m.can(Ability::Embed))?;
    let texts = request.inputs.into_vec();
    let too_long = TooLong::new(request.truncate, request.truncation_direction);
    let (states, usage) = hidden(&app, &served, &texts, too_long).await?;
    let d = served.pipeline.model.config().d_model();
    let by_token = |states: Vec<f32>| states.chunks(d).map(<[f32]>::to_vec).collect();
    Ok(Answer(states.into_iter().map(by_token).collect(), usage))
}

/// A text and others to compare it with.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SimilarityRequest {
    /// A served model.
    model: Option<String>,
    /// The texts.
    inputs: SimilarityInputs,
    /// How.
    parameters: Option<SimilarityParameters>,
}

/// A text and others to compare it with.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SimilarityInputs {
    /// The text.
    source_sentence: String,
    /// The others.
    sentences: Vec<String>,
}

/// How texts are compared.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SimilarityParameters {
    /// Cut texts that are too long instead of refusing them.
    #[serde(default)]
    truncate: bool,
    /// Which end is cut.
    #[serde(default)]
    truncation_direction: TruncationDirection,
}

/// Cosines between the vector of a text and those of others.
#[utoipa::path(post, path = "/similarity", tag = "text-embeddings-inference", params(ModelQuery), request_body = SimilarityRequest, responses((status = 200, body = Vec<f64>), (status = "4XX", description = "The request cannot be done")))]
pub async fn similarity(
    State(app): State<App>,
    query: ModelQuery,
    Json(request): Json<SimilarityRequest>,
) -> Result<Answer<Vec<f64>>, ApiError> {
    let name = request.model.or(query.model);
    let served = app.model(name.as_deref(), "similarity", |m| {
        m.can(Ability::Similarity)
    })?;
    let too_long = request.parameters.map_or(TooLong::Refuse, |p| {
        TooLong::new(p.truncate, p.truncation_direction)
    });
    let mut texts = vec![request.inputs.source_sentence];
    texts.extend(request.inputs.sentences);
    let (vectors, usage) = vectors(&app, &served, &texts, too_long, true, None).await?;
    let cosines = vectors[1..].iter().map(|other| cosine(&vectors[0], other));
    Ok(Answer(cosines.collect(), usage))
}

/// How a pooling is called in `/info`.
pub fn pooling_name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::Cls => "cls",
        Pooling::Last => "last_token",
        Pooling::Max => "max",
        Pooling::MeanSqrtLen => "mean_sqrt_len",
        Pooling::WeightedMean => "weighted_mean",
    }
}
