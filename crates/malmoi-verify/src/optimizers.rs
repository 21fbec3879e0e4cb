//! Fixtures of optimizers.

use crate::report::CaseOutcome;
use crate::{Fixture, FixtureReport};

/// Checks a fixture of optimizers.
pub fn check(fixture: &Fixture) -> FixtureReport {
    let mut report = FixtureReport::new(&fixture.name);
    for name in fixture.cases.keys() {
        report.record(name, CaseOutcome::Unsupported("not implemented".into()));
    }
    report
}
