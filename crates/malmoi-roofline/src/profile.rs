//! What a run spent its time on, next to the machine's roofs.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use malmoi_kernels::probe::Arithmetic;
use malmoi_kernels::profile::{Cost, Direction, Recording};
use serde::Serialize;
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::predict::Bound;

/// All runs of an operation on operands of one shape, but for its first size: the tokens of a packed batch differ from step to step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Name of the operation.
    pub name: &'static str,
    /// `forward`, `backward`, `update`.
    pub direction: &'static str,
    /// Its sizes; the first one as a range, `1160..1471x256`, where it differed.
    pub shape: String,
    /// How often it ran.
    pub calls: u64,
    /// Seconds in all.
    pub seconds: f64,
    /// Share of the recorded time.
    pub share: f64,
    /// Operations a second.
    pub flops_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Least time over time; nothing where neither arithmetic nor traffic is known.
    pub roof_share: Option<f64>,
    /// What its least time waits for.
    pub bound: Bound,
}

/// A profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// Operations, the longest first.
    pub rows: Vec<Row>,
    /// Seconds from the beginning of the first operation to the end of the last one: preparing the data does not count.
    pub seconds: f64,
    /// Seconds among them in no operation.
    pub other_seconds: f64,
    /// Operations that ran after the record was full.
    pub dropped: u64,
}

/// Adds up a recording and compares every operation with the roofs of `machine`. Far bytes come from the fastest level that holds
/// everything the process has: `resident` bytes.
pub fn summarise(
    recording: &Recording,
    machine: &Machine,
    arithmetic: Arithmetic,
    resident: u64,
) -> Profile {
    let start = recording.events.iter().map(|event| event.start);
    let start = start.fold(f64::INFINITY, f64::min);
    let end = recording.events.last();
    let seconds = end.map_or(0.0, |event| event.start + event.seconds - start);
    let mut sums: BTreeMap<(&str, Direction, &str, bool), Sum> = BTreeMap::new();
    let mut inside = 0.0;
    for event in &recording.events {
        let label = &event.label;
        let (first, rest) = first_size(&label.shape);
        let (least, bound) = least(&label.cost, machine, arithmetic, resident);
        inside += event.seconds;
        let sum = sums
            .entry((label.name, label.direction, rest, first.is_some()))
            .or_insert_with(|| Sum {
                sizes: first.unwrap_or(0)..=first.unwrap_or(0),
                calls: 0,
                seconds: 0.0,
                cost: Cost::default(),
                least: 0.0,
                bound,
            });
        if let Some(size) = first {
            sum.sizes = size.min(*sum.sizes.start())..=size.max(*sum.sizes.end());
        }
        sum.calls += 1;
        sum.seconds += event.seconds;
        sum.cost = sum.cost + label.cost;
        sum.least += least;
    }
    let mut rows: Vec<Row> = sums
        .into_iter()
        .map(|((name, direction, rest, sized), sum)| {
            let time = sum.seconds.max(f64::MIN_POSITIVE);
            let (smallest, largest) = (sum.sizes.start(), sum.sizes.end());
            Row {
                name,
                direction: direction.name(),
                shape: match sized {
                    false => rest.to_owned(),
                    true if smallest == largest => format!("{smallest}{rest}"),
                    true => format!("{smallest}..{largest}{rest}"),
                },
                calls: sum.calls,
                seconds: sum.seconds,
                share: sum.seconds / seconds.max(f64::MIN_POSITIVE),
                flops_per_second: sum.cost.flops as f64 / time,
                bytes_per_second: sum.cost.bytes as f64 / time,
                roof_share: (sum.least > 0.0).then_some(sum.least / time),
                bound: sum.bound,
            }
        })
        .collect();
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Profile {
        rows,
        seconds,
        other_seconds: (seconds - inside).max(0.0),
        dropped: recording.dropped,
    }
}

/// What all runs of an operation add up to.
struct Sum {
    /// Smallest and largest first size.
    sizes: RangeInclusive<u64>,
    calls: u64,
    seconds: f64,
    cost: Cost,
    /// Least seconds.
    least: f64,
    bound: Bound,
}

/// The first size of the first of several, and what follows it: `64x256, 8x256` is 64 and `x256, 8x256`. A shape of a single size has none.
fn first_size(shape: &str) -> (Option<u64>, &str) {
    let split = shape
        .split_once('x')
        .and_then(|(first, _)| Some((first.parse().ok()?, &shape[first.len()..])));
    split.map_or((None, shape), |(first, rest)| (Some(first), rest))
}

/// Least seconds of an operation, and what it waits for.
fn least(cost: &Cost, machine: &Machine, arithmetic: Arithmetic, resident: u64) -> (f64, Bound) {
    let near_bytes = cost.bytes - cost.far_bytes;
    let (far_level, near_level) = (machine.level_of(resident), machine.level_of(cost.bytes));
    let compute = cost.flops as f64 / machine.peak(arithmetic);
    let far = cost.far_bytes as f64 / far_level.all;
    let near = near_bytes as f64 / near_level.all;
    if compute >= far + near {
        (compute, Bound::Compute)
    } else if far >= near {
        (far + near, Bound::Level(far_level.name.clone()))
    } else {
        (far + near, Bound::Level(near_level.name.clone()))
    }
}

