//! Fixtures of ops.

use crate::report::CaseOutcome;
use crate::{Fixture, FixtureReport};

/// Checks a fixture of ops.
pub fn check(fixture: &Fixture) -> FixtureReport {
    let mut report = FixtureReport::new(&fixture.name);
    for name in fixture.cases.keys() {
        report.record(name, CaseOutcome::Unsupported("not implemented".into()));
    }
    report
}

/// Prefixes of the tensor names of such a fixture.
pub const GROUPS: &[&str] = &[
    "activations.",
    "norms.",
    "attention.",
    "positions.",
    "losses.",
];
