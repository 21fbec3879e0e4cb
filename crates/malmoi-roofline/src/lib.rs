//! Bench workloads and the cost model.
