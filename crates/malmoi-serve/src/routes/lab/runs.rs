//! `/lab/runs`: curves of training runs, also while they go on.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{FromRequestParts, Path as UrlPath, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::error::{ApiError, Kind};
use crate::state::App;

/// A run whose metrics changed so recently is going on.
const ACTIVE: Duration = Duration::from_secs(60);
/// Bytes of a run's metrics that are read at most, from the start.
const MAX_BYTES: u64 = 256 << 20;

/// The runs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Runs {
    /// The runs, the most recently changed first.
    runs: Vec<RunSummary>,
}

/// A run.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunSummary {
    /// Its name.
    name: String,
    /// Its last step.
    step: u64,
    /// Seconds since 1970 when its metrics changed.
    updated: u64,
    /// Whether it is going on.
    active: bool,
}

/// Curves of a run.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunCurves {
    /// Its name.
    name: String,
    /// Its last step.
    step: u64,
    /// Whether it is going on.
    active: bool,
    /// Its settings (TOML).
    config: Option<String>,
    /// Training: columns of equal length.
    #[schema(value_type = Object)]
    train: Map<String, Value>,
    /// Validation: columns of equal length.
    #[schema(value_type = Object)]
    valid: Map<String, Value>,
    /// Texts that the run wrote on its way.
    samples: Vec<Sample>,
}

/// A text that a run wrote.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sample {
    /// At which step.
    step: u64,
    /// The text.
    text: String,
}

/// What of a run.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RunQuery {
    /// Only later steps.
    #[serde(default)]
    after: u64,
    /// Thin each curve to about so many points, 2 to 10000.
    #[param(minimum = 2, maximum = 10000)]
    points: Option<usize>,
}

impl FromRequestParts<App> for RunQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        crate::routes::query(parts, app).await
    }
}

/// The training runs that the server may show.
#[utoipa::path(get, path = "/lab/runs", tag = "lab", responses((status = 200, body = Runs), (status = "4XX", description = "The request cannot be done")))]
pub async fn list(State(app): State<App>) -> Result<Json<Runs>, ApiError> {
    let read = tokio::task::spawn_blocking(move || {
        let mut runs: Vec<RunSummary> = (find(&app.config().runs).into_iter())
            .map(|(name, directory)| {
                let (updated, active) = changed(&directory);
                RunSummary {
                    name,
                    step: read(&directory).last_step,
                    updated,
                    active,
                }
            })
            .collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.updated));
        runs
    });
    let runs = read.await.map_err(|_| ApiError::internal())?;
    Ok(Json(Runs { runs }))
}

/// Curves of a run.
#[utoipa::path(get, path = "/lab/runs/{name}", tag = "lab", params(("name" = String, Path, description = "Its name"), RunQuery), responses((status = 200, body = RunCurves), (status = "4XX", description = "The request cannot be done")))]
pub async fn retrieve(
    State(app): State<App>,
    UrlPath(name): UrlPath<String>,
    query: RunQuery,
) -> Result<Json<RunCurves>, ApiError> {
    let points = crate::routes::check_range("points", query.points.unwrap_or(1000), 2..=10_000)?;
    let read = tokio::task::spawn_blocking(move || {
        let runs = find(&app.config().runs);
        let Some((_, directory)) = runs.into_iter().find(|(known, _)| *known == name) else {
            return Err(ApiError::new(
                StatusCode::NOT_FOUND,
                Kind::NotFound,
                format!("no run is called {name:?}: /lab/runs lists them"),
            ));
        };
        let lines = read(&directory);
        let of_kind = |kind: &str| {
            let rows = lines.rows.iter().filter(|row| {
                row["kind"] == kind && row["step"].as_u64().is_some_and(|step| step > query.after)
            });
            columns(&thinned(rows.collect(), points))
        };
        let samples = lines.rows.iter().filter(|row| row["kind"] == "sample");
        let (_, active) = changed(&directory);
        Ok(RunCurves {
            name,
            step: lines.last_step,
            active,
            config: std::fs::read_to_string(directory.join("config.toml")).ok(),
            train: of_kind("train"),
            valid: of_kind("valid"),
            samples: samples
                .filter_map(|row| {
                    Some(Sample {
                        step: row["step"].as_u64().filter(|step| *step > query.after)?,
                        text: row["text"].as_str()?.to_owned(),
                    })
                })
                .collect(),
        })
    });
    Ok(Json(read.await.map_err(|_| ApiError::internal())??))
}

