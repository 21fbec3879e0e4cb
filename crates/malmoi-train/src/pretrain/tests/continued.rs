//! Runs that go on from a model.

use std::path::Path;

use malmoi_checkpoint::ModelDirectory;
use malmoi_models::{Head, Model, OpenOptions, SaveOptions};
use serde_json::{Value, json};

use super::{CLM, DENOISING, MLM, SPANS, bytes, interrupt_after, options, setting};
use crate::pretrain::*;
use crate::training::ADAPTER_FOLDER;

/// The parameters that a run starts with.
fn first_weights(config: &PretrainConfig, out: &Path) -> Vec<Vec<f32>> {
    std::fs::create_dir_all(out).unwrap();
    let prepared = prepare::prepare(config, out, &mut Silent).unwrap();
    let mut weights = Vec::new();
    prepared
        .start()
        .unwrap()
        .read(|_, parameter| weights.push(parameter.to_vec()));
    weights
}

/// The configuration of a run that goes on from the model in `saved`, on the text in `dir`.
fn continued(dir: &Path, saved: &Path, objective: &str, changes: &[&str]) -> PretrainConfig {
    let toml = format!(
        "[model]\npath = {saved:?}\n[data]\ndir = {dir:?}\ntrain = \"train.txt\"\nvalid = \"valid.txt\"\ndocuments = \"blank-line\"\n[objective]\n{objective}\n\
         [optimizer]\nlr = 1e-3\n[train]\nsteps = 20\nbatch_size = 4\n[evaluate]\nbatches = 2\n"
    );
    let sets: Vec<String> = changes.iter().map(ToString::to_string).collect();
    PretrainConfig::parse(&toml, "test", &sets).unwrap()
}

/// Names and values of the parameters of the model in a directory.
fn weights(directory: &Path) -> Vec<(String, Vec<f32>)> {
    let mut weights = Vec::new();
    Model::open(directory, &OpenOptions::default())
        .unwrap()
        .read(|info, values| weights.push((info.name.clone(), values.to_vec())));
    weights
}

#[test]
fn training_goes_on_from_the_weights_of_a_model() {
    for objective in [CLM, MLM, SPANS, DENOISING] {
        let (dir, config) = setting(objective, &[]);
        let out = dir.path().join("run");
        let before = run(&config, &options(&out), &mut Silent).unwrap();
        let saved = dir.path().join("run/last");
        let more = continued(dir.path(), &saved, objective, &[]);
        let opened: Vec<Vec<f32>> = weights(&saved).into_iter().map(|(_, w)| w).collect();
        assert_eq!(
            first_weights(&more, &dir.path().join("prepared")),
            opened,
            "{objective}"
        );
        let out = dir.path().join("more");
        let after = run(&more, &options(&out), &mut Silent).unwrap();
        let loss = |summary: &Summary| summary.evaluation.as_ref().unwrap().loss;
        assert!(loss(&after) < loss(&before), "{objective}");
        // The tokenizer comes along.
        let (old, new) = (
            saved.join("tokenizer.json"),
            out.join("last/tokenizer.json"),
        );
        assert_eq!(std::fs::read(old).unwrap(), std::fs::read(new).unwrap());
    }
}

