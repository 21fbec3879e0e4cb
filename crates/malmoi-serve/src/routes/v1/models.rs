//! `/v1/models`.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::served::Served;
use crate::state::App;

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub struct Model {
    /// Its name.
    id: String,
    /// `model`.
    object: &'static str,
    /// Seconds since 1970 when it was loaded.
    created: u64,
    /// `malmoi`.
    owned_by: &'static str,
}

/// All models.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    object: &'static str,
    /// The models.
    data: Vec<Model>,
}

fn model(served: &Served) -> Model {
    Model {
        id: served.name.clone(),
        object: "model",
        created: served.created,
        owned_by: "malmoi",
    }
}

/// The served models.
#[utoipa::path(get, path = "/v1/models", tag = "openai", responses((status = 200, body = ModelList), (status = "4XX", description = "The request cannot be done")))]
pub async fn list(State(app): State<App>) -> Result<Json<ModelList>, ApiError> {
    Ok(Json(ModelList {
        object: "list",
        data: app.models()?.iter().map(|served| model(served)).collect(),
    }))
}

/// One of them.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "openai", params(("model" = String, Path, description = "Its name")), responses((status = 200, body = Model), (status = "4XX", description = "The request cannot be done")))]
pub async fn retrieve(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<Model>, ApiError> {
    Ok(Json(model(&*app.model(Some(&name), "a model", |_| true)?)))
}
