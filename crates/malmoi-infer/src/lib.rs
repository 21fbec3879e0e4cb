//! Generation, sampling and pipelines.

pub mod sampling;
