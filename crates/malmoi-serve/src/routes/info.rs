//! `/info`: what is served, as text-embeddings-inference says it.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::ModelQuery;
use super::embed::pooling_name;
use crate::error::ApiError;
use crate::served::Ability;
use crate::state::App;

/// The model that answers by default, or the one named.
#[utoipa::path(get, path = "/info", tag = "text-embeddings-inference", params(ModelQuery), responses((status = 200, body = Object), (status = "4XX", description = "The request cannot be done")))]
pub async fn info(State(app): State<App>, query: ModelQuery) -> Result<Json<Value>, ApiError> {
    let served = app.model(query.model.as_deref(), "information", |_| true)?;
    let limits = &app.config().limits;
    let model_type = if served.can(Ability::Predict) {
        let labels = served.pipeline.model.config().labels();
        let by_id: Map<String, Value> = (labels.iter().enumerate())
            .map(|(id, label)| (id.to_string(), json!(label)))
            .collect();
        let by_label: Map<String, Value> = (labels.iter().enumerate())
            .map(|(id, label)| (label.clone(), json!(id)))
            .collect();
        let kind = if served.can(Ability::Rerank) {
            "reranker"
        } else {
            "classifier"
        };
        json!({kind: {"id2label": by_id, "label2id": by_label}})
    } else if served.can(Ability::Embed) {
        json!({"embedding": {"pooling": pooling_name(served.pooling)}})
    } else {
        json!({"other": {"architecture": served.info().architecture}})
    };
    let precision = served.pipeline.model.precision().to_string();
    Ok(Json(json!({
        "model_id": served.name,
        "model_sha": null,
        "model_dtype": match precision.as_str() {
            "bf16" => "bfloat16",
            _ => "float32",
        },
        "model_type": model_type,
        "max_concurrent_requests": limits.queue,
        "max_input_length": served.max_tokens(),
        "max_batch_tokens": limits.batch_tokens,
        "max_batch_requests": null,
        "max_client_batch_size": limits.batch,
        "auto_truncate": false,
        "tokenization_workers": 2,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    })))
}
