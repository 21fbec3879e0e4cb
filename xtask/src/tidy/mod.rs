//! The rules of the repository that the compiler does not know: layers, sizes, documentation, data.

mod code;
mod documents;
mod layers;
mod tree;

#[cfg(test)]
mod tests;

use std::path::Path;

use tree::Tree;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Printed, does not fail the run.
    Warning,
    /// Fails the run.
    Error,
}

/// One place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    /// A file, `file:line`, or a package name.
    pub place: String,
    pub message: String,
}

impl Finding {
    fn error(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            level: Level::Error,
            place: place.into(),
            message: message.into(),
        }
    }

    fn warning(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            place: place.into(),
            message: message.into(),
        }
    }
}

/// A rule: a name and a function over the tree.
type Rule = (&'static str, fn(&Tree) -> Vec<Finding>);

/// Every rule. Each has a test with a small tree that breaks it.
const RULES: [Rule; 14] = [
    ("layers", layers::edges),
    ("burn", layers::burn),
    ("descriptions", layers::descriptions),
    ("unsafe", code::unsafe_code),
    ("file length", code::file_length),
    ("model length", code::model_length),
    ("open ends", code::open_ends),
    ("machine paths", code::machine_paths),
    ("ignored tests", code::ignored_tests),
    ("data size", documents::data_size),
    ("readme twins", documents::readme_twins),
    ("changelog", documents::changelog),
    ("decisions", documents::decisions),
    ("links", documents::links),
];

/// What a run found.
pub struct Outcome {
    pub rules: usize,
    findings: Vec<(&'static str, Finding)>,
}

impl Outcome {
    pub fn errors(&self) -> usize {
        self.findings
            .iter()
            .filter(|(_, finding)| finding.level == Level::Error)
            .count()
    }

    pub fn warnings(&self) -> usize {
        self.findings.len() - self.errors()
    }

    /// Prints the findings and says whether none of them is an error.
    pub fn report(&self) -> bool {
        for (rule, finding) in &self.findings {
            let level = if finding.level == Level::Error {
                "error"
            } else {
                "warning"
            };
            println!("{level} [{rule}] {}: {}", finding.place, finding.message);
        }
        println!(
            "tidy: {} rules, {} errors, {} warnings",
            self.rules,
            self.errors(),
            self.warnings()
        );
        self.errors() == 0
    }
}

/// Runs every rule on the repository at `root`.
pub fn run(root: &Path) -> Outcome {
    match Tree::read(root) {
        Ok(tree) => {
            let findings = RULES.iter().flat_map(|(name, rule)| {
                rule(&tree).into_iter().map(move |finding| (*name, finding))
            });
            Outcome {
                rules: RULES.len(),
                findings: findings.collect(),
            }
        }
        Err(message) => Outcome {
            rules: 0,
            findings: vec![("tree", Finding::error(root.display().to_string(), message))],
        },
    }
}