/// The recording in the trace event format that Chrome's `chrome://tracing` and Perfetto read.
pub fn chrome_trace(recording: &Recording) -> Value {
    let events = recording.events.iter().map(|event| {
        let label = &event.label;
        json!({
            "name": label.name,
            "cat": label.direction.name(),
            "ph": "X",
            "ts": 1e6 * event.start,
            "dur": 1e6 * event.seconds,
            "pid": 1,
            "tid": event.thread + 1,
            "args": {
                "shape": label.shape,
                "flops": label.cost.flops,
                "bytes": label.cost.bytes,
                "gflops_per_second": label.cost.flops as f64 / event.seconds.max(1e-9) / 1e9,
            },
        })
    });
    json!({ "displayTimeUnit": "ms", "traceEvents": events.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use malmoi_kernels::profile::{Event, Label};

    use super::*;
    use crate::testing::machine;

    fn event(name: &'static str, start: f64, seconds: f64, flops: u64, bytes: u64) -> Event {
        Event {
            label: Label {
                name,
                direction: Direction::Forward,
                shape: "2x3".into(),
                cost: Cost {
                    flops,
                    bytes,
                    far_bytes: bytes / 2,
                },
            },
            start,
            seconds,
            thread: 0,
        }
    }

    fn recording() -> Recording {
        Recording {
            events: vec![
                event("Linear", 0.0, 0.2, 10_000_000_000, 1000),
                event("Norm", 0.2, 0.1, 0, 500_000_000),
                event("Linear", 0.3, 0.2, 10_000_000_000, 1000),
                event("Other", 0.6, 0.1, 0, 0),
            ],
            seconds: 0.8,
            dropped: 0,
        }
    }

    #[test]
    fn equal_operations_are_added_up_and_compared_with_the_roof() {
        // 100 GFLOP/s and 10 GB/s from memory.
        let profile = summarise(&recording(), &machine(), Arithmetic::F32, 1 << 30);
        let linear = &profile.rows[0];
        assert_eq!((linear.name, linear.calls), ("Linear", 2));
        assert!((linear.flops_per_second - 50e9).abs() < 1.0);
        assert!((linear.roof_share.expect("known") - 0.5).abs() < 1e-9);
        assert!((linear.share - 0.4 / 0.7).abs() < 1e-9);
        assert_eq!(linear.bound, Bound::Compute);
        let norm = profile
            .rows
            .iter()
            .find(|row| row.name == "Norm")
            .expect("there");
        assert!((norm.roof_share.expect("known") - 0.5).abs() < 1e-9);
        assert_eq!(norm.bound.name(), "memory");
        let other = profile
            .rows
            .iter()
            .find(|row| row.name == "Other")
            .expect("there");
        assert_eq!(other.roof_share, None);
        assert!((profile.other_seconds - 0.1).abs() < 1e-9);
    }

    #[test]
    fn batches_of_different_lengths_are_one_row() {
        let mut recording = recording();
        for (at, shape) in ["9x3, 5x3", "2x3", "7x3", "2x4"].into_iter().enumerate() {
            recording.events[at].label.shape = shape.into();
            recording.events[at].label.name = "Linear";
        }
        let profile = summarise(&recording, &machine(), Arithmetic::F32, 1 << 30);
        let mut shapes: Vec<(&str, u64)> = profile
            .rows
            .iter()
            .map(|row| (row.shape.as_str(), row.calls))
            .collect();
        shapes.sort_unstable();
        assert_eq!(shapes, [("2..7x3", 2), ("2x4", 1), ("9x3, 5x3", 1)]);
    }

    #[test]
    fn what_lies_before_the_first_operation_does_not_count() {
        let mut recording = recording();
        for event in &mut recording.events {
            event.start += 5.0;
        }
        let profile = summarise(&recording, &machine(), Arithmetic::F32, 1 << 30);
        assert!((profile.seconds - 0.7).abs() < 1e-9);
        assert!((profile.other_seconds - 0.1).abs() < 1e-9);
    }

    #[test]
    fn weights_come_from_where_the_whole_model_is() {
        let recording = Recording {
            events: vec![event("Linear", 0.0, 1.0, 0, 800_000)],
            seconds: 1.0,
            dropped: 0,
        };
        let least = |resident| {
            let found = summarise(&recording, &machine(), Arithmetic::F32, resident);
            found.rows[0].roof_share.expect("known")
        };
        // Half of the bytes are far: 10 GB/s from memory, 200 GB/s from a cache of a megabyte that holds everything.
        let near = 400_000.0 / 200e9;
        assert!((least(1 << 30) - (near + 400_000.0 / 10e9)).abs() < 1e-12);
        assert!((least(900_000) - 2.0 * near).abs() < 1e-12);
    }

    #[test]
    fn a_full_record_covers_the_time_up_to_its_end() {
        let mut recording = recording();
        recording.dropped = 5;
        recording.seconds = 100.0;
        assert!(
            (summarise(&recording, &machine(), Arithmetic::F32, 1 << 30).seconds - 0.7).abs()
                < 1e-9
        );
    }

    #[test]
    fn traces_hold_microseconds() {
        let trace = chrome_trace(&recording());
        let events = trace["traceEvents"].as_array().expect("a list");
        assert_eq!(events.len(), 4);
        assert_eq!(events[1]["ph"], "X");
        assert!((events[1]["ts"].as_f64().expect("a number") - 200_000.0).abs() < 1e-6);
        assert_eq!(events[1]["args"]["bytes"], 500_000_000_u64);
    }
}