/// The run directories among `roots` and directly inside them, by name.
fn find(roots: &[PathBuf]) -> Vec<(String, PathBuf)> {
    let is_run = |path: &Path| path.join("metrics.jsonl").is_file();
    let mut runs: Vec<(String, PathBuf)> = Vec::new();
    for root in roots {
        let mut found = Vec::new();
        if is_run(root) {
            found.push(root.clone());
        } else if let Ok(entries) = std::fs::read_dir(root) {
            found.extend(
                entries
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|path| is_run(path)),
            );
            found.sort();
        }
        for directory in found {
            let whole = directory
                .canonicalize()
                .unwrap_or_else(|_| directory.clone());
            let name = whole
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let taken = |name: &str| runs.iter().any(|(known, _)| known == name);
            let unique = (2..).map(|n| format!("{name}-{n}")).find(|n| !taken(n));
            match taken(&name) {
                false => runs.push((name, directory)),
                true => runs.extend(unique.map(|name| (name, directory))),
            }
        }
    }
    runs
}

fn changed(directory: &Path) -> (u64, bool) {
    let file = std::fs::metadata(directory.join("metrics.jsonl"));
    let Ok(time) = file.and_then(|file| file.modified()) else {
        return (0, false);
    };
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    let age = SystemTime::now().duration_since(time).unwrap_or_default();
    (seconds, age < ACTIVE)
}

struct Lines {
    rows: Vec<Value>,
    last_step: u64,
}

/// The lines of a run's metrics. A last line that is still being written is left out.
fn read(directory: &Path) -> Lines {
    let mut lines = Lines {
        rows: Vec::new(),
        last_step: 0,
    };
    let Ok(file) = std::fs::File::open(directory.join("metrics.jsonl")) else {
        return lines;
    };
    let bounded = std::io::Read::take(file, MAX_BYTES);
    for line in BufReader::new(bounded).lines() {
        let Ok(line) = line else { break };
        if let Ok(row) = serde_json::from_str::<Value>(&line) {
            lines.last_step = lines.last_step.max(row["step"].as_u64().unwrap_or(0));
            lines.rows.push(row);
        }
    }
    lines
}

/// About `points` rows at even distances, the last one always.
fn thinned(rows: Vec<&Value>, points: usize) -> Vec<&Value> {
    let every = rows.len().div_ceil(points).max(1);
    let last = rows.len().saturating_sub(1);
    let keep = |at: usize| at.is_multiple_of(every) || at == last;
    (rows.into_iter().enumerate())
        .filter(|(at, _)| keep(*at))
        .map(|(_, row)| row)
        .collect()
}

/// A column for every number that a row has; null where others lack it.
fn columns(rows: &[&Value]) -> Map<String, Value> {
    let mut names: Vec<&String> = Vec::new();
    for object in rows.iter().filter_map(|row| row.as_object()) {
        for (name, value) in object {
            if value.is_number() && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let column = |name: &String| rows.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
    names
        .into_iter()
        .map(|name| (name.clone(), json!(column(name))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_and_are_thinned() {
        let rows: Vec<Value> = (0..10)
            .map(|step| json!({"step": step, "kind": "train", "loss": 1.0}))
            .chain([json!({"step": 10, "kind": "train"})])
            .collect();
        let thin = thinned(rows.iter().collect(), 4);
        let columns = columns(&thin);
        assert_eq!(columns["step"], json!([0, 3, 6, 9, 10]));
        assert_eq!(columns["loss"], json!([1.0, 1.0, 1.0, 1.0, null]));
        assert!(!columns.contains_key("kind"));
    }

    #[test]
    fn runs_are_found_by_name_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["x/a", "y/a", "y/b"] {
            let run = dir.path().join(name);
            std::fs::create_dir_all(&run).unwrap();
            std::fs::write(run.join("metrics.jsonl"), "{\"step\": 3}\n{\"st").unwrap();
        }
        let roots = [dir.path().join("x/a"), dir.path().join("y")];
        let names: Vec<String> = find(&roots).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "a-2", "b"]);
        assert_eq!(read(&roots[0]).last_step, 3);
    }
}
