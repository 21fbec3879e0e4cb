//! `/lab/models`: shapes of the served models and what they can do.

use axum::Json;
use axum::extract::State;
use malmoi_models::Head;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::routes::attention::direction_name;
use crate::served::{Ability, Served};
use crate::state::App;

/// The served models.
#[derive(Debug, Serialize, ToSchema)]
pub struct Models {
    /// The models.
    models: Vec<Model>,
}

/// Parameters of one part of a model.
#[derive(Debug, Serialize, ToSchema)]
pub struct Part {
    /// Its name.
    name: String,
    /// Its parameters.
    parameters: u64,
}

/// A model's shape and abilities.
#[derive(Debug, Serialize, ToSchema)]
pub struct Model {
    /// Its name.
    id: String,
    /// The published `model_type`.
    model_type: &'static str,
    /// The published class.
    architecture: &'static str,
    /// `encoder`, `decoder` or `encoder-decoder`.
    direction: &'static str,
    /// What it ends in.
    #[schema(value_type = String)]
    head: Head,
    /// What it can be asked.
    tasks: Vec<Ability>,
    /// Parameters.
    parameters: u64,
    /// Bytes of its weights in f32.
    weight_bytes: u64,
    /// Entries of the vocabulary.
    vocab_size: usize,
    /// Positions.
    max_len: usize,
    /// Tokens of an input.
    max_input_tokens: usize,
    /// Width of the hidden states.
    d_model: usize,
    /// Blocks.
    n_layers: usize,
    /// Heads.
    n_heads: usize,
    /// Key and value heads.
    n_kv_heads: usize,
    /// Width of a head.
    d_head: usize,
    /// Width of the feed-forward layer.
    d_ff: usize,
    /// Parameters by part.
    parts: Vec<Part>,
    /// Algorithm of the tokenizer.
    tokenizer: &'static str,
    /// The mask token, for encoders.
    mask_token: Option<String>,
    /// Whether it knows conversations.
    has_chat_template: bool,
    /// Its classes.
    labels: Vec<String>,
    /// `f32` or `bf16`.
    precision: String,
}

fn model(served: &Served) -> Model {
    let pipeline = &served.pipeline;
    let (config, info) = (pipeline.model.config(), served.info());
    let mask = pipeline.tokenizer.special().mask;
    Model {
        id: served.name.clone(),
        model_type: info.model_type,
        architecture: info.architecture,
        direction: direction_name(config.direction()),
        head: pipeline.model.head(),
        tasks: served.abilities().to_vec(),
        parameters: info.parameters,
        weight_bytes: info.weight_bytes,
        vocab_size: info.vocab_size,
        max_len: info.max_len,
        max_input_tokens: served.max_tokens(),
        d_model: info.d_model,
        n_layers: info.n_layers,
        n_heads: info.n_heads,
        n_kv_heads: config.n_kv_heads(),
        d_head: info.d_head,
        d_ff: info.d_ff,
        parts: (info.parts.into_iter())
            .map(|part| Part {
                name: part.name,
                parameters: part.parameters,
            })
            .collect(),
        tokenizer: pipeline.tokenizer.kind(),
        mask_token: mask.and_then(|id| pipeline.tokenizer.id_to_token(id)),
        has_chat_template: served.chat.is_some(),
        labels: config.labels().to_vec(),
        precision: pipeline.model.precision().to_string(),
    }
}

/// Shapes of the served models, and what they can be asked.
#[utoipa::path(get, path = "/lab/models", tag = "lab", responses((status = 200, body = Models), (status = "4XX", description = "The request cannot be done")))]
pub async fn models(State(app): State<App>) -> Result<Json<Models>, ApiError> {
    let models = app.models()?.iter().map(|served| model(served)).collect();
    Ok(Json(Models { models }))
}
