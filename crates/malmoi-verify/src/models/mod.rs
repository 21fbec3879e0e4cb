//! Model fixtures: forward passes, losses, gradients, optimiser steps and generation.

use std::path::Path;

use serde_json::Value;

use crate::fixture::read_json;
use crate::{Fixture, FixtureReport, Options};

/// Checks a model fixture.
pub fn check(dir: &Path, fixture: &Fixture, _options: &Options) -> FixtureReport {
    let config = match read_json(&dir.join("config.json")) {
        Ok(config) => config,
        Err(error) => return FixtureReport::failed(&fixture.name, error.to_string()),
    };
    match config.get("model_type").and_then(Value::as_str) {
        Some(model_type) => {
            FixtureReport::unsupported(&fixture.name, format!("model_type {model_type}"))
        }
        None => FixtureReport::failed(
            &fixture.name,
            "config.json: expected a string `model_type`, found none",
        ),
    }
}
