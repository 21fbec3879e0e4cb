//! What a check of one golden reference found, and how it is printed.
//!
//! A fixture holds *cases*, a case compares *tensors* (or plain values). The report keeps the order in which the
//! comparisons were made, which is network order: the first failure is the first tensor that differs, and that is the
//! one a person should look at.

use std::fmt;

use serde::Serialize;

/// The comparison of one tensor with its expected values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Name of the tensor, for example `padded.out.logits`.
    pub name: String,
    /// Number of elements compared (masked ones are not counted).
    pub elements: usize,
    /// Largest `|got - expected| / (atol + rtol * |expected|)`; 0 for equal integers, infinite where a value is not
    /// finite or not comparable.
    pub worst: f64,
    /// What is wrong, or `None` when the tensor passes.
    pub difference: Option<Difference>,
}

impl Comparison {
    /// A comparison that failed before any element could be compared (a missing output, another shape).
    pub fn failed(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            elements: 0,
            worst: f64::INFINITY,
            difference: Some(Difference::Message(message.into())),
        }
    }

    /// True when every element is within its tolerance.
    pub fn passes(&self) -> bool {
        self.difference.is_none()
    }
}

/// Why a tensor does not agree.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// The first element outside its tolerance, as a multi-dimensional index.
    Element {
        /// Index of the element, one number a dimension.
        index: Vec<usize>,
        /// Value that was computed.
        got: String,
        /// Value of the reference.
        expected: String,
        /// How many elements are outside.
        outside: usize,
    },
    /// Every element is within `atol`, but fewer than 85 % are within the tighter `atol_90_percent`.
    Fraction {
        /// Share of elements within the tighter bound.
        within: f64,
        /// Share that is required.
        required: f64,
    },
    /// Anything else, as a sentence.
    Message(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Element {
                index,
                got,
                expected,
                outside,
            } => {
                write!(
                    f,
                    "at {index:?}: got {got}, expected {expected} ({outside} elements outside the tolerance)"
                )
            }
            Self::Fraction { within, required } => write!(
                f,
                "only {:.1} % of the elements are within the tighter bound, {:.0} % are required",
                100.0 * within,
                100.0 * required
            ),
            Self::Message(message) => f.write_str(message),
        }
    }
}

/// Outcome of one case.
#[derive(Debug, Clone, PartialEq)]
pub enum CaseOutcome {
    /// Everything agrees; the comparisons that were made (at least one).
    Ok(Vec<Comparison>),
    /// Something differs; all comparisons, passing ones included, in network order.
    Fail(Vec<Comparison>),
    /// The case needs something that is not implemented; says what.
    Unsupported(String),
}

impl CaseOutcome {
    /// Judges a case by its comparisons. A case that compared nothing fails: it would otherwise look green.
    pub fn from_comparisons(case: &str, comparisons: Vec<Comparison>) -> Self {
        if comparisons.is_empty() {
            return Self::Fail(vec![Comparison::failed(case, "nothing was compared")]);
        }
        if comparisons.iter().all(Comparison::passes) {
            Self::Ok(comparisons)
        } else {
            Self::Fail(comparisons)
        }
    }
}

/// The largest relative use of a tolerance, and where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worst {
    /// `|got - expected| / (atol + rtol * |expected|)`, at most 1 when all is well.
    pub value: f64,
    /// The tensor where it was met.
    pub tensor: String,
}

/// One tensor that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// The case it belongs to.
    pub case: String,
    /// Name of the tensor.
    pub tensor: String,
    /// Largest use of the tolerance in this tensor (null in JSON when infinite).
    pub worst: f64,
    /// What is wrong.
    pub difference: Difference,
}

/// One case that cannot be checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unsupported {
    /// Name of the case.
    pub name: String,
    /// What is missing.
    pub why: String,
}

/// Verdict on a whole fixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every case agrees.
    Ok,
    /// At least one case differs.
    Fail,
    /// Nothing differs, some cases agree and some are unsupported.
    Partial,
    /// No case can be checked.
    Unsupported,
}