#[test]
fn adapters_change_little_of_a_model_that_is_continued() {
    for (objective, task_type) in [
        (CLM, json!("CAUSAL_LM")),
        (MLM, Value::Null),
        (SPANS, json!("SEQ_2_SEQ_LM")),
    ] {
        let (dir, config) = setting(objective, &[]);
        let before = run(&config, &options(&dir.path().join("run")), &mut Silent).unwrap();
        let saved = dir.path().join("run/last");
        let sets = [
            "tune.lora.rank=2",
            "optimizer.lr=1e-2",
            "train.dropout=0",
            "train.steps=40",
        ];
        let more = continued(dir.path(), &saved, objective, &sets);
        let straight = run(&more, &options(&dir.path().join("straight")), &mut Silent).unwrap();
        let loss = |summary: &Summary| summary.evaluation.as_ref().unwrap().loss;
        assert!(loss(&straight) < loss(&before), "{objective}");
        let last = weights(&straight.last_checkpoint);
        for ((name, old), (_, new)) in weights(&saved).iter().zip(&last) {
            // One matrix of GPT-2 holds query, key and value.
            let packed = objective == CLM && name.ends_with(".key.weight");
            let adapted = name.ends_with(".query.weight") || name.ends_with(".value.weight");
            assert_eq!(old != new, adapted || packed, "{objective}: {name}");
        }
        let adapter = straight.last_checkpoint.join(ADAPTER_FOLDER);
        let made = malmoi_checkpoint::read_json(&adapter.join("adapter_config.json")).unwrap();
        assert_eq!(made["task_type"], task_type);
        assert_eq!(made["modules_to_save"], Value::Null);
        // A checkpoint holds merged weights; a run that goes on must add to those it started from.
        let out = dir.path().join("halted");
        let (flag, mut observer) = interrupt_after(7);
        let halted = RunOptions {
            interrupt: Some(flag),
            ..options(&out)
        };
        run(&more, &halted, &mut observer).unwrap();
        let resume = RunOptions {
            resume: true,
            ..options(&out)
        };
        let resumed = run(&more, &resume, &mut Silent).unwrap();
        assert_eq!(
            bytes(&resumed.last_checkpoint),
            bytes(&straight.last_checkpoint),
            "{objective}"
        );
    }
}

#[test]
fn a_head_that_the_files_lack_is_trained_whole_beside_adapters() {
    let (dir, config) = setting(MLM, &[]);
    run(&config, &options(&dir.path().join("run")), &mut Silent).unwrap();
    let directory = ModelDirectory::open(dir.path().join("run/last")).unwrap();
    let body = dir.path().join("body");
    let tokenizer = dir.path().join("run/last/tokenizer.json");
    let bare = OpenOptions {
        head: Some(Head::None),
        accept_unused: true,
        ..OpenOptions::default()
    };
    let bare = Model::from_directory(directory, &bare).unwrap();
    bare.save(&body, &SaveOptions::default()).unwrap();
    std::fs::copy(tokenizer, body.join("tokenizer.json")).unwrap();
    let sets = ["tune.lora.rank=2", "optimizer.lr=1e-2", "train.steps=5"];
    let objective = "kind = \"mlm\"\nmax_len = 40";
    let config = continued(dir.path(), &body, objective, &sets);
    let after = run(&config, &options(&dir.path().join("more")), &mut Silent).unwrap();
    let start = dir.path().join("start");
    std::fs::create_dir_all(&start).unwrap();
    let first = first_weights(&config, &start);
    for (old, (name, new)) in first.iter().zip(weights(&after.last_checkpoint)) {
        let of_head = name.starts_with("vocabulary.") && !name.ends_with("decoder.weight");
        let adapted = name.ends_with(".query.weight") || name.ends_with(".value.weight");
        assert_eq!(*old != new, of_head || adapted, "{name}");
    }
}

#[test]
fn a_model_that_is_continued_has_its_shape_and_tokenizer() {
    let base = "[model]\npath = \"somewhere\"\n[data]\ntrain = \"train.txt\"\n[objective]\nkind = \"clm\"\n[train]\nsteps = 2\nbatch_size = 1\n";
    for (set, key) in [
        ("model.d_model=64", "model.d_model"),
        ("tune.lora.rank=0", "tune.lora.rank"),
        ("tune.lora.alpha=0", "tune.lora.alpha"),
        ("model.preset=gpt2", "model.preset"),
        ("tokenizer.path=there", "tokenizer.path"),
        ("objective.kind=rtd", "model.path"),
    ] {
        let error = PretrainConfig::parse(base, "test", &[set.to_owned()]).unwrap_err();
        assert!(error.to_string().contains(key), "{set}: {error}");
    }
    // A new model has no weights to adapt.
    let new = base.replace("path = \"somewhere\"", "preset = \"gpt2\"");
    let new = new + "[tokenizer]\npath = \"there\"\n";
    let error = PretrainConfig::parse(&new, "test", &["tune.lora.rank=2".into()]).unwrap_err();
    assert!(error.to_string().contains("model.path"), "{error}");
}
