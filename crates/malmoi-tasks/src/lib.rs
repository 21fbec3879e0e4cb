//! Examples, labels, spans and metrics on the host.

pub mod inputs;
pub mod metrics;
pub mod qa;
