//! `/lab/live`: what the server is doing.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::state::App;

/// What the server is doing.
#[derive(Debug, Serialize, ToSchema)]
pub struct Live {
    /// Since the start.
    uptime_seconds: f64,
    /// Finished requests.
    requests: u64,
    /// Requests and streams at work, this one included.
    in_flight: usize,
    /// Refused requests.
    rejected: u64,
    /// Memory of the process.
    resident_bytes: u64,
    /// The models.
    models: Vec<LiveModel>,
}

/// What a model is doing.
#[derive(Debug, Serialize, ToSchema)]
pub struct LiveModel {
    /// Its name.
    id: String,
    /// Requests that wait.
    queued: usize,
    /// Texts being generated.
    active: usize,
    /// Tokens read.
    tokens_in: u64,
    /// Tokens generated.
    tokens_out: u64,
    /// Over the last ten seconds.
    tokens_in_per_second: f64,
    /// Over the last ten seconds.
    tokens_out_per_second: f64,
    /// Keys and values held.
    cache_bytes: usize,
    /// Their bound.
    cache_limit_bytes: usize,
}

/// What the server is doing now.
#[utoipa::path(get, path = "/lab/live", tag = "lab", responses((status = 200, body = Live), (status = "4XX", description = "The request cannot be done")))]
pub async fn live(State(app): State<App>) -> Result<Json<Live>, ApiError> {
    let models = app.models()?.iter().map(|served| {
        let stats = &served.worker.stats;
        LiveModel {
            id: served.name.clone(),
            queued: stats.queued.load(Ordering::Relaxed),
            active: stats.active.load(Ordering::Relaxed),
            tokens_in: stats.tokens_in.total(),
            tokens_out: stats.tokens_out.total(),
            tokens_in_per_second: stats.tokens_in.per_second(),
            tokens_out_per_second: stats.tokens_out.per_second(),
            cache_bytes: stats.cache_bytes.load(Ordering::Relaxed),
            cache_limit_bytes: app.config().limits.cache_bytes,
        }
    });
    Ok(Json(Live {
        uptime_seconds: app.started().elapsed().as_secs_f64(),
        requests: app.metrics().finished.get(),
        in_flight: app.in_flight(),
        rejected: app.metrics().refused.get(),
        resident_bytes: resident_bytes(),
        models: models.collect(),
    }))
}

/// Memory of this process; 0 where the system does not say.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes = kilobytes.and_then(|number| number.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