/// What the check of one fixture found.
#[derive(Debug, Clone, PartialEq)]
pub struct FixtureReport {
    /// Name of the fixture: the last component of its folder.
    pub name: String,
    /// Number of cases that agree.
    pub ok: usize,
    /// Number of cases that differ.
    pub failed: usize,
    /// Largest use of a tolerance over all comparisons of passing and failing cases.
    pub worst: Option<Worst>,
    /// Tensors that differ, in network order.
    pub failures: Vec<Failure>,
    /// Cases that cannot be checked.
    pub unsupported: Vec<Unsupported>,
}

impl FixtureReport {
    /// An empty report; cases are added with [`FixtureReport::record`].
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ok: 0,
            failed: 0,
            worst: None,
            failures: Vec::new(),
            unsupported: Vec::new(),
        }
    }

    /// A report that says the whole fixture cannot be checked.
    pub fn unsupported(name: impl Into<String>, why: impl Into<String>) -> Self {
        let name = name.into();
        let mut report = Self::new(name.clone());
        report.record(&name, CaseOutcome::Unsupported(why.into()));
        report
    }

    /// A report of a fixture that failed as a whole, for example because a file cannot be read.
    pub fn failed(name: impl Into<String>, message: impl Into<String>) -> Self {
        let name = name.into();
        let mut report = Self::new(name.clone());
        report.record(
            &name,
            CaseOutcome::Fail(vec![Comparison::failed(&name, message)]),
        );
        report
    }

    /// Adds the outcome of a case.
    pub fn record(&mut self, case: &str, outcome: CaseOutcome) {
        let comparisons = match outcome {
            CaseOutcome::Unsupported(why) => {
                self.unsupported.push(Unsupported {
                    name: case.to_owned(),
                    why,
                });
                return;
            }
            CaseOutcome::Ok(comparisons) => {
                self.ok += 1;
                comparisons
            }
            CaseOutcome::Fail(comparisons) => {
                self.failed += 1;
                comparisons
            }
        };
        for comparison in comparisons {
            if self
                .worst
                .as_ref()
                .is_none_or(|worst| comparison.worst > worst.value)
            {
                self.worst = Some(Worst {
                    value: comparison.worst,
                    tensor: comparison.name.clone(),
                });
            }
            if let Some(difference) = comparison.difference {
                self.failures.push(Failure {
                    case: case.to_owned(),
                    tensor: comparison.name,
                    worst: comparison.worst,
                    difference,
                });
            }
        }
    }

    /// Adds a case judged by its comparisons.
    pub fn compare_case(&mut self, case: &str, comparisons: Vec<Comparison>) {
        self.record(case, CaseOutcome::from_comparisons(case, comparisons));
    }

    /// Number of cases seen, unsupported ones included.
    pub fn cases(&self) -> usize {
        self.ok + self.failed + self.unsupported.len()
    }

    /// The verdict on the whole fixture. A fixture without a single case fails.
    pub fn verdict(&self) -> Verdict {
        match (self.failed, self.ok, self.unsupported.len()) {
            (0, 0, 0) => Verdict::Fail,
            (0, _, 0) => Verdict::Ok,
            (0, 0, _) => Verdict::Unsupported,
            (0, _, _) => Verdict::Partial,
            _ => Verdict::Fail,
        }
    }

    /// The report as one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name,
            "verdict": self.verdict(),
            "cases": self.cases(),
            "ok": self.ok,
            "failed": self.failed,
            "worst": self.worst,
            "failures": self.failures,
            "unsupported": self.unsupported,
        })
    }
}

/// The one line `malmoi verify` prints for a fixture.
impl fmt::Display for FixtureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.verdict() {
            Verdict::Ok => {
                write!(f, "ok {name} cases={}", self.ok)?;
                match &self.worst {
                    Some(worst) => write!(f, " worst={:.2} at {}", worst.value, worst.tensor),
                    None => Ok(()),
                }
            }
            Verdict::Partial => {
                let names: Vec<&str> = self.unsupported.iter().map(|u| u.name.as_str()).collect();
                write!(
                    f,
                    "partial {name} ok={} unsupported={}",
                    self.ok,
                    names.join(",")
                )
            }
            Verdict::Unsupported => match self.unsupported.as_slice() {
                [one] => write!(f, "unsupported {name}: {}", one.why),
                many => {
                    let parts: Vec<String> = many
                        .iter()
                        .map(|u| format!("{} ({})", u.name, u.why))
                        .collect();
                    write!(f, "unsupported {name}: {}", parts.join("; "))
                }
            },
            Verdict::Fail => match self.failures.first() {
                Some(first) => {
                    write!(f, "FAIL {name} {} {}", first.tensor, first.difference)?;
                    write!(f, "; {} of {} cases fail", self.failed, self.cases())
                }
                None => write!(f, "FAIL {name}: the fixture holds no case"),
            },
        }
    }
}

