//! Objectives, training loop, optimisers, schedules and resume.

pub mod objectives;
pub mod optim;
