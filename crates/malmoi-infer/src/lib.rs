//! Generation, sampling and pipelines.
