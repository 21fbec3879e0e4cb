//! Listening, and going away in good order.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{Config, ConfigError, ModelSource};
use crate::listener::{BoundedListener, Client};
use crate::routes;
use crate::served::{LoadError, Served};
use crate::state::App;
use crate::traces::Traces;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The address.
    #[error("cannot listen on {address}: {source}; choose another with --host and --port")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The system.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Loads the models, serves until `stop` resolves, then finishes what is at work (within the drain time). `ready` is told the
/// address once requests are answered, while models still load.
///
/// # Errors
/// [`ServeError`].
pub fn run(
    config: Config,
    models: Vec<ModelSource>,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    config.validate(&models)?;
    // Requests are parsed and tokenised here; models compute on threads of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("http")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(config, models, ready, stop));
    // Work that did not end in time is left behind.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    config: Config,
    models: Vec<ModelSource>,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let address = SocketAddr::new(config.host, config.port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Bind { address, source })?;
    let bound = listener.local_addr()?;
    let limits = config.limits.clone();
    let collector = config.collector.clone();
    let app = App::new(config);
    if let Some(collector) = collector {
        app.set_traces(Traces::start(collector));
    }
    let listener = BoundedListener::new(listener, limits.connections, limits.head_time);
    let router = routes::router(app.clone());
    let service = router.into_make_service_with_connect_info::<Client>();
    let (closing, mut closed) = watch::channel(false);
    let graceful = async move {
        // An error means that the sender is gone, which is a reason to stop as well.
        let _stop = closed.wait_for(|closed| *closed).await;
    };
    let server = axum::serve(listener, service).with_graceful_shutdown(graceful);
    let mut server = tokio::spawn(server.into_future());
    ready(bound);
    let loading = {
        let app = app.clone();
        tokio::task::spawn_blocking(move || load(&app, &models))
    };
    tokio::pin!(stop);
    tokio::select! {
        loaded = loading => {
            loaded.map_err(std::io::Error::other)??;
            tracing::info!(address = %bound, "ready");
            stop.await;
        }
        () = &mut stop => {}
    }
    tracing::info!("stopping: finishing {} requests", app.in_flight());
    app.drain();
    let _listening = closing.send(true);
    match tokio::time::timeout(limits.drain_time, &mut server).await {
        Ok(ended) => ended.map_err(std::io::Error::other)??,
        Err(_) => tracing::warn!("{} requests did not end in time", app.in_flight()),
    }
    if let Some(traces) = app.traces() {
        traces.flush().await;
    }
    Ok(())
}

fn load(app: &App, models: &[ModelSource]) -> Result<(), LoadError> {
    let mut served = Vec::with_capacity(models.len());
    for source in models {
        let start = std::time::Instant::now();
        let model = Served::load(source, &app.config().limits, app.metrics())?;
        let seconds = start.elapsed().as_secs_f64();
        tracing::info!(
            model = model.name,
            kind = model.describe(),
            seconds,
            "loaded"
        );
        served.push(Arc::new(model));
    }
    app.set_models(served);
    Ok(())
}
