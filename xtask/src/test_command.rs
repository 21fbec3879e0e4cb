//! `cargo xtask test`, the README's test command, and its short cousin `cargo xtask check`.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::shell::{cargo, doctor, exists, malmoi, succeeds, succeeds_with_lines};
use crate::summary::{Step, report};
use crate::{clients, configs, golden, lab, minilm, prerequisites, readme, tidy};

/// Names of the steps in the order in which they run.
pub const STEPS: [&str; 12] = [
    "fmt",
    "clippy",
    "docs",
    "tidy",
    "tests",
    "assertions",
    "golden",
    "real-model",
    "configs",
    "clients",
    "lab",
    "readme",
];

/// Runs the whole test command, or the steps of [`STEPS`] that `only` names, and says whether everything held.
pub fn run(root: &Path, only: &[String]) -> bool {
    let missing = prerequisites::missing();
    if !missing.is_empty() {
        missing.iter().for_each(|message| eprintln!("{message}"));
        println!("0 passed, {} failed", missing.len());
        return false;
    }
    let mut steps = vec![Step::one("prerequisites", true, "")];
    for name in STEPS {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        println!("\n== {name}");
        match name {
            "fmt" => steps.push(fmt(root)),
            "clippy" => steps.push(clippy(root)),
            "docs" => steps.push(docs(root)),
            "tidy" => steps.push(tidy_step(root)),
            "tests" => steps.push(tests(root, name, &["--release", "--workspace"])),
            // Release builds have no debug assertions, which say what each kernel relies on.
            "assertions" => {
                steps.push(tests(root, name, &["--package", "malmoi-kernels", "--lib"]));
            }
            "golden" => steps.push(golden::step(root)),
            "real-model" => steps.push(minilm::step(root)),
            "configs" => steps.extend(configs::run(root)),
            "clients" => steps.push(clients::step(root)),
            "lab" => steps.push(lab::step(root)),
            _ => steps.extend(readme::run(root)),
        }
    }
    let mut facts = vec![machine(root)];
    if !only.is_empty() {
        facts.push(format!(
            "only part of the command was run: {}",
            only.join(", ")
        ));
    }
    report(&steps, &facts)
}

/// Runs the quick checks and `cargo deny`.
pub fn check(root: &Path) -> bool {
    let mut steps = vec![fmt(root), clippy(root), tidy_step(root), docs(root)];
    steps.extend(deny(root));
    report(&steps, &[])
}

/// Runs a command as one check.
fn single(name: &str, command: &mut Command) -> Step {
    let started = Instant::now();
    Step::one(name, succeeds(command), "").timed(started.elapsed())
}

fn fmt(root: &Path) -> Step {
    single("fmt", &mut cargo(root, &["fmt", "--all", "--check"]))
}

fn clippy(root: &Path) -> Step {
    single(
        "clippy",
        &mut cargo(
            root,
            &[
                "clippy",
                "--release",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
    )
}

/// The libraries' documentation, where a broken link is an error.
fn docs(root: &Path) -> Step {
    let mut command = cargo(
        root,
        &["doc", "--release", "--workspace", "--no-deps", "--quiet"],
    );
    single("docs", command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn tidy_step(root: &Path) -> Step {
    let started = Instant::now();
    let outcome = tidy::run(root);
    let note = format!("{} rules, {} warnings", outcome.rules, outcome.warnings());
    let failed = outcome.errors();
    outcome.report();
    Step::many("tidy", usize::from(failed == 0), failed, note).timed(started.elapsed())
}

/// Tests of what the arguments choose. Goes on after a failing binary, so that the count is complete.
fn tests(root: &Path, name: &str, arguments: &[&str]) -> Step {
    let started = Instant::now();
    let mut counts = Counts::default();
    let mut command = cargo(root, &[&["test", "--no-fail-fast"], arguments].concat());
    let succeeded = succeeds_with_lines(&mut command, |line| counts.see(line));
    // A compile error, or a binary that dies, prints no result line: it still counts as one failure.
    let failed = if succeeded {
        counts.failed
    } else {
        counts.failed.max(1)
    };
    let note = if counts.ignored == 0 {
        String::new()
    } else {
        format!(
            "{} ignored, each names the command or test that runs it",
            counts.ignored
        )
    };
    Step::many(name, counts.passed, failed, note).timed(started.elapsed())
}

/// Sums over the result lines of the test harness.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Counts {
    /// Reads `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    fn see(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(count)), Some(what)) =
                (words.next().map(str::parse::<usize>), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

/// Licences, sources and advisories of the dependencies. Installs `cargo-deny` when it is missing; the advisories need the network.
fn deny(root: &Path) -> [Step; 2] {
    let installed = exists("cargo", &["deny", "--version"])
        || succeeds(&mut cargo(root, &["install", "--locked", "cargo-deny"]));
    let check = |name: &str, what: &[&str]| {
        if installed {
            let arguments = [&["deny", "check", "--hide-inclusion-graph"], what].concat();
            single(name, &mut cargo(root, &arguments))
        } else {
            let message = "missing: cargo-deny. Install it with: cargo install --locked cargo-deny";
            Step::one(name, false, message)
        }
    };
    [
        check("licences", &["licenses", "bans", "sources"]),
        check("advisories", &["advisories"]),
    ]
}

/// A line about the machine: which instruction sets the kernel tests exercised, as `malmoi doctor` reports them.
fn machine(root: &Path) -> String {
    match malmoi(root).and_then(|program| doctor(&program)) {
        Ok(report) => format!("instruction sets exercised: {}", instruction_sets(&report)),
        Err(message) => format!("instruction sets exercised: unknown ({message})"),
    }
}

/// The names in `instruction_sets`, whether that is a list of names or a table of name and availability.
fn instruction_sets(report: &Value) -> String {
    let names: Vec<&str> = match &report["instruction_sets"] {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        Value::Object(table) => table
            .iter()
            .filter(|(_, has)| has.as_bool() == Some(true))
            .map(|(name, _)| name.as_str())
            .collect(),
        _ => Vec::new(),
    };
    if names.is_empty() {
        "not reported by `malmoi doctor --json`".into()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_of_several_binaries_add_up() {
        let mut counts = Counts::default();
        counts.see("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        counts.see("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s");
        counts.see("test some::name ... ok");
        assert_eq!(
            counts,
            Counts {
                passed: 15,
                failed: 2,
                ignored: 1
            }
        );
    }

    #[test]
    fn instruction_sets_are_read_from_a_list_or_a_table() {
        assert_eq!(
            instruction_sets(&json!({"instruction_sets": ["avx2", "avx512"]})),
            "avx2, avx512"
        );
        assert_eq!(
            instruction_sets(&json!({"instruction_sets": {"avx2": true, "amx": false}})),
            "avx2"
        );
        assert!(instruction_sets(&json!({})).contains("not reported"));
    }
}
