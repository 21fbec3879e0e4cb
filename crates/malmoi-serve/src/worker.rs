//! A thread for each model: the only one that computes with it. It takes everything that waits, packs what can go through an
//! encoder together whoever asked, and gives every running text one more token.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Instant;

use malmoi_infer::Pipeline;
use malmoi_infer::engine::{self, Engine, EngineOptions};
use malmoi_models::{Head, Model, PackedBatch};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::oneshot;
use tracing::Span;

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

/// Tokens of a text with their segments.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Segment of each, or empty for segment 0.
    pub segments: Vec<u32>,
}

/// What is wanted of sequences.
#[derive(Clone, Debug)]
pub enum Want {
    /// Last hidden states, `[N, D]`.
    Hidden,
    /// What the head says, a row a sequence or a token.
    Outputs,
    /// Logits of these rows (counted over the request's tokens), `[M, V]`.
    Logits(Vec<u32>),
}

impl Want {
    fn same_run(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

struct EncodeJob {
    sequences: Vec<Sequence>,
    want: Want,
    reply: oneshot::Sender<Result<Vec<f32>, ApiError>>,
    place: Place,
}

impl EncodeJob {
    fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.ids.len()).sum()
    }

    /// Rows of logits.
    fn rows(&self) -> usize {
        match &self.want {
            Want::Logits(rows) => rows.len(),
            _ => 0,
        }
    }
}

/// Logits that one pass makes at most, 256 MB of them.
const MAX_LOGITS: usize = 1 << 26;

/// Work with the model that is none of the usual kinds.
type Call = Box<dyn FnOnce(&Pipeline) + Send>;

enum Job {
    Call(Call),
    Encode(EncodeJob),
    Generate(Box<engine::Request>, Place),
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

/// Sequences of several requests as one batch. Segments are left out where all are 0, which every model accepts.
fn pack(parts: &[&Vec<Sequence>]) -> PackedBatch {
    let all = || parts.iter().flat_map(|part| part.iter());
    let ids: Vec<&[u32]> = all().map(|s| s.ids.as_slice()).collect();
    let batch = PackedBatch::from_sequences(&ids);
    if all().all(|s| s.segments.iter().all(|&segment| segment == 0)) {
        return batch;
    }
    let segments: Vec<u32> = all()
        .flat_map(|s| {
            let given = s.segments.iter().copied();
            given.chain(std::iter::repeat(0)).take(s.ids.len())
        })
        .collect();
    batch.with_segments(segments)
}

struct Run {
    pipeline: Arc<Pipeline>,
    draft: Option<Model>,
    options: WorkerOptions,
    stats: Arc<Stats>,
    metrics: Arc<Metrics>,
    model: OfModel,
    calls: VecDeque<Call>,
    encodes: VecDeque<EncodeJob>,
}

impl Run {
    fn run(mut self, waiting: &Receiver<Job>) {
        let pipeline = Arc::clone(&self.pipeline);
        let draft = self.draft.take();
        let options = self.options.engine;
        let new_engine = || Engine::new(&pipeline.model, draft.as_ref(), options);
        let mut engine = new_engine();
        // Places in the queue of texts that the engine has not begun.
        let mut places: VecDeque<Place> = VecDeque::new();
        loop {
            let idle = self.calls.is_empty() && self.encodes.is_empty() && engine.is_idle();
            let first = match idle {
                true => waiting.recv().map_err(|_| TryRecvError::Disconnected),
                false => waiting.try_recv(),
            };
            let mut next = first;
            loop {
                match next {
                    Ok(Job::Call(work)) => self.calls.push_back(work),
                    Ok(Job::Encode(job)) => self.encodes.push_back(job),
                    Ok(Job::Generate(request, place)) => {
                        engine.submit(*request);
                        places.push_back(place);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) if idle => return,
                    Err(TryRecvError::Disconnected) => break,
                }
                next = waiting.try_recv();
            }
            if let Some(work) = self.calls.pop_front() {
                work(&pipeline);
            }
            if !self.encodes.is_empty() {
                self.encode();
            }
            if !engine.is_idle() {
                let step = catch_unwind(AssertUnwindSafe(|| engine.step()));
                match step {
                    Ok(report) => self.observe(&report, &engine),
                    Err(panic) => {
                        tracing::error!(panic = panic_text(&*panic), "generation panicked");
                        // Its state may be half changed: the texts it held end here, those that wait go on.
                        let waiting = engine.abandon();
                        engine = new_engine();
                        waiting
                            .into_iter()
                            .for_each(|request| engine.submit(request));
                    }
                }
            }
            while places.len() > engine.waiting() {
                if let Some(place) = places.pop_front() {
                    phase(&self.metrics, &self.model.model, "queue", place.since);
                }
            }
            self.stats.active.store(engine.active(), Ordering::Relaxed);
            let bytes = engine.cache_bytes();
            self.stats.cache_bytes.store(bytes, Ordering::Relaxed);
            (self.metrics.cache_bytes.get_or_create(&self.model)).set(bytes as i64);
        }
    }

