//! Fixtures of objectives.

use std::path::Path;

use crate::fixture::{name_of, read_json};
use crate::report::CaseOutcome;
use crate::{FixtureError, FixtureReport};

/// Checks `objectives.json`.
pub fn check(dir: &Path) -> Result<FixtureReport, FixtureError> {
    let json = read_json(&dir.join("objectives.json"))?;
    let mut report = FixtureReport::new(name_of(dir));
    for name in json
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .filter(|name| !name.starts_with('_'))
    {
        report.record(name, CaseOutcome::Unsupported("not implemented".into()));
    }
    Ok(report)
}
