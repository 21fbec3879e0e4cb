//! Model directories appear complete or not at all.

mod common;

use std::fs;
use std::path::Path;

use common::golden_models;
use malmoi_checkpoint::{
    Error, ExtraContent, ExtraFile, ModelDirectory, ModelFiles, NamedTensor, Overwrite,
    WEIGHTS_INDEX,
};
use serde_json::{Value, json};

fn files<'a>(config: &'a Value, tensors: &'a [NamedTensor<'a>]) -> ModelFiles<'a> {
    ModelFiles {
        config,
        tensors,
        generation_config: None,
        extra: &[],
        card: None,
        max_shard_bytes: None,
        nested: &[],
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn golden_models_survive_a_round_trip_bit_for_bit() {
    let out = tempfile::tempdir().unwrap();
    for dir in golden_models() {
        let read = ModelDirectory::open(&dir).unwrap();
        assert!(!read.model_type.is_empty() && read.architectures.len() == 1);
        let tensors: Vec<NamedTensor> = read
            .tensors
            .names()
            .map(|name| {
                let view = read.tensors.get(name).unwrap();
                NamedTensor::new(name, view.shape, view)
            })
            .collect();
        let target = out.path().join(dir.file_name().unwrap());
        let sharded = ModelFiles {
            // Two shards at least, however small the model is.
            max_shard_bytes: Some(fs::metadata(dir.join("model.safetensors")).unwrap().len() / 2),
            ..files(&read.config, &tensors)
        };
        for (what, overwrite) in [
            (files(&read.config, &tensors), Overwrite::Refuse),
            (sharded, Overwrite::Replace),
        ] {
            ModelDirectory::write(&target, &what, overwrite).unwrap();
            assert_eq!(
                target.join(WEIGHTS_INDEX).is_file(),
                what.max_shard_bytes.is_some()
            );
            let back = ModelDirectory::open(&target).unwrap();
            assert_eq!(back.config, read.config);
            assert_eq!(back.tensors.len(), read.tensors.len());
            for name in read.tensors.names() {
                assert_eq!(back.tensors.get(name), read.tensors.get(name), "{name}");
            }
        }
    }
}

#[test]
fn a_directory_holds_every_file_and_nothing_else() {
    let out = tempfile::tempdir().unwrap();
    let vocab = out.path().join("source.txt");
    fs::write(&vocab, "가\n나\n").unwrap();
    let target = out.path().join("a/model");
    let (config, generation) = (json!({"model_type": "gpt2"}), json!({"max_length": 7}));
    let tensors = [NamedTensor::new("w", &[1], vec![1.0f32])];
    let extra = [
        ExtraFile {
            name: "vocab.txt",
            content: ExtraContent::CopyOf(&vocab),
        },
        ExtraFile {
            name: "merges.txt",
            content: ExtraContent::Bytes(b"#version: 0.2\n"),
        },
    ];
    let what = ModelFiles {
        generation_config: Some(&generation),
        extra: &extra,
        card: Some("# card\n"),
        ..files(&config, &tensors)
    };
    ModelDirectory::write(&target, &what, Overwrite::Refuse).unwrap();
    let expected = [
        "README.md",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "vocab.txt",
    ];
    assert_eq!(names(&target), expected);
    assert_eq!(
        names(&out.path().join("a")),
        ["model"],
        "nothing temporary is left"
    );
    assert_eq!(
        fs::read_to_string(target.join("vocab.txt")).unwrap(),
        "가\n나\n"
    );
    assert_eq!(
        fs::read_to_string(target.join("config.json")).unwrap(),
        "{\n  \"model_type\": \"gpt2\"\n}\n"
    );
    let back = ModelDirectory::open(&target).unwrap();
    assert_eq!(
        (back.model_type.as_str(), back.generation_config),
        ("gpt2", Some(generation))
    );
}

#[test]
fn an_existing_path_is_not_overwritten_unasked() {
    let out = tempfile::tempdir().unwrap();
    let (model, other, empty) = (
        out.path().join("model"),
        out.path().join("other"),
        out.path().join("empty"),
    );
    let config = json!({});
    let (old, new) = (
        [NamedTensor::new("w", &[1], vec![1.0f32])],
        [NamedTensor::new("w", &[1], vec![2.0f32])],
    );
    ModelDirectory::write(&model, &files(&config, &old), Overwrite::Refuse).unwrap();
    let value = || {
        ModelDirectory::open(&model)
            .unwrap()
            .tensors
            .to_f32("w")
            .unwrap()
            .1[0]
    };

    let error =
        ModelDirectory::write(&model, &files(&config, &new), Overwrite::Refuse).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("already exists; choose another path"),
        "{error}"
    );
    assert_eq!(value(), 1.0);
    ModelDirectory::write(&model, &files(&config, &new), Overwrite::Replace).unwrap();
    assert_eq!(value(), 2.0);

    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.txt"), "mine").unwrap();
    let error =
        ModelDirectory::write(&other, &files(&config, &new), Overwrite::Replace).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("holds something other than a model"),
        "{error}"
    );
    assert_eq!(names(&other), ["thesis.txt"]);
    fs::create_dir(&empty).unwrap();
    ModelDirectory::write(&empty, &files(&config, &new), Overwrite::Refuse).unwrap();
    assert_eq!(names(out.path()), ["empty", "model", "other"]);
}

#[test]
fn a_failed_write_leaves_the_old_model_and_no_rubbish() {
    let out = tempfile::tempdir().unwrap();
    let model = out.path().join("model");
    let (config, tensors) = (json!({}), [NamedTensor::new("w", &[1], vec![1.0f32])]);
    ModelDirectory::write(&model, &files(&config, &tensors), Overwrite::Refuse).unwrap();
    let missing = out.path().join("not-there");
    for (name, content) in [
        ("vocab.txt", ExtraContent::CopyOf(&missing)),
        ("../vocab.txt", ExtraContent::Bytes(b"x")),
        ("a/../../b", ExtraContent::Bytes(b"x")),
        ("/b", ExtraContent::Bytes(b"x")),
    ] {
        let extra = [ExtraFile { name, content }];
        let what = ModelFiles {
            extra: &extra,
            ..files(&config, &tensors)
        };
        assert!(
            ModelDirectory::write(&model, &what, Overwrite::Replace).is_err(),
            "{name}"
        );
        assert_eq!(names(out.path()), ["model"]);
        assert_eq!(names(&model), ["config.json", "model.safetensors"]);
    }
}

#[test]
fn what_is_missing_is_named() {
    let out = tempfile::tempdir().unwrap();
    let open = |path: &Path| ModelDirectory::open(path).unwrap_err();
    let message = open(&out.path().join("nowhere")).to_string();
    assert!(
        message.contains("nowhere` isn't there: expected a model directory"),
        "{message}"
    );
    assert!(
        open(out.path())
            .to_string()
            .contains("config.json` isn't there")
    );
    fs::write(out.path().join("config.json"), "{\"model_type\": ").unwrap();
    assert!(matches!(open(out.path()), Error::Json { .. }));
    fs::write(out.path().join("config.json"), "{}").unwrap();
    assert!(
        open(out.path())
            .to_string()
            .contains("has no weights: expected `model.safetensors`")
    );
    assert!(open(out.path()).is_bad_input());
}
