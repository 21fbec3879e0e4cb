//! `malmoi verify` on the golden references.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::shell::{malmoi, succeeds, succeeds_with_lines};
use crate::summary::{Step, report};

/// Fixtures in which some entries belong to model families or tasks that are not built yet. `verify` names those entries; nothing in them may fail.
const MAY_BE_PARTIAL: [&str; 4] = ["metrics", "objectives", "ops", "optimizers"];

/// Counts of one run of `verify`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    ok: usize,
    partial: Vec<String>,
    bad: Vec<String>,
}

impl Counts {
    /// Reads one line of `verify`: `ok NAME …`, `FAIL NAME …`, `partial NAME …` or `unsupported NAME: …`.
    fn see(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (verdict, name) = (
            words.next().unwrap_or(""),
            words.next().unwrap_or("").trim_end_matches(':'),
        );
        match verdict {
            "ok" => self.ok += 1,
            "partial" if MAY_BE_PARTIAL.contains(&name) => self.partial.push(name.into()),
            "partial" | "FAIL" | "unsupported" => self.bad.push(name.into()),
            _ => {}
        }
    }
}

/// Verifies the fixtures of `folder` and returns the step.
fn verify(root: &Path, name: &str, folder: &Path) -> Step {
    let started = Instant::now();
    let program = match malmoi(root) {
        Ok(program) => program,
        Err(message) => return Step::one(name, false, message),
    };
    let fixtures = match fixtures(folder) {
        Ok(fixtures) => fixtures,
        Err(error) => {
            return Step::one(
                name,
                false,
                format!("cannot list {}: {error}", folder.display()),
            );
        }
    };
    let mut counts = Counts::default();
    let mut command = Command::new(program);
    command
        .arg("verify")
        .args(&fixtures)
        .arg("--vocab")
        .arg(root.join("data").join("vocab"));
    // The exit code is 3 when something is partial; the lines say whether that is one of the expected ones.
    succeeds_with_lines(&mut command, |line| counts.see(line));
    let seen = counts.ok + counts.partial.len() + counts.bad.len();
    let mut notes = Vec::new();
    if !counts.partial.is_empty() {
        notes.push(format!(
            "partial, as expected so far: {}",
            counts.partial.join(", ")
        ));
    }
    if !counts.bad.is_empty() {
        notes.push(format!("not ok: {}", counts.bad.join(", ")));
    }
    if seen != fixtures.len() {
        notes.push(format!(
            "expected a line for each of {} fixtures, found {seen}",
            fixtures.len()
        ));
    }
    let failed = counts.bad.len() + fixtures.len().saturating_sub(seen);
    Step::many(
        name,
        counts.ok + counts.partial.len(),
        failed,
        notes.join("; "),
    )
    .timed(started.elapsed())
}

/// The fixtures of a folder: sub-folders that `verify` reads.
fn fixtures(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let is_fixture = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        ["cases.json", "encodings.json"]
            .iter()
            .any(|file| path.join(file).is_file())
            || path.join(format!("{name}.json")).is_file()
    };
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_fixture)
        .collect();
    found.sort();
    Ok(found)
}

/// The committed references.
pub fn step(root: &Path) -> Step {
    verify(root, "golden", &root.join("golden"))
}

/// `cargo xtask golden`: the committed references and, with a Python at hand, fresh ones.
pub fn run(root: &Path, python: Option<&Path>, seed: u64) -> bool {
    let mut steps = vec![step(root)];
    if let Some(python) = python {
        steps.push(fresh(root, python, seed));
    }
    report(&steps, &[])
}

/// Makes fixtures that nobody has seen and verifies them.
fn fresh(root: &Path, python: &Path, seed: u64) -> Step {
    let name = "golden-fresh";
    let folder = root.join("target").join(name);
    if folder.exists()
        && let Err(error) = std::fs::remove_dir_all(&folder)
    {
        return Step::one(
            name,
            false,
            format!("cannot remove {}: {error}", folder.display()),
        );
    }
    let generate = |script: &str, arguments: &[&str]| {
        let mut command = Command::new(python);
        command.current_dir(root).arg(script).args(arguments);
        succeeds(
            command
                .args(["--seed", &seed.to_string(), "--out"])
                .arg(&folder),
        )
    };
    let shapes = ["--all", "--batch", "4", "--length", "23"];
    let kinds = ["wordpiece", "bytelevel-bpe", "unigram", "sentencepiece"];
    let made = generate("golden/generate.py", &shapes)
        && kinds
            .iter()
            .all(|kind| generate("golden/generate_tokenizer.py", &[kind]));
    if made {
        verify(root, name, &folder)
    } else {
        let needs = "torch, transformers, tokenizers, sentencepiece, safetensors and numpy";
        Step::one(
            name,
            false,
            format!("a generator failed; they need {needs}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_counted_by_kind() {
        let mut counts = Counts::default();
        let lines = [
            "ok bert-masked-lm cases=3 worst=0.12 at padded.out.logits",
            "partial ops ok=9 unsupported=a,b",
            "partial gpt2-lm ok=1 unsupported=beam",
            "FAIL gpt2-lm train.losses",
            "unsupported t5: family",
            "20 fixtures",
        ];
        lines.iter().for_each(|line| counts.see(line));
        let names = |list: &[&str]| {
            list.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            counts,
            Counts {
                ok: 1,
                partial: names(&["ops"]),
                bad: names(&["gpt2-lm", "gpt2-lm", "t5"])
            }
        );
    }

    #[test]
    fn every_committed_fixture_is_found() {
        let found =
            fixtures(&crate::root().join("golden")).expect("golden/ is part of the repository");
        let names: Vec<_> = found
            .iter()
            .filter_map(|path| path.file_name()?.to_str())
            .collect();
        for name in [
            "bert-masked-lm",
            "tokenizer-wordpiece",
            "objectives",
            "metrics",
            "ops",
        ] {
            assert!(names.contains(&name), "{name} is missing from {names:?}");
        }
        assert!(
            !names.contains(&"minilm"),
            "the real model's embeddings are not a fixture"
        );
    }
}
