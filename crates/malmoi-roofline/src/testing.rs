//! A machine with round numbers.

use crate::machine::{Level, Machine, Peak};

pub(crate) fn machine() -> Machine {
    let level = |name: &str, capacity, all: f64| Level {
        name: name.into(),
        capacity,
        one: all / 2.0,
        all,
    };
    let peak = |arithmetic, all: f64| Peak {
        arithmetic,
        unit: "test",
        one: all / 2.0,
        all,
    };
    Machine {
        processor: None,
        threads: 2,
        instruction_set: "test",
        peaks: vec![peak("f32", 100e9), peak("bf16", 800e9)],
        levels: vec![
            level("L2", Some(1_000_000), 200e9),
            level("memory", None, 10e9),
        ],
        reads: Vec::new(),
    }
}
