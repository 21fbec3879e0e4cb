//! Bench workloads and the cost model.

pub mod bench;
