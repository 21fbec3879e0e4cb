//! The golden references of the repository, and that a wrong value in one is found and named.

use std::fs;
use std::path::{Path, PathBuf};

use malmoi_testing::golden_dir;
use malmoi_verify::{
    FixtureReport, Options, Precision, Verdict, exit_code, fixtures_in, verify_directory,
};
use serde_json::{Value, json};

fn verify(dir: &Path) -> FixtureReport {
    verify_directory(dir, &Options::default())
}

#[test]
fn every_golden_reference_agrees() {
    let fixtures = fixtures_in(&golden_dir()).unwrap();
    assert!(
        fixtures.len() >= 20,
        "only {} fixtures in {}",
        fixtures.len(),
        golden_dir().display()
    );
    let reports: Vec<FixtureReport> = fixtures.iter().map(|dir| verify(dir)).collect();
    let mut wrong = Vec::new();
    for report in &reports {
        if report.failed > 0 || report.ok == 0 || !report.unsupported.is_empty() {
            wrong.push(report.to_string());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(exit_code(&reports), 0);
}

/// A copy of a fixture under another name: what is checked must follow from the content.
fn copy_of(name: &str, folder: &Path) -> PathBuf {
    let copy = folder.join("renamed");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(golden_dir().join(name)).unwrap() {
        let entry = entry.unwrap();
        // Written anew, so that the copy can be changed where the original is read-only.
        fs::write(
            copy.join(entry.file_name()),
            fs::read(entry.path()).unwrap(),
        )
        .unwrap();
    }
    copy
}

/// Changes one element of a tensor in a safetensors file: an offset added to an f32, or 1 to the lowest byte of an i64.
fn corrupt(file: &Path, tensor: &str, element: usize) {
    let mut bytes = fs::read(file).unwrap();
    let header_len = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    let start = 8
        + header_len
        + usize::try_from(header[tensor]["data_offsets"][0].as_u64().unwrap()).unwrap();
    match header[tensor]["dtype"].as_str().unwrap() {
        "F32" => {
            let at = start + 4 * element;
            let value = f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            bytes[at..at + 4].copy_from_slice(&(value + 0.01).to_le_bytes());
        }
        "I64" => bytes[start + 8 * element] ^= 1,
        other => panic!("tensor {tensor} has type {other}"),
    }
    fs::write(file, bytes).unwrap();
}

/// Changes one value of a copied fixture and returns the report.
fn after_corrupting(fixture: &str, tensor: &str, element: usize) -> FixtureReport {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of(fixture, folder.path());
    let before = verify(&copy);
    assert_eq!(
        (before.name.as_str(), before.failed),
        ("renamed", 0),
        "{before}"
    );
    corrupt(&copy.join("cases.safetensors"), tensor, element);
    verify(&copy)
}

#[test]
fn a_wrong_expected_value_fails_and_names_its_tensor() {
    for (fixture, tensor) in [
        ("sampling-filters", "out.5.probs"),
        ("optimizers", "out.lamb.b"),
        ("optimizers", "schedule.cosine"),
        ("ops", "layer_norm.eps1e-05.grad.weight"),
        ("ops", "attention.out.context"),
        ("bert-masked-lm", "train.losses"),
        ("gpt2-lm", "greedy.out.sequences"),
    ] {
        let report = after_corrupting(fixture, tensor, 2);
        assert_eq!(report.verdict(), Verdict::Fail, "{fixture}: {report}");
        let named: Vec<&str> = report.failures.iter().map(|f| f.tensor.as_str()).collect();
        assert_eq!(named, [tensor], "{fixture}: {report}");
        assert!(
            report
                .to_string()
                .starts_with(&format!("FAIL renamed {tensor} at [")),
            "{report}"
        );
        assert_eq!(exit_code(&[report]), 1);
    }
}

#[test]
fn a_wrong_value_in_a_json_reference_fails_and_names_it() {
    for (fixture, file, pointer, named) in [
        (
            "metrics",
            "metrics.json",
            "/bleu/cases/0/bleu",
            "bleu.0.bleu",
        ),
        (
            "metrics",
            "metrics.json",
            "/language_modelling/cases/0/perplexity",
            "language_modelling.0.perplexity",
        ),
        (
            "objectives",
            "objectives.json",
            "/bert_mlm/cases/1/labels/2",
            "bert_mlm.1.labels",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = copy_of(fixture, folder.path()).join(file);
        let mut reference: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let value = reference.pointer_mut(pointer).unwrap();
        *value = json!(value.as_f64().unwrap() + 1e-6);
        fs::write(&path, reference.to_string()).unwrap();
        let report = verify(path.parent().unwrap());
        assert_eq!(report.verdict(), Verdict::Fail);
        assert_eq!(report.failures[0].tensor, named, "{report}");
    }
}

#[test]
fn damaged_and_foreign_folders_fail_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of("ops", folder.path());
    let tensors = copy.join("cases.safetensors");
    let bytes = fs::read(&tensors).unwrap();
    for length in [0, 4, 100, bytes.len() - 1] {
        fs::write(&tensors, &bytes[..length]).unwrap();
        let report = verify(&copy);
        assert_eq!(report.verdict(), Verdict::Fail);
        assert!(
            report
                .to_string()
                .contains("cases.safetensors is not valid"),
            "{report}"
        );
    }
    fs::write(copy.join("cases.json"), "[1, 2").unwrap();
    assert!(
        verify(&copy)
            .to_string()
            .contains("cases.json is not valid")
    );
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(verify(&empty).to_string().contains("not a fixture"));
    // Entries of a folder that are no fixtures are passed over.
    fs::write(folder.path().join("notes.txt"), "").unwrap();
    assert_eq!(fixtures_in(folder.path()).unwrap(), [copy]);
}

#[test]
fn an_unknown_model_type_is_unsupported_not_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of("bert-masked-lm", folder.path());
    let path = copy.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["model_type"] = json!("never-heard-of");
    fs::write(&path, config.to_string()).unwrap();
    let report = verify(&copy);
    assert_eq!(report.verdict(), Verdict::Unsupported, "{report}");
    assert!(report.to_string().contains("never-heard-of"), "{report}");
    assert_eq!(exit_code(&[report]), 3);
}

fn verify_in_bf16(dir: &Path) -> FixtureReport {
    let options = Options {
        precision: Precision::Bf16,
        ..Options::default()
    };
    verify_directory(dir, &options)
}

#[test]
fn models_in_bf16_agree_within_what_the_format_allows() {
    let mut models = 0;
    for entry in fs::read_dir(golden_dir()).unwrap() {
        let path = entry.unwrap().path();
        if !path.join("cases.json").is_file() || !path.join("model.safetensors").is_file() {
            continue;
        }
        let report = verify_in_bf16(&path);
        assert_eq!(report.verdict(), Verdict::Ok, "{report}");
        // The tolerances of f32 would not do: bf16 was computed.
        let worst = report.worst.as_ref().expect("compared");
        assert!(worst.value > 0.1, "{report}");
        models += 1;
    }
    assert!(models >= 20, "{models} models");
    // What has no model is compared as ever.
    let report = verify_in_bf16(&golden_dir().join("optimizers"));
    assert_eq!(report.verdict(), Verdict::Ok, "{report}");
}

/// Multiplies a tensor of a safetensors file of f32.
fn scale(file: &Path, tensor: &str, factor: f32) {
    let mut bytes = fs::read(file).unwrap();
    let start = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let header: Value = serde_json::from_slice(&bytes[8..start]).unwrap();
    let at = |i: usize| {
        start + usize::try_from(header[tensor]["data_offsets"][i].as_u64().unwrap()).unwrap()
    };
    for value in bytes[at(0)..at(1)].as_chunks_mut::<4>().0 {
        *value = (f32::from_le_bytes(*value) * factor).to_le_bytes();
    }
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_weight_that_is_too_large_is_found_in_bf16_as_well() {
    // A tenth; a fifth where six logits are all that a model says and ReLU in the head leaves the gradients wide bounds.
    for (fixture, tensor, factor) in [
        (
            "bert-masked-lm",
            "bert.encoder.layer.0.attention.self.key.weight",
            1.1,
        ),
        (
            "bert-masked-lm",
            "bert.encoder.layer.1.output.dense.weight",
            1.1,
        ),
        (
            "bert-masked-lm",
            "cls.predictions.transform.dense.weight",
            1.1,
        ),
        ("gpt2-lm", "transformer.h.0.attn.c_attn.weight", 1.1),
        ("gpt2-lm", "transformer.h.1.mlp.c_proj.weight", 1.1),
        (
            "distilbert-sequence-classification",
            "distilbert.transformer.layer.0.ffn.lin1.weight",
            1.2,
        ),
        (
            "t5-token-classification",
            "transformer.encoder.block.0.layer.1.DenseReluDense.wi.weight",
            1.1,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let copy = copy_of(fixture, folder.path());
        scale(&copy.join("model.safetensors"), tensor, factor);
        let report = verify_in_bf16(&copy);
        assert_eq!(report.verdict(), Verdict::Fail, "{tensor}: {report}");
    }
}

#[test]
fn a_generated_token_may_differ_at_a_tie_only() {
    // The reference's third new token of the first row becomes another one, whose logit is far lower.
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of("gpt2-lm", folder.path());
    corrupt(&copy.join("cases.safetensors"), "greedy.out.sequences", 8);
    let report = verify_in_bf16(&copy);
    assert_eq!(report.verdict(), Verdict::Fail, "{report}");
    assert_eq!(
        report.failures[0].tensor, "greedy.out.sequences",
        "{report}"
    );
}