/// Exit status of a run over several fixtures: 0 all agree, 1 any differs, 3 nothing differs but something is
/// unsupported.
pub fn exit_code(reports: &[FixtureReport]) -> u8 {
    let verdicts: Vec<Verdict> = reports.iter().map(FixtureReport::verdict).collect();
    if verdicts.contains(&Verdict::Fail) {
        1
    } else if verdicts.iter().all(|v| *v == Verdict::Ok) {
        0
    } else {
        3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(name: &str, worst: f64) -> Comparison {
        Comparison {
            name: name.into(),
            elements: 4,
            worst,
            difference: None,
        }
    }

    fn differing(name: &str) -> Comparison {
        Comparison {
            name: name.into(),
            elements: 4,
            worst: 7.5,
            difference: Some(Difference::Element {
                index: vec![1, 0],
                got: "2".into(),
                expected: "1".into(),
                outside: 1,
            }),
        }
    }

    #[test]
    fn an_ok_line_names_the_tensor_that_used_most_of_its_tolerance() {
        let mut report = FixtureReport::new("toy");
        report.compare_case(
            "a",
            vec![passing("a.out.x", 0.05), passing("a.out.logits", 0.123)],
        );
        report.compare_case("b", vec![passing("b.out.x", 0.01)]);
        assert_eq!(
            report.to_string(),
            "ok toy cases=2 worst=0.12 at a.out.logits"
        );
        assert_eq!(exit_code(&[report]), 0);
    }

    #[test]
    fn a_fail_line_names_the_first_tensor_that_differs() {
        let mut report = FixtureReport::new("toy");
        report.compare_case(
            "a",
            vec![
                passing("a.out.x", 0.05),
                differing("a.out.y"),
                differing("a.out.z"),
            ],
        );
        let line = report.to_string();
        assert!(
            line.starts_with("FAIL toy a.out.y at [1, 0]: got 2, expected 1"),
            "{line}"
        );
        assert_eq!(exit_code(&[report]), 1);
    }

    #[test]
    fn unsupported_cases_make_a_report_partial_and_exit_3() {
        let mut report = FixtureReport::new("toy");
        report.compare_case("a", vec![passing("a.out.x", 0.05)]);
        report.record("b", CaseOutcome::Unsupported("no such thing".into()));
        report.record("c", CaseOutcome::Unsupported("no such thing".into()));
        assert_eq!(report.to_string(), "partial toy ok=1 unsupported=b,c");
        assert_eq!(exit_code(&[report]), 3);
        let whole = FixtureReport::unsupported("toy", "model_type x");
        assert_eq!(whole.to_string(), "unsupported toy: model_type x");
        assert_eq!(exit_code(&[whole]), 3);
    }

    #[test]
    fn a_case_or_fixture_that_compares_nothing_fails() {
        let mut report = FixtureReport::new("toy");
        assert_eq!(report.verdict(), Verdict::Fail);
        report.compare_case("a", vec![]);
        assert_eq!(report.verdict(), Verdict::Fail);
        assert!(report.to_string().contains("nothing was compared"));
    }

    #[test]
    fn json_carries_verdict_and_failures() {
        let mut report = FixtureReport::new("toy");
        report.compare_case("a", vec![differing("a.out.y")]);
        let json = report.to_json();
        assert_eq!(json["verdict"], "fail");
        assert_eq!(json["failures"][0]["tensor"], "a.out.y");
        assert_eq!(
            json["failures"][0]["difference"]["element"]["index"],
            serde_json::json!([1, 0])
        );
    }
}
