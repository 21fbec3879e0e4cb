//! The machine's roofs, what models cost against them, and bench workloads.

pub mod bench;
pub mod chart;
pub mod cost;
pub mod machine;
pub mod memory;
pub mod plan;
pub mod predict;
pub mod profile;
pub mod report;
pub mod runs;
#[cfg(test)]
mod testing;
