//! A thread for each model: the only one that computes with it. It takes everything that waits, packs what can go through an
//! encoder together whoever asked, and gives every running text one more token.

mod encode;
mod job;
mod run;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use malmoi_infer::Pipeline;
use malmoi_infer::engine::{self, EngineOptions};
use malmoi_models::Model;
use tokio::sync::oneshot;
use tracing::Span;

use job::{EncodeJob, Job, pack};
pub use job::{Sequence, Want};
use run::Run;

use crate::error::ApiError;
use crate::metrics::{Metrics, OfModel, Phase, Rate};

/// Numbers of one model that others look at.
#[derive(Debug, Default)]
pub struct Stats {
    /// Requests that wait.
    pub queued: AtomicUsize,
    /// Texts being generated.
    pub active: AtomicUsize,
    /// Bytes of keys and values held.
    pub cache_bytes: AtomicUsize,
    /// Tokens read.
    pub tokens_in: Rate,
    /// Tokens generated.
    pub tokens_out: Rate,
}

/// A place in the queue; given back when dropped.
#[derive(Debug)]
pub struct Place {
    stats: Arc<Stats>,
    since: Instant,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stats.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The way to a model's thread.
#[derive(Debug)]
pub struct Worker {
    jobs: Sender<Job>,
    /// Its numbers.
    pub stats: Arc<Stats>,
    queue: usize,
    metrics: Arc<Metrics>,
    model: OfModel,
}

/// What a worker needs to know.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The model's name.
    pub name: String,
    /// Requests that may wait.
    pub queue: usize,
    /// Tokens that go through an encoder together.
    pub batch_tokens: usize,
    /// Generation.
    pub engine: EngineOptions,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        pipeline: Arc<Pipeline>,
        draft: Option<Model>,
        options: WorkerOptions,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (jobs, waiting) = channel();
        let stats = Arc::new(Stats::default());
        let model = OfModel {
            model: options.name.clone(),
        };
        let worker = Self {
            jobs,
            stats: Arc::clone(&stats),
            queue: options.queue,
            metrics: Arc::clone(&metrics),
            model: model.clone(),
        };
        let run = Run {
            pipeline,
            draft,
            options,
            stats,
            metrics,
            model,
            calls: VecDeque::new(),
            encodes: VecDeque::new(),
        };
        std::thread::Builder::new()
            .name(format!("model {}", run.options.name))
            .spawn(move || run.run(&waiting))?;
        Ok(worker)
    }

    fn enter(&self) -> Result<Place, ApiError> {
        let stats = Arc::clone(&self.stats);
        // Counted first, so that requests that come together cannot both take the last place.
        let before = stats.queued.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            stats,
            since: Instant::now(),
        };
        if before < self.queue {
            return Ok(place);
        }
        self.metrics.rejected("queue");
        Err(ApiError::busy(
            format!("{before} requests wait for this model already: try again later"),
            2,
        ))
    }

    fn send(&self, job: Job) -> Result<(), ApiError> {
        (self.jobs.send(job)).map_err(|_| ApiError::unavailable("the server is shutting down"))
    }

    /// Runs `work` on the model's thread. When the caller goes away before its turn, nothing is done.
    ///
    /// # Errors
    /// 429 when the queue is full, what `work` returns, 500 when it panics.
    pub async fn call<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Pipeline) -> Result<R, ApiError> + Send + 'static,
    ) -> Result<R, ApiError> {
        let place = self.enter()?;
        let (reply, answer) = oneshot::channel();
        let span = Span::current();
        let (metrics, model) = (Arc::clone(&self.metrics), self.model.model.clone());
        self.send(Job::Call(Box::new(move |pipeline| {
            let _inside = span.enter();
            phase(&metrics, &model, "queue", place.since);
            drop(place);
            if reply.is_closed() {
                return;
            }
            let start = Instant::now();
            let result = guarded(|| work(pipeline));
            phase(&metrics, &model, "compute", start);
            let _gone = reply.send(result);
        })))?;
        answer.await.map_err(|_| ApiError::internal())?
    }

    /// Sends sequences through the model, together with those of others.
    ///
    /// # Errors
    /// 429 when the queue is full, 422 for sequences that do not fit.
    pub async fn encode(
        &self,
        pipeline: &Pipeline,
        sequences: Vec<Sequence>,
        want: Want,
    ) -> Result<Vec<f32>, ApiError> {
        // Checked before it is mixed with the work of others.
        let sizes = pipeline.model.config().sizes();
        let limit = pipeline.model.config().position_limit();
        pack(&[&sequences]).validate(sizes.vocab_size, limit, sizes.n_segments)?;
        let place = self.enter()?;
        let (reply, answer) = oneshot::channel();
        self.send(Job::Encode(EncodeJob {
            sequences,
            want,
            reply,
            place,
        }))?;
        answer.await.map_err(|_| ApiError::internal())?
    }

    /// Queues a text to be written; its sink hears of it.
    ///
    /// # Errors
    /// 429 when the queue is full.
    pub fn generate(&self, request: engine::Request) -> Result<(), ApiError> {
        let place = self.enter()?;
        self.send(Job::Generate(Box::new(request), place))
    }
}

fn phase(metrics: &Metrics, model: &str, phase: &'static str, since: Instant) {
    let label = Phase {
        model: model.to_owned(),
        phase,
    };
    let seconds = since.elapsed().as_secs_f64();
    metrics.phases.get_or_create(&label).observe(seconds);
}

/// The result of `work`; a panic concerns this request alone.
fn guarded<R>(work: impl FnOnce() -> Result<R, ApiError>) -> Result<R, ApiError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        tracing::error!(panic = panic_text(&*panic), "a request panicked");
        Err(ApiError::internal())
    })
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    (panic.downcast_ref::<&str>().copied())
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}
