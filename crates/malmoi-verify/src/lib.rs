//! Comparison with golden references.
//!
//! [`verify_directory`] checks one fixture: it looks at what the folder *holds*, never at its name, decides what kind
//! of reference it is, runs our own code on the given inputs and compares every expected tensor or value within its own
//! tolerance. The layout of a fixture is described in `golden/README.md`.

pub mod compare;
pub mod fixture;
mod metrics;
pub mod models;
mod objectives;
mod ops;
mod optimizers;
pub mod report;
pub mod rounding;
mod sampling;
mod stacks;
pub mod tokenizers;
pub mod values;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use fixture::{Fixture, FixtureError};
pub use report::{CaseOutcome, Comparison, Difference, FixtureReport, Verdict, exit_code};

/// The arithmetic in which models are run for the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32-bit floating point: the tolerances of the fixtures apply as they are.
    #[default]
    F32,
    /// bfloat16 activations and products: tolerances follow from the format ([`rounding`]).
    Bf16,
    /// 8-bit integer products.
    Int8,
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            other => Err(format!(
                "unknown precision `{other}`: expected f32, bf16 or int8"
            )),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

/// Settings of a run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Folder with the published vocabularies that tokenizer fixtures name (`gpt2/`, `bert-base-uncased/`, …); without
    /// it, `data/vocab` beside the parent folder of the fixture.
    pub vocab: Option<PathBuf>,
    /// Arithmetic of the models.
    pub precision: Precision,
}

/// What kind of reference a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `encodings.json`: a tokenizer.
    Tokenizer,
    /// `metrics.json`: metrics.
    Metrics,
    /// `objectives.json`: rules of the training objectives.
    Objectives,
    /// `config.json` and `cases.json`: a model.
    Model,
    /// `cases.json` alone: building blocks, told apart by the tensors and cases inside.
    Blocks,
}

/// The kind of a folder, or `None` when it is not a fixture.
pub fn kind_of(dir: &Path) -> Option<Kind> {
    let has = |file: &str| dir.join(file).is_file();
    if has("encodings.json") {
        Some(Kind::Tokenizer)
    } else if has("metrics.json") {
        Some(Kind::Metrics)
    } else if has("objectives.json") {
        Some(Kind::Objectives)
    } else if has("cases.json") && has("config.json") {
        Some(Kind::Model)
    } else if has("cases.json") {
        Some(Kind::Blocks)
    } else {
        None
    }
}

/// The fixtures that a path stands for: itself, or, when it is not a fixture, those of its sub-folders that are, sorted by
/// name. Other entries are skipped.
///
/// # Errors
/// [`FixtureError::Read`] when the folder cannot be listed.
pub fn fixtures_in(path: &Path) -> Result<Vec<PathBuf>, FixtureError> {
    if kind_of(path).is_some() {
        return Ok(vec![path.to_path_buf()]);
    }
    let read = |source| FixtureError::Read {
        path: path.to_path_buf(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?.path();
        if kind_of(&entry).is_some() {
            found.push(entry);
        }
    }
    found.sort();
    Ok(found)
}

/// Checks the fixture in `dir`. A fixture that cannot be read, or a folder that is none, gives a failing report that says why.
pub fn verify_directory(dir: &Path, options: &Options) -> FixtureReport {
    let name = fixture::name_of(dir);
    let checked = match kind_of(dir) {
        None => {
            return FixtureReport::failed(
                name,
                "not a fixture: expected cases.json, encodings.json, metrics.json or objectives.json in the folder",
            );
        }
        Some(Kind::Tokenizer) => return tokenizers::check(dir, options),
        Some(Kind::Metrics) => metrics::check(dir),
        Some(Kind::Objectives) => objectives::check(dir),
        Some(Kind::Model) => {
            Fixture::read(dir).map(|fixture| models::check(dir, &fixture, options))
        }
        Some(Kind::Blocks) => Fixture::read(dir).map(|fixture| check_blocks(&fixture)),
    };
    checked.unwrap_or_else(|error| FixtureReport::failed(name, error.to_string()))
}

/// Checks a fixture of building blocks, told apart by content.
fn check_blocks(fixture: &Fixture) -> FixtureReport {
    let any_tensor = |prefix: &str| fixture.names_with_prefix(prefix).next().is_some();
    if fixture
        .cases
        .values()
        .any(|case| case.get("applied_in_order").is_some())
    {
        sampling::check(fixture)
    } else if any_tensor("schedule.") || any_tensor("in.grads_") {
        optimizers::check(fixture)
    } else if ops::GROUPS.iter().any(|group| any_tensor(group)) {
        ops::check(fixture)
    } else if fixture.order.iter().any(|name| name.contains(".weights.")) {
        stacks::check(fixture)
    } else {
        FixtureReport::unsupported(
            &fixture.name,
            "cases.json holds no kind of building block that is known",
        )
    }
}
