//! Probes and metrics.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::state::App;

/// Whether the server lives.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    status: &'static str,
}

/// Alive: the process answers.
#[utoipa::path(get, path = "/health", tag = "operation", responses((status = 200, body = Health)))]
pub async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Ready: the models are loaded and the server is not going away.
#[utoipa::path(get, path = "/ready", tag = "operation", responses((status = 200, body = Health), (status = 503)))]
pub async fn ready(State(app): State<App>) -> Result<Json<Health>, ApiError> {
    app.models()?;
    if app.is_draining() {
        return Err(App::going_away());
    }
    Ok(Json(Health { status: "ready" }))
}

/// Numbers for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operation", responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub async fn metrics(State(app): State<App>) -> ([(&'static str, &'static str); 1], String) {
    if let Ok(models) = app.models() {
        for model in models {
            let queued = model
                .worker
                .stats
                .queued
                .load(std::sync::atomic::Ordering::Relaxed);
            let label = crate::metrics::OfModel {
                model: model.name.clone(),
            };
            app.metrics().queue.get_or_create(&label).set(queued as i64);
        }
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([("content-type", kind)], app.metrics().text())
}
