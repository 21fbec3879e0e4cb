//! `/lab/machine` and `/lab/roofline`: what the machine can do, and where each layer stands under it.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use malmoi_kernels::probe::Arithmetic;
use malmoi_models::{Direction, Precision};
use malmoi_roofline::cost::{Phase, Widths, Work, count};
use malmoi_roofline::machine::{available_memory, total_memory};
use malmoi_roofline::memory::memory;
use malmoi_roofline::predict::predict;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::live::resident_bytes;
use crate::error::ApiError;
use crate::state::App;

/// Measures the machine, once, where it disturbs nobody's event loop.
async fn measured(app: &App) -> Result<(), ApiError> {
    let app = app.clone();
    let measuring = tokio::task::spawn_blocking(move || {
        app.machine();
    });
    measuring.await.map_err(|_| ApiError::internal())
}

/// The machine's roofs and memory; measured on first use.
#[utoipa::path(get, path = "/lab/machine", tag = "lab", responses((status = 200, body = Object), (status = "4XX", description = "The request cannot be done")))]
pub async fn machine(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    measured(&app).await?;
    let machine = app.machine();
    Ok(Json(json!({
        "processor": machine.processor,
        "threads": machine.threads,
        "instruction_set": machine.instruction_set,
        "peaks": machine.peaks,
        "levels": machine.levels,
        "memory": {
            "total": total_memory(),
            "available": available_memory(),
            "resident": resident_bytes(),
        },
    })))
}

/// Whose layers, doing what.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RooflineQuery {
    /// A served model; by default the first.
    model: Option<String>,
    /// `encode`, `prefill`, `decode` or `train`; by default what the model is for.
    phase: Option<String>,
    /// Sequences, 1 to 1024.
    #[param(minimum = 1, maximum = 1024)]
    batch: Option<usize>,
    /// Tokens of each.
    #[param(minimum = 1)]
    tokens: Option<usize>,
}

impl FromRequestParts<App> for RooflineQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        crate::routes::query(parts, app).await
    }
}

/// A phase under the machine's roofs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Roofline {
    /// The model.
    model: String,
    /// The phase.
    phase: String,
    /// Sequences.
    batch: usize,
    /// Tokens of each.
    tokens: usize,
    /// `f32` or `bf16`.
    precision: String,
    /// Operations in matrix products.
    flops: u64,
    /// Bytes moved.
    bytes: u64,
    /// Operations for each byte that comes from memory.
    intensity: f64,
    /// The least time.
    predicted_s: f64,
    /// What it waits for.
    bound: String,
    /// The roof of arithmetic.
    peak_flops: f64,
    /// The roof of memory.
    memory_bytes_per_second: f64,
    /// Its operations, in order.
    ops: Vec<Op>,
    /// Memory by what it holds.
    #[schema(value_type = Object)]
    memory: Value,
}

/// An operation, all its runs together.
#[derive(Debug, Serialize, ToSchema)]
pub struct Op {
    /// What it is.
    name: &'static str,
    /// Forward or backward.
    direction: &'static str,
    /// How often it runs.
    times: u64,
    /// Operations in matrix products.
    flops: u64,
    /// Bytes moved.
    bytes: u64,
    /// Operations for each byte.
    intensity: f64,
    /// The least time.
    seconds: f64,
    /// Time of its arithmetic.
    compute_seconds: f64,
    /// Time of its bytes.
    memory_seconds: f64,
    /// Operations a second at that speed.
    flops_per_second: f64,
    /// What it waits for.
    bound: String,
}

/// Where each operation of a model stands under the machine's roofs.
#[utoipa::path(get, path = "/lab/roofline", tag = "lab", params(RooflineQuery), responses((status = 200, body = Roofline), (status = "4XX", description = "The request cannot be done")))]
pub async fn roofline(
    State(app): State<App>,
    query: RooflineQuery,
) -> Result<Json<Roofline>, ApiError> {
    let served = app.model(query.model.as_deref(), "a roofline", |_| true)?;
    let model = &served.pipeline.model;
    let config = model.config();
    let default = match config.direction() {
        Direction::Encoder => "encode",
        _ => "decode",
    };
    let name = query.phase.as_deref().unwrap_or(default);
    let phase = Phase::named(name).ok_or_else(|| {
        ApiError::invalid(format!(
            "phase is {name:?}: expected encode, prefill, decode or train"
        ))
        .at("phase")
    })?;
    let batch = crate::routes::check_range("batch", query.batch.unwrap_or(1), 1..=1024)?;
    let longest = config.max_len().max(1);
    let tokens = query.tokens.unwrap_or(128.min(longest));
    let tokens = crate::routes::check_range("tokens", tokens, 1..=longest)?;
    measured(&app).await?;
    let machine = app.machine();
    let arithmetic = match model.precision() {
        Precision::F32 => Arithmetic::F32,
        Precision::Bf16 => Arithmetic::Bf16,
    };
    let work = Work::new(phase, batch, tokens);
    let widths = Widths::of_phase(phase, arithmetic);
    let invalid = |error: malmoi_roofline::cost::CostError| ApiError::invalid(error.to_string());
    let cost = count(config, &work, widths).map_err(invalid)?;
    let prediction = predict(&cost, machine, arithmetic);
    let held = memory(config, &work, widths).map_err(invalid)?;
    let ops = prediction.ops.iter().map(|timed| {
        let (flops, bytes) = (
            timed.op.times * timed.op.flops,
            timed.op.times * timed.op.bytes(),
        );
        Op {
            name: timed.op.name,
            direction: timed.op.direction.name(),
            times: timed.op.times,
            flops,
            bytes,
            intensity: flops as f64 / (bytes as f64).max(1.0),
            seconds: timed.seconds,
            compute_seconds: timed.compute_seconds,
            memory_seconds: timed.memory_seconds,
            flops_per_second: flops as f64 / timed.seconds.max(1e-12),
            bound: timed.bound.name().to_owned(),
        }
    });
    Ok(Json(Roofline {
        model: served.name.clone(),
        phase: name.to_owned(),
        batch,
        tokens,
        precision: model.precision().to_string(),
        flops: cost.flops(),
        bytes: cost.bytes(),
        intensity: prediction.intensity,
        predicted_s: prediction.seconds,
        bound: prediction.bound.name().to_owned(),
        peak_flops: machine.peak(arithmetic),
        memory_bytes_per_second: machine.memory().all,
        ops: ops.collect(),
        memory: json!(held),
    }))
}
