//! Tokenizer fixtures: encodings of single texts, pairs, truncations and batches.

use std::path::{Path, PathBuf};

mod replay;

use crate::fixture::{name_of, read_json};
use crate::values::compare_values;
use crate::{CaseOutcome, Comparison, FixtureReport, Options};

/// Checks a tokenizer fixture. Everything is compared exactly; entries marked `tie` by their decoded text.
pub fn check(dir: &Path, options: &Options) -> FixtureReport {
    let name = name_of(dir);
    let json = match read_json(&dir.join("encodings.json")) {
        Ok(json) => json,
        Err(error) => return FixtureReport::failed(name, error.to_string()),
    };
    let vocab = match &options.vocab {
        Some(folder) => folder.clone(),
        None => default_vocab(dir),
    };
    let subject = match replay::Subject::load(dir, &vocab, &json) {
        Ok(subject) => subject,
        Err(message) => return FixtureReport::failed(name, message),
    };
    let mut report = FixtureReport::new(name);
    let compare = |case: &str, values: Vec<replay::Compared>| -> Vec<Comparison> {
        values
            .iter()
            .map(|(key, got, expected)| {
                compare_values(&format!("{case}.{key}"), got, expected, 0.0)
            })
            .collect()
    };
    let special = subject.special();
    if !special.is_empty() {
        report.compare_case("special", compare("special", special));
    }
    let pieces = dir.join("pieces.json");
    if pieces.is_file() {
        match read_json(&pieces) {
            Ok(pieces) => report.compare_case(
                "vocabulary",
                compare("vocabulary", subject.vocabulary(&pieces)),
            ),
            Err(error) => report.compare_case(
                "vocabulary",
                vec![Comparison::failed("vocabulary", error.to_string())],
            ),
        }
    }
    for (index, entry) in replay::entries(&json).enumerate() {
        let case = format!("{index}.{}", entry["case"].as_str().unwrap_or("?"));
        match subject.entry(entry) {
            Ok(values) => report.compare_case(&case, compare(&case, values)),
            Err(message) => report.record(&case, CaseOutcome::Unsupported(message)),
        }
    }
    report
}

/// `data/vocab` beside the folder that holds the fixtures.
fn default_vocab(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    let root = absolute
        .parent()
        .and_then(Path::parent)
        .unwrap_or(&absolute);
    root.join("data").join("vocab")
}
