//! The thread itself.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};

use malmoi_infer::Pipeline;
use malmoi_infer::engine::{self, Engine};
use malmoi_models::Model;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::job::{Call, EncodeJob, Job};
use super::{Place, Stats, WorkerOptions, panic_text, phase};
use crate::metrics::{Metrics, OfModel};

/// What the thread holds.
pub(super) struct Run {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) draft: Option<Model>,
    pub(super) options: WorkerOptions,
    pub(super) stats: Arc<Stats>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) model: OfModel,
    pub(super) calls: VecDeque<Call>,
    pub(super) encodes: VecDeque<EncodeJob>,
}

impl Run {
    pub(super) fn run(mut self, waiting: &Receiver<Job>) {
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
}
