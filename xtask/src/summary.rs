//! What was run and how it ended.

use std::time::Duration;

/// One step of the test command: how many of its checks held, how many did not, and a note for the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub name: String,
    pub passed: usize,
    pub failed: usize,
    pub note: String,
    pub took: Duration,
}

impl Step {
    /// A step that is a single check.
    pub fn one(name: &str, passed: bool, note: impl Into<String>) -> Self {
        Self::many(name, usize::from(passed), usize::from(!passed), note)
    }

    /// A step that counts several checks.
    pub fn many(name: &str, passed: usize, failed: usize, note: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            passed,
            failed,
            note: note.into(),
            took: Duration::ZERO,
        }
    }

    /// The same step with the time that it took.
    pub fn timed(mut self, took: Duration) -> Self {
        self.took = took;
        self
    }
}

/// The lines of the summary. The last one is the plain count that programs read.
pub fn lines(steps: &[Step], facts: &[String]) -> Vec<String> {
    let width = steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
    let mut lines = vec![String::new(), "What was run:".into()];
    for step in steps {
        let verdict = if step.failed == 0 { "ok  " } else { "FAIL" };
        let counts = format!("{} passed, {} failed", step.passed, step.failed);
        lines.push(
            format!(
                "  {verdict} {:width$}  {counts:26} {:>5} s  {}",
                step.name,
                step.took.as_secs(),
                step.note
            )
            .trim_end()
            .into(),
        );
    }
    lines.extend(facts.iter().map(|fact| format!("  {fact}")));
    let (passed, failed) = steps
        .iter()
        .fold((0, 0), |(p, f), step| (p + step.passed, f + step.failed));
    lines.push(format!("{passed} passed, {failed} failed"));
    lines
}

/// Prints the summary and says whether everything held. An empty run has shown nothing and does not count as success.
pub fn report(steps: &[Step], facts: &[String]) -> bool {
    for line in lines(steps, facts) {
        println!("{line}");
    }
    !steps.is_empty() && steps.iter().all(|step| step.failed == 0 && step.passed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_plain_count() {
        let steps = [
            Step::many("tests", 41, 1, "2 ignored"),
            Step::one("fmt", true, ""),
        ];
        assert_eq!(
            lines(&steps, &["facts".into()]).last().map(String::as_str),
            Some("42 passed, 1 failed")
        );
    }

    #[test]
    fn one_failure_or_an_empty_step_fails_the_run() {
        assert!(report(&[Step::one("fmt", true, "")], &[]));
        assert!(!report(
            &[Step::one("fmt", true, ""), Step::one("clippy", false, "")],
            &[]
        ));
        assert!(
            !report(&[Step::many("tests", 0, 0, "")], &[]),
            "a step that ran nothing has shown nothing"
        );
        assert!(!report(&[], &[]));
    }
}
