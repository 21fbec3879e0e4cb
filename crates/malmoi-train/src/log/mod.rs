//! What a run writes down while it trains, besides checkpoints.

pub mod tensorboard;