    fn observe(&self, report: &engine::StepReport, engine: &Engine<'_>) {
        self.stats.tokens_in.add(report.prompt_tokens as u64);
        self.stats.tokens_out.add(report.new_tokens as u64);
        let metrics = &self.metrics;
        let counted = |family: &Family<OfModel, Counter>, n: usize| {
            family.get_or_create(&self.model).inc_by(n as u64);
        };
        counted(&metrics.tokens_in, report.prompt_tokens);
        counted(&metrics.tokens_out, report.new_tokens);
        counted(&metrics.tokens_reused, report.reused_tokens);
        let rows = metrics.batch_rows.get_or_create(&self.model);
        rows.observe(engine.active() as f64);
    }

    /// Runs the oldest request, and with it as many others of its kind as the budget holds.
    fn encode(&mut self) {
        let Some(first) = self.encodes.pop_front() else {
            return;
        };
        let vocab_size = self.pipeline.model.config().vocab_size();
        let (mut tokens, mut rows) = (first.tokens(), first.rows());
        let mut jobs = vec![first];
        let mut rest = VecDeque::new();
        while let Some(job) = self.encodes.pop_front() {
            let fits = tokens + job.tokens() <= self.options.batch_tokens
                && (rows + job.rows()) * vocab_size <= MAX_LOGITS;
            if fits && job.want.same_run(&jobs[0].want) && !job.reply.is_closed() {
                tokens += job.tokens();
                rows += job.rows();
                jobs.push(job);
            } else if !job.reply.is_closed() {
                rest.push_back(job);
            }
        }
        self.encodes = rest;
        for job in &jobs {
            phase(&self.metrics, &self.model.model, "queue", job.place.since);
        }
        let start = Instant::now();
        let outcome = guarded(|| self.encoded(&jobs));
        phase(&self.metrics, &self.model.model, "compute", start);
        self.stats.tokens_in.add(tokens as u64);
        let counter = self.metrics.tokens_in.get_or_create(&self.model);
        counter.inc_by(tokens as u64);
        match outcome {
            Ok(answers) => {
                for (job, answer) in jobs.into_iter().zip(answers) {
                    let _gone = job.reply.send(Ok(answer));
                }
            }
            // One of them is at fault; alone, only that one fails.
            Err(_) if jobs.len() > 1 => {
                for job in jobs {
                    let answer = guarded(|| self.encoded(std::slice::from_ref(&job)));
                    let answer = answer.map(|mut one| one.pop().unwrap_or_default());
                    let _gone = job.reply.send(answer);
                }
            }
            Err(error) => {
                for job in jobs {
                    let _gone = job.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// The values of each job.
    fn encoded(&self, jobs: &[EncodeJob]) -> Result<Vec<Vec<f32>>, ApiError> {
        let model = &self.pipeline.model;
        // One request may be larger than the budget: then it goes in several runs.
        let mut answers = vec![Vec::new(); jobs.len()];
        let tokens: usize = jobs.iter().map(EncodeJob::tokens).sum();
        if tokens <= self.options.batch_tokens || matches!(jobs[0].want, Want::Logits(_)) {
            let parts: Vec<&Vec<Sequence>> = jobs.iter().map(|job| &job.sequences).collect();
            let batch = pack(&parts);
            self.observe_batch(&batch);
            let values = match &jobs[0].want {
                Want::Hidden => model.last_hidden(&batch)?,
                Want::Outputs => model.outputs(&batch)?,
                Want::Logits(_) => {
                    let mut rows = Vec::new();
                    let mut first = 0;
                    for job in jobs {
                        if let Want::Logits(own) = &job.want {
                            rows.extend(own.iter().map(|row| row + first));
                        }
                        first += job.tokens() as u32;
                    }
                    model.logits(&batch, &rows)?
                }
            };
            let units: Vec<usize> = jobs.iter().map(|job| self.units(job)).collect();
            let width = values.len() / units.iter().sum::<usize>().max(1);
            let mut rest = values.as_slice();
            for (answer, units) in answers.iter_mut().zip(units) {
                let (own, others) = rest.split_at(units * width);
                answer.extend_from_slice(own);
                rest = others;
            }
            return Ok(answers);
        }
        for (job, answer) in jobs.iter().zip(&mut answers) {
            let mut from = 0;
            while from < job.sequences.len() {
                let mut held = job.sequences[from].ids.len();
                let mut to = from + 1;
                while to < job.sequences.len()
                    && held + job.sequences[to].ids.len() <= self.options.batch_tokens
                {
                    held += job.sequences[to].ids.len();
                    to += 1;
                }
                let some = job.sequences[from..to].to_vec();
                let batch = pack(&[&some]);
                self.observe_batch(&batch);
                answer.extend(match job.want {
                    Want::Outputs => model.outputs(&batch)?,
                    _ => model.last_hidden(&batch)?,
                });
                from = to;
            }
        }
        Ok(answers)
    }

    fn observe_batch(&self, batch: &PackedBatch) {
        let histogram = self.metrics.batch_tokens.get_or_create(&self.model);
        histogram.observe(batch.n_tokens() as f64);
    }

    /// Rows that a job's answer has.
    fn units(&self, job: &EncodeJob) -> usize {
        match &job.want {
            Want::Hidden => job.tokens(),
            Want::Logits(rows) => rows.len(),
            Want::Outputs if is_by_token(self.pipeline.model.head()) => job.tokens(),
            Want::Outputs => job.sequences.len(),
        }
    }
}

/// Whether a head says something of each token.
pub fn is_by_token(head: Head) -> bool {
    matches!(
        head,
        Head::TokenClassification | Head::QuestionAnswering | Head::ReplacedTokens
    )
}
