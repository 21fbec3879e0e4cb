//! What Prometheus scrapes, and the live numbers of the lab.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Labels of a finished request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Finished {
    /// The route's pattern; `other` where there is none, so that guessing paths makes no series.
    pub route: String,
    /// HTTP method.
    pub method: String,
    /// HTTP status.
    pub status: u16,
}

/// Labels of a route.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Route {
    /// The route's pattern.
    pub route: String,
}

/// Labels of a model.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfModel {
    /// The model's name.
    pub model: String,
}

/// Labels of a phase of the work.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Phase {
    /// The model's name.
    pub model: String,
    /// `queue` or `compute`.
    pub phase: &'static str,
}

/// Labels of a refusal.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    /// `queue`, `client`, `key`, `host`, `draining`.
    pub reason: &'static str,
}

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Finished requests.
    pub requests: Family<Finished, Counter>,
    /// From the head of a request to the head of its answer.
    pub duration: Durations<Route>,
    /// Requests and streams at work.
    pub in_flight: Gauge,
    /// Time of a request in a model's queue and on its thread.
    pub phases: Durations<Phase>,
    /// Requests that wait for a model.
    pub queue: Family<OfModel, Gauge>,
    /// Tokens that went through an encoder together.
    pub batch_tokens: Durations<OfModel>,
    /// Texts that took part in one step of generation.
    pub batch_rows: Durations<OfModel>,
    /// From a request to its first generated token.
    pub first_token: Durations<OfModel>,
    /// Generated tokens a second of one text.
    pub token_rate: Durations<OfModel>,
    /// Tokens read.
    pub tokens_in: Family<OfModel, Counter>,
    /// Tokens generated.
    pub tokens_out: Family<OfModel, Counter>,
    /// Prompt tokens whose keys and values were there already.
    pub tokens_reused: Family<OfModel, Counter>,
    /// Bytes of keys and values.
    pub cache_bytes: Family<OfModel, Gauge>,
    /// Refused requests.
    pub rejections: Family<Reason, Counter>,
    /// All finished requests, for the lab.
    pub finished: Counter,
    /// All refused requests, for the lab.
    pub refused: Counter,
}

fn seconds() -> Histogram {
    // 1 ms to 65 s.
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

fn tokens() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 14))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("malmoi"),
            requests: Family::default(),
            duration: Family::new_with_constructor(seconds),
            in_flight: Gauge::default(),
            phases: Family::new_with_constructor(seconds),
            queue: Family::default(),
            batch_tokens: Family::new_with_constructor(tokens),
            batch_rows: Family::new_with_constructor(tokens),
            first_token: Family::new_with_constructor(seconds),
            token_rate: Family::new_with_constructor(tokens),
            tokens_in: Family::default(),
            tokens_out: Family::default(),
            tokens_reused: Family::default(),
            cache_bytes: Family::default(),
            rejections: Family::default(),
            finished: Counter::default(),
            refused: Counter::default(),
        };
        let r = &mut metrics.registry;
        r.register("requests", "Finished requests", metrics.requests.clone());
        r.register_with_unit(
            "request_duration",
            "From the head of a request to the head of its answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        r.register(
            "requests_in_flight",
            "Requests and streams at work",
            metrics.in_flight.clone(),
        );
        r.register_with_unit(
            "phase_duration",
            "Time of a request in each phase of a model's work",
            Unit::Seconds,
            metrics.phases.clone(),
        );
        r.register(
            "queue_size",
            "Requests that wait for a model",
            metrics.queue.clone(),
        );
        r.register(
            "batch_tokens",
            "Tokens that went through an encoder together",
            metrics.batch_tokens.clone(),
        );
        r.register(
            "batch_rows",
            "Texts that took part in one step of generation",
            metrics.batch_rows.clone(),
        );
        r.register_with_unit(
            "time_to_first_token",
            "From a request to its first generated token",
            Unit::Seconds,
            metrics.first_token.clone(),
        );
        r.register(
            "tokens_per_second",
            "Generated tokens a second of one text",
            metrics.token_rate.clone(),
        );
        r.register("tokens_in", "Tokens read", metrics.tokens_in.clone());
        r.register("tokens_out", "Tokens generated", metrics.tokens_out.clone());
        r.register(
            "tokens_reused",
            "Prompt tokens whose keys and values were cached",
            metrics.tokens_reused.clone(),
        );
        r.register_with_unit(
            "cache",
            "Keys and values held",
            Unit::Bytes,
            metrics.cache_bytes.clone(),
        );
        r.register(
            "rejections",
            "Refused requests by reason",
            metrics.rejections.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string");
        text
    }

    /// Counts a refusal.
    pub fn rejected(&self, reason: &'static str) {
        self.rejections.get_or_create(&Reason { reason }).inc();
        self.refused.inc();
    }
}

/// A count with its rate over the last seconds.
#[derive(Debug)]
pub struct Rate {
    started: Instant,
    total: AtomicU64,
    /// Second and count, by second modulo the length.
    recent: Mutex<[(u64, u64); WINDOW + 1]>,
}

/// Seconds that a rate looks back.
const WINDOW: usize = 10;

impl Default for Rate {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            total: AtomicU64::new(0),
            recent: Mutex::new([(0, 0); WINDOW + 1]),
        }
    }
}

impl Rate {
    /// Counts.
    pub fn add(&self, count: u64) {
        self.total.fetch_add(count, Ordering::Relaxed);
        let second = self.started.elapsed().as_secs();
        let mut recent = self.recent.lock().expect("no panic while held");
        let slot = &mut recent[second as usize % (WINDOW + 1)];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += count;
    }

    /// Everything counted.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// A second, over the last ten.
    pub fn per_second(&self) -> f64 {
        let second = self.started.elapsed().as_secs();
        let recent = self.recent.lock().expect("no panic while held");
        let fresh = recent
            .iter()
            .filter(|(at, _)| second - at.min(&second) < WINDOW as u64);
        let counted: u64 = fresh.map(|(_, count)| count).sum();
        counted as f64
            / self
                .started
                .elapsed()
                .as_secs_f64()
                .clamp(1.0, WINDOW as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_written_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        metrics.rejected("queue");
        let model = OfModel { model: "a".into() };
        metrics.queue.get_or_create(&model).set(3);
        let text = metrics.text();
        assert!(text.contains("malmoi_rejections_total{reason=\"queue\"} 1"));
        assert!(text.contains("malmoi_queue_size{model=\"a\"} 3"));
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_rate_counts_the_last_seconds() {
        let rate = Rate::default();
        rate.add(5);
        rate.add(7);
        assert_eq!(rate.total(), 12);
        assert!((rate.per_second() - 12.0).abs() < 1e-9);
    }
}
