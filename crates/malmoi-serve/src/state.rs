//! What all requests share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use axum::http::StatusCode;
use malmoi_roofline::machine::Machine;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::error::{ApiError, Kind};
use crate::metrics::Metrics;
use crate::served::Served;
use crate::traces::Traces;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientId {
    /// The n-th key.
    Key(usize),
    /// An address without a key.
    Address(IpAddr),
}

/// The shared state; cheap to clone.
#[derive(Clone, Debug)]
pub struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    models: OnceLock<Vec<Arc<Served>>>,
    metrics: Arc<Metrics>,
    started: Instant,
    draining: AtomicBool,
    clients: Mutex<HashMap<ClientId, usize>>,
    in_flight: AtomicUsize,
    machine: OnceLock<Machine>,
    lessons: Arc<Semaphore>,
    traces: OnceLock<Traces>,
}

impl App {
    /// A state without models yet.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(Inner {
            config,
            models: OnceLock::new(),
            metrics: Arc::new(Metrics::default()),
            started: Instant::now(),
            draining: AtomicBool::new(false),
            clients: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            machine: OnceLock::new(),
            lessons: Arc::new(Semaphore::new(1)),
            traces: OnceLock::new(),
        }))
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Since when the server runs.
    pub fn started(&self) -> Instant {
        self.0.started
    }

    /// The models are loaded.
    pub fn set_models(&self, models: Vec<Arc<Served>>) {
        let _once = self.0.models.set(models);
    }

    /// All models.
    ///
    /// # Errors
    /// 503 while they load.
    pub fn models(&self) -> Result<&[Arc<Served>], ApiError> {
        let models = self.0.models.get().map(Vec::as_slice);
        models.ok_or_else(|| ApiError::unavailable("the models are being loaded: try again soon"))
    }

    /// The model of that name; without a name, the first that `fits`, which `what` describes.
    ///
    /// # Errors
    /// 404 for an unknown name, 422 for a model that does not fit, 503 while models load.
    pub fn model(
        &self,
        name: Option<&str>,
        what: &str,
        fits: impl Fn(&Served) -> bool,
    ) -> Result<Arc<Served>, ApiError> {
        let models = self.models()?;
        let fitting = |models: &[Arc<Served>]| {
            let names = models.iter().filter(|m| fits(m)).map(|m| m.name.clone());
            names.collect::<Vec<_>>()
        };
        match name {
            Some(name) => {
                let model = models.iter().find(|model| model.name == name);
                let model = model.ok_or_else(|| {
                    let known: Vec<String> = models.iter().map(|m| m.name.clone()).collect();
                    ApiError::no_model(name, &known)
                })?;
                if fits(model) {
                    return Ok(Arc::clone(model));
                }
                let others = match fitting(models).join(", ") {
                    none if none.is_empty() => "no served model can".to_owned(),
                    some => format!("these can: {some}"),
                };
                Err(ApiError::invalid(format!(
                    "{what} needs another kind of model than {name:?} ({}): {others}",
                    model.describe()
                ))
                .at("model"))
            }
            None => models
                .iter()
                .find(|model| fits(model))
                .cloned()
                .ok_or_else(|| {
                    ApiError::invalid(format!(
                        "{what}: no served model can do it; serve one that does (--model DIR)"
                    ))
                    .at("model")
                }),
        }
    }

    /// Whether the server takes no more work.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Takes no more work from now on.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Requests and streams at work.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    /// The machine's roofs, measured on first use.
    pub fn machine(&self) -> &Machine {
        self.0.machine.get_or_init(Machine::measure)
    }

    /// The place where models are trained for a page; there is one.
    pub fn lessons(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.lessons)
    }

    /// Spans go there from now on.
    pub fn set_traces(&self, traces: Traces) {
        let _once = self.0.traces.set(traces);
    }

    /// Where spans go.
    pub fn traces(&self) -> Option<&Traces> {
        self.0.traces.get()
    }

    /// Counts a request of a client until the guard is dropped.
    ///
    /// # Errors
    /// 429 when the client has too many at once.
    pub fn enter(&self, client: ClientId) -> Result<InFlight, ApiError> {
        let limit = self.config().limits.per_client;
        let mut clients = self.0.clients.lock().expect("no panic while held");
        let count = clients.entry(client.clone()).or_default();
        if *count >= limit {
            drop(clients);
            self.metrics().rejected("client");
            return Err(ApiError::busy(
                format!("{limit} requests of this client are at work: wait for one of them"),
                1,
            ));
        }
        *count += 1;
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        self.metrics().in_flight.inc();
        Ok(InFlight {
            app: self.clone(),
            client,
        })
    }

    /// An error for a server that is going away.
    pub fn going_away() -> ApiError {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Kind::Unavailable,
            "the server is shutting down: ask another one",
        )
    }
}

/// A request at work.
#[derive(Debug)]
pub struct InFlight {
    app: App,
    client: ClientId,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut clients = self.app.0.clients.lock().expect("no panic while held");
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
        self.app.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.app.metrics().in_flight.dec();
    }
}
