//! How fast a run goes.

use std::time::Duration;

/// How fast steps go.
#[derive(Debug, Default)]
pub(super) struct Pace {
    total: Duration,
    steps: u64,
    last: Duration,
    /// Moving means of seconds and tokens a step; a step weighs a tenth.
    recent: Option<(f64, f64)>,
}

impl Pace {
    pub(super) fn add(&mut self, time: Duration, tokens: u64) {
        self.total += time;
        self.steps += 1;
        self.last = time;
        let now = (time.as_secs_f64(), tokens as f64);
        self.recent = Some(match self.recent {
            None => now,
            Some((seconds, tokens)) => (
                seconds + 0.1 * (now.0 - seconds),
                tokens + 0.1 * (now.1 - tokens),
            ),
        });
    }

    pub(super) fn tokens_per_second(&self) -> f64 {
        self.recent
            .map_or(0.0, |(seconds, tokens)| tokens / seconds.max(1e-9))
    }

    pub(super) fn recent_milliseconds(&self) -> f64 {
        self.recent.map_or(0.0, |(seconds, _)| seconds * 1000.0)
    }

    pub(super) fn last_milliseconds(&self) -> f64 {
        self.last.as_secs_f64() * 1000.0
    }

    pub(super) fn milliseconds_per_step(&self) -> f64 {
        self.total.as_secs_f64() * 1000.0 / self.steps.max(1) as f64
    }
}
