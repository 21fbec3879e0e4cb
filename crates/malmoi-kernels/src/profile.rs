//! A recorder of what ran when: every operation's name, start, duration, arithmetic and traffic.
//!
//! Off unless [`start`] was called, and then an operation costs one relaxed load. On, an event costs a clock reading at each end
//! and a push under a lock, well under a microsecond. Spans are opened by the code that calls kernels (the bridge to the tensor
//! engine, the optimiser), because only that knows what an operation means.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Which way an operation ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From inputs to outputs.
    Forward,
    /// From the gradient of the outputs to those of the inputs.
    Backward,
    /// Changing parameters.
    Update,
}

impl Direction {
    /// `forward`, `backward`, `update`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::Backward => "backward",
            Direction::Update => "update",
        }
    }
}

/// Arithmetic and least traffic of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Operations; a multiply-add counts as two.
    pub flops: u64,
    /// Bytes of every operand read once and every result written once.
    pub bytes: u64,
    /// Those among them that were touched last a whole pass ago: weights, caches, what was kept for the backward pass.
    pub far_bytes: u64,
}

impl std::ops::Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost {
            flops: self.flops + other.flops,
            bytes: self.bytes + other.bytes,
            far_bytes: self.far_bytes + other.far_bytes,
        }
    }
}

/// What an operation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Such as `linear`.
    pub name: &'static str,
    /// Which way it ran.
    pub direction: Direction,
    /// Its sizes, such as `1024x768x3072`.
    pub shape: String,
    /// What it has to do.
    pub cost: Cost,
}

/// One operation that ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What ran.
    pub label: Label,
    /// Seconds from [`start`] to its beginning.
    pub start: f64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Number of the thread that called it, in order of appearance.
    pub thread: usize,
}

static ENABLED: AtomicBool = AtomicBool::new(false);
static RECORD: Mutex<Record> = Mutex::new(Record {
    start: None,
    events: Vec::new(),
    threads: Vec::new(),
    dropped: 0,
});

struct Record {
    start: Option<Instant>,
    events: Vec<Event>,
    threads: Vec<std::thread::ThreadId>,
    dropped: u64,
}

/// The record. A thread that panicked while it pushed an event left a whole record behind, so poison means nothing here.
fn record() -> std::sync::MutexGuard<'static, Record> {
    RECORD
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Forgets what was recorded and starts recording, for the whole process.
pub fn start() {
    let mut record = record();
    *record = Record {
        start: Some(Instant::now()),
        events: Vec::new(),
        threads: Vec::new(),
        dropped: 0,
    };
    ENABLED.store(true, Ordering::Relaxed);
}

/// What was recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// What ran, in order of its end.
    pub events: Vec<Event>,
    /// Seconds from [`start`] to [`stop`].
    pub seconds: f64,
    /// Operations that ran after the record was full.
    pub dropped: u64,
}

/// Events that a record holds: thousands of steps, in about 100 MB.
const FULL: usize = 1 << 20;

/// Stops recording and returns what ran.
pub fn stop() -> Recording {
    ENABLED.store(false, Ordering::Relaxed);
    let mut record = record();
    let seconds = record
        .start
        .take()
        .map_or(0.0, |at| at.elapsed().as_secs_f64());
    Recording {
        events: std::mem::take(&mut record.events),
        seconds,
        dropped: std::mem::take(&mut record.dropped),
    }
}

/// Whether something records.
#[inline]
#[must_use]
pub fn enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// Opens a span that ends when the guard is dropped; `label` is called only while something records.
#[inline]
#[must_use = "the span ends when this is dropped"]
pub fn span(label: impl FnOnce() -> Label) -> Option<Span> {
    enabled().then(|| Span {
        label: Some(label()),
        start: Instant::now(),
    })
}

/// An open span.
#[derive(Debug)]
pub struct Span {
    label: Option<Label>,
    start: Instant,
}

impl Drop for Span {
    fn drop(&mut self) {
        let seconds = self.start.elapsed().as_secs_f64();
        let mut record = record();
        let (Some(label), Some(origin)) = (self.label.take(), record.start) else {
            return;
        };
        if record.events.len() >= FULL {
            record.dropped += 1;
            return;
        }
        let id = std::thread::current().id();
        let known = record.threads.iter().position(|thread| *thread == id);
        let thread = known.unwrap_or_else(|| {
            record.threads.push(id);
            record.threads.len() - 1
        });
        record.events.push(Event {
            label,
            start: self.start.saturating_duration_since(origin).as_secs_f64(),
            seconds,
            thread,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label {
            name: "test",
            direction: Direction::Forward,
            shape: "2x3".into(),
            cost: Cost {
                flops: 12,
                bytes: 24,
                far_bytes: 0,
            },
        }
    }

    // One test, because the recorder belongs to the whole process.
    #[test]
    fn spans_are_recorded_only_between_start_and_stop() {
        assert!(span(|| unreachable!("nothing records")).is_none());
        start();
        {
            let _outer = span(label);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        std::thread::spawn(|| drop(span(label)))
            .join()
            .expect("no panic");
        let late = span(label);
        let Recording {
            events, seconds, ..
        } = stop();
        drop(late);
        let ours: Vec<&Event> = events.iter().filter(|e| e.label == label()).collect();
        assert_eq!(
            ours.len(),
            2,
            "the span that ended after the stop is not there"
        );
        assert!(ours[0].seconds >= 0.002 && seconds >= ours[0].start + ours[0].seconds);
        assert_ne!(ours[0].thread, ours[1].thread);
        assert!(!enabled());
        assert_eq!(stop(), Recording::default());
    }
}
