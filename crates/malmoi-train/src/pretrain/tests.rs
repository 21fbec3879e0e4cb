use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use malmoi_checkpoint::run::list_checkpoints;
use malmoi_models::{Model, OpenOptions};
use serde_json::Value;

use super::*;
use crate::data::step_batches;
use crate::error::TrainError;
use crate::optim::Optimizer;

mod continued;

/// Korean and English text with something to learn: the second word of a line follows from the first.
fn text(documents: usize) -> String {
    let pairs = [
        ("오늘", "날씨가 좋다"),
        ("어제", "비가 왔다"),
        ("내일", "눈이 온다"),
        ("the", "cat sat down"),
        ("a", "dog ran away"),
    ];
    let mut text = String::new();
    for document in 0..documents {
        for line in 0..6 {
            let (first, rest) = pairs[(document * 7 + line * 3 + line * line) % pairs.len()];
            text += &format!("{first} {rest} {first} {rest}\n");
        }
        text.push('\n');
    }
    text
}

/// A directory with a corpus, and a configuration for it.
fn setting(objective: &str, changes: &[&str]) -> (tempfile::TempDir, PretrainConfig) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("train.txt"), text(60)).unwrap();
    std::fs::write(dir.path().join("valid.txt"), text(7)).unwrap();
    let (architecture, tokenizer) = match objective {
        MLM => ("bert", "wordpiece"),
        ORDER => ("albert", "wordpiece"),
        RTD => ("electra", "wordpiece"),
        SPANS => ("t5", "unigram"),
        DENOISING => ("bart", "bpe"),
        _ => ("gpt2", "bpe"),
    };
    let toml = format!(
        r#"
        [model]
        architecture = "{architecture}"
        d_model = 32
        n_layers = 2
        n_heads = 2
        max_len = 48
        [tokenizer]
        train = {{ kind = "{tokenizer}", vocab_size = 300 }}
        [data]
        dir = "{}"
        train = "train.txt"
        valid = "valid.txt"
        documents = "blank-line"
        [objective]
        {objective}
        [optimizer]
        lr = 3e-3
        [schedule]
        warmup_steps = 3
        [train]
        steps = 20
        batch_size = 4
        [evaluate]
        every = 10
        batches = 2
        [checkpoint]
        every = 5
        [log]
        every = 1
        "#,
        dir.path().display()
    );
    let sets: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let config = PretrainConfig::parse(&toml, "test", &sets).unwrap();
    (dir, config)
}

const CLM: &str = "kind = \"clm\"\ncontext = 24";
const MLM: &str = "kind = \"mlm\"\nmax_len = 40\nnext_sentence = true";
const ORDER: &str = "kind = \"mlm\"\nmax_len = 40\nsentence_order = true\nmax_ngram = 3";
const RTD: &str = "kind = \"rtd\"\nmax_len = 40\ngenerator = 0.5";
const DENOISING: &str = "kind = \"denoising\"\nmax_len = 40";
const SPANS: &str = "kind = \"span-corruption\"\nmax_len = 32";

fn options(out: &Path) -> RunOptions {
    RunOptions {
        out: out.to_path_buf(),
        ..RunOptions::default()
    }
}

/// Weights and optimiser of a checkpoint as bytes.
fn bytes(checkpoint: &Path) -> Vec<Vec<u8>> {
    ["model.safetensors", "optimizer.safetensors", "config.json"]
        .map(|name| std::fs::read(checkpoint.join(name)).unwrap())
        .to_vec()
}

#[test]
fn the_loss_falls_for_every_objective_and_the_result_opens() {
    for objective in [CLM, MLM, SPANS, DENOISING, ORDER, RTD] {
        let (dir, config) = setting(objective, &["train.steps=60", "evaluate.every=30"]);
        let out = dir.path().join("run");
        let mut losses = Vec::new();
        let mut first = None;
        let summary = run(
            &config,
            &options(&out),
            &mut |event: &Event<'_>| match event {
                Event::Step(step) => losses.push(step.loss),
                Event::Evaluated { evaluation, .. } => {
                    first.get_or_insert((*evaluation).clone());
                }
                _ => {}
            },
        )
        .unwrap();
        assert_eq!(
            (summary.reason, summary.step, losses.len()),
            (StopReason::Finished, 60, 60)
        );
        // Masked models learn from a seventh of the tokens, and whether such sentences follow each other cannot be told.
        let bound = if objective == CLM { 0.6 } else { 0.8 };
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(
            mean(&losses[50..]) < bound * mean(&losses[..5]),
            "{objective}: {losses:?}"
        );
        let (before, after) = (first.unwrap(), summary.evaluation.unwrap());
        // A better generator makes its tokens harder to find, so the sum of the two losses need not fall.
        let judged = if objective == RTD {
            "token_loss"
        } else {
            "loss"
        };
        assert!(
            after.get(judged) < before.get(judged),
            "{before:?} {after:?}"
        );
        let get = |name: &str| after.get(name).unwrap();
        assert!(
            (get("perplexity") - after.get("token_loss").unwrap_or(after.loss).exp()).abs() < 1e-9
        );
        assert!((0.0..1.0).contains(&get("baseline_accuracy")));
        assert_eq!(
            after.get("pair_accuracy").is_some(),
            [MLM, ORDER].contains(&objective)
        );
        assert_eq!(after.get("detection_accuracy").is_some(), objective == RTD);
        // The checkpoint is a model directory with its tokenizer.
        let model = Model::open(&out.join("best"), &OpenOptions::default()).unwrap();
        let tokenizer = malmoi_text::Tokenizer::load(out.join("last")).unwrap();
        assert_eq!(model.config().vocab_size(), tokenizer.vocab_size());
    }
}

#[test]
fn accumulated_gradients_equal_those_of_the_full_batch() {
    for objective in [CLM, MLM] {
        let (dir, config) = setting(objective, &["train.dropout=0.0"]);
        let prepared = prepare::prepare(&config, dir.path(), &mut Silent).unwrap();
        let model = prepared.start().unwrap();
        let options = StepOptions {
            seed: 1,
            lr: 1e-3,
            schedule: config.schedule.over(10, config.optimizer.lr, 16),
            clip_norm: 1.0,
            decay_all: false,
            recompute: false,
        };
        let trainer = Trainer::new(
            model,
            Optimizer::new(config.optimizer.rule.clone()).unwrap(),
            0,
            options,
        );
        let gradients = |accumulation: usize, batch_size: usize| {
            let batches = step_batches(&*prepared.train, 1, 0, accumulation, batch_size).unwrap();
            trainer.gradients(&batches).unwrap()
        };
        let whole = gradients(1, 8);
        for (accumulation, batch_size) in [(2, 4), (8, 1)] {
            let parts = gradients(accumulation, batch_size);
            assert!(
                (parts.loss / whole.loss - 1.0).abs() < 1e-6,
                "{} {}",
                parts.loss,
                whole.loss
            );
            assert!((parts.accuracy.unwrap() - whole.accuracy.unwrap()).abs() < 1e-6);
            for ((info, part), (_, whole)) in parts.gradients.iter().zip(&whole.gradients) {
                let (part, whole) = (part.as_ref().unwrap(), whole.as_ref().unwrap());
                let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
                let difference = norm(&mut part.iter().zip(whole).map(|(a, b)| f64::from(a - b)));
                let size = norm(&mut whole.iter().map(|&x| f64::from(x)));
                // The gradient of a key bias is zero but for rounding (softmax does not see a shift), so it has no size to
                // be relative to: it is measured against the norm of a weight's gradient, about 1e-2 here.
                assert!(
                    difference <= 1e-6 * size.max(1e-2),
                    "{}: {difference} of {size}",
                    info.name
                );
            }
        }
    }
}

/// Ends the run once so many steps are done, as a signal would.
fn interrupt_after(steps: u64) -> (Arc<AtomicBool>, impl FnMut(&Event<'_>)) {
    let flag = Arc::new(AtomicBool::new(false));
    let mine = Arc::clone(&flag);
    let observer = move |event: &Event<'_>| {
        if let Event::Step(step) = event
            && step.step == steps
        {
            mine.store(true, Ordering::Relaxed);
        }
    };
    (flag, observer)
}

#[test]
fn a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one() {
    for (objective, rule) in [
        (CLM, "adamw"),
        (MLM, "lamb"),
        (CLM, "adafactor"),
        (SPANS, "adafactor"),
        (RTD, "adamw"),
    ] {
        let (dir, config) = setting(objective, &[&format!("optimizer.kind={rule}")]);
        let straight = run(&config, &options(&dir.path().join("straight")), &mut Silent).unwrap();
        let out = dir.path().join("halted");
        let (flag, mut observer) = interrupt_after(7);
        let halted = RunOptions {
            interrupt: Some(flag),
            ..options(&out)
        };
        let summary = run(&config, &halted, &mut observer).unwrap();
        assert_eq!((summary.reason, summary.step), (StopReason::Interrupted, 7));
        let resumed = run(
            &config,
            &RunOptions {
                resume: true,
                ..options(&out)
            },
            &mut Silent,
        )
        .unwrap();
        assert_eq!(resumed.step, 20);
        assert_eq!(
            bytes(&resumed.last_checkpoint),
            bytes(&straight.last_checkpoint),
            "{objective} {rule}"
        );
        assert_eq!(resumed.evaluation, straight.evaluation);
        assert_eq!(resumed.best, straight.best);
        let steps: Vec<u64> = std::fs::read_to_string(out.join("metrics.jsonl"))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["kind"] == "train")
            .map(|line| line["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, (1..=20).collect::<Vec<_>>());
    }
}

#[test]
fn a_crash_after_the_last_checkpoint_changes_nothing() {
    let (dir, config) = setting(CLM, &[]);
    let straight = run(&config, &options(&dir.path().join("straight")), &mut Silent).unwrap();
    let out = dir.path().join("crashed");
    // A panic in the observer leaves the directory as a killed process would: steps 6 to 8 are in the metrics, not in a checkpoint.
    let crashed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = run(&config, &options(&out), &mut |event: &Event<'_>| {
            if let Event::Step(step) = event {
                assert!(step.step < 8, "crash on purpose");
            }
        });
    }));
    assert!(crashed.is_err());
    assert_eq!(list_checkpoints(&out).unwrap().last().unwrap().step, 5);
    let resumed = run(
        &config,
        &RunOptions {
            resume: true,
            ..options(&out)
        },
        &mut Silent,
    )
    .unwrap();
    assert_eq!(
        bytes(&resumed.last_checkpoint),
        bytes(&straight.last_checkpoint)
    );
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for objective in [CLM, MLM] {
        let (dir, config) = setting(objective, &["train.steps=6"]);
        let results: Vec<_> = [1, 2, 3]
            .map(|threads| {
                let out = dir.path().join(format!("threads-{threads}"));
                let summary = malmoi_kernels::threads::with(threads, || {
                    run(&config, &options(&out), &mut Silent)
                })
                .unwrap();
                bytes(&summary.last_checkpoint)
            })
            .to_vec();
        assert!(
            results.windows(2).all(|pair| pair[0] == pair[1]),
            "{objective}"
        );
    }
}

#[test]
fn a_learning_rate_that_explodes_stops_with_the_name_of_what_broke() {
    let (dir, config) = setting(
        CLM,
        &[
            "optimizer.lr=1e30",
            "train.clip_norm=0",
            "schedule.warmup_steps=0",
            "checkpoint.every=1",
            "evaluate.every=0",
        ],
    );
    let out = dir.path().join("run");
    let error = run(&config, &options(&out), &mut Silent).unwrap_err();
    let TrainError::NotFinite {
        what,
        step,
        checkpoint,
    } = &error
    else {
        panic!("{error}")
    };
    assert!(
        what.contains("loss") || what.contains("gradient of `"),
        "{what}"
    );
    assert!(*step > 1 && !error.is_bad_input());
    // What was saved before stays and opens.
    let checkpoint = checkpoint.as_ref().expect("steps before were saved");
    assert!(
        error
            .to_string()
            .contains(&checkpoint.display().to_string())
    );
    Model::open(checkpoint, &OpenOptions::default()).unwrap();
}

#[test]
fn resuming_with_another_configuration_names_the_keys() {
    let (dir, config) = setting(CLM, &[]);
    let out = dir.path().join("run");
    let (flag, mut observer) = interrupt_after(2);
    run(
        &config,
        &RunOptions {
            interrupt: Some(flag),
            ..options(&out)
        },
        &mut observer,
    )
    .unwrap();
    let mut other = config.clone();
    other.optimizer.lr = 1.0;
    other.log.every = 3;
    let resume = RunOptions {
        resume: true,
        ..options(&out)
    };
    let error = run(&other, &resume, &mut Silent).unwrap_err();
    let TrainError::ConfigChanged { keys } = &error else {
        panic!("{error}")
    };
    assert_eq!(keys.len(), 1);
    assert!(
        keys[0].starts_with("optimizer.lr: was 0.003, now 1"),
        "{keys:?}"
    );
    assert!(error.is_bad_input());
    // The refusal has not touched the run.
    assert_eq!(run(&config, &resume, &mut Silent).unwrap().step, 20);
}

#[test]
fn resuming_with_another_corpus_is_refused() {
    let (dir, config) = setting(CLM, &[]);
    let out = dir.path().join("run");
    let (flag, mut observer) = interrupt_after(2);
    run(
        &config,
        &RunOptions {
            interrupt: Some(flag),
            ..options(&out)
        },
        &mut observer,
    )
    .unwrap();
    std::fs::write(dir.path().join("train.txt"), text(61)).unwrap();
    let error = run(
        &config,
        &RunOptions {
            resume: true,
            ..options(&out)
        },
        &mut Silent,
    )
    .unwrap_err();
    assert!(
        matches!(
            &error,
            TrainError::CorpusChanged {
                what: "training corpus",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn early_stopping_and_a_time_limit_end_a_run() {
    let changes = [
        "train.early_stop=2",
        "evaluate.every=2",
        "train.steps=200",
        "optimizer.lr=1e-30",
        "schedule.kind=\"constant\"",
    ];
    let (dir, config) = setting(CLM, &changes);
    // With such a rate nothing is learnt, so no evaluation after the first is better.
    let summary = run(&config, &options(&dir.path().join("run")), &mut Silent).unwrap();
    assert_eq!((summary.reason, summary.step), (StopReason::EarlyStop, 6));
    assert_eq!(summary.best.unwrap().0, 2);
    assert!(summary.best_checkpoint.unwrap().ends_with("step-2"));
    let limited = RunOptions {
        time_limit: Some(std::time::Duration::ZERO),
        ..options(&dir.path().join("limited"))
    };
    let summary = run(&config, &limited, &mut Silent).unwrap();
    assert_eq!((summary.reason, summary.step), (StopReason::TimeLimit, 0));
}

#[test]
fn bad_input_ends_in_one_message_and_leaves_no_run_behind() {
    type Break = fn(&Path);
    let cases: [(&[&str], Break, &str); 6] = [
        (
            &[],
            |dir| std::fs::write(dir.join("train.txt"), "\n\n").unwrap(),
            "empty",
        ),
        (
            &[],
            |dir| std::fs::write(dir.join("train.txt"), b"good\nbad \xff\xfe line\n").unwrap(),
            "line 2",
        ),
        (
            &[],
            |dir| std::fs::remove_file(dir.join("valid.txt")).unwrap(),
            "valid.txt",
        ),
        (&["model.vocab_size=20"], |_| (), "vocabulary has 20"),
        (&["objective.context=64"], |_| (), "48 positions"),
        (&["objective.separator=\"<none>\""], |_| (), "<none>"),
    ];
    for (changes, broken, words) in cases {
        let (dir, config) = setting(CLM, changes);
        broken(dir.path());
        let out = dir.path().join("run");
        let error = run(&config, &options(&out), &mut Silent).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(
            !out.exists(),
            "{words}: nothing was trained, so nothing stays"
        );
    }
}

#[test]
fn an_objective_that_does_not_fit_the_architecture_is_refused() {
    let (dir, mut config) = setting(CLM, &[]);
    config.model.architecture = Some("bert".into());
    let error = run(&config, &options(&dir.path().join("run")), &mut Silent).unwrap_err();
    assert!(
        error.to_string().contains("objective.kind") && error.is_bad_input(),
        "{error}"
    );
    config.model.architecture = Some("gpt2".into());
    config.model.n_heads = Some(5);
    let error = run(&config, &options(&dir.path().join("run")), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("model.n_heads"), "{error}");
}

#[test]
fn a_new_run_does_not_overwrite_another() {
    let (dir, config) = setting(CLM, &["train.steps=2"]);
    let out = dir.path().join("run");
    run(&config, &options(&out), &mut Silent).unwrap();
    let before = bytes(&out.join("last"));
    let error = run(&config, &options(&out), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("--resume"), "{error}");
    assert_eq!(bytes(&out.join("last")), before);
}

#[test]
fn rotation_keeps_the_latest_and_the_best() {
    let (dir, config) = setting(
        CLM,
        &[
            "checkpoint.keep=1",
            "checkpoint.every=2",
            "evaluate.every=0",
            "train.steps=9",
        ],
    );
    let out = dir.path().join("run");
    run(&config, &options(&out), &mut Silent).unwrap();
    let steps: Vec<u64> = list_checkpoints(&out)
        .unwrap()
        .iter()
        .map(|checkpoint| checkpoint.step)
        .collect();
    assert_eq!(steps, [9]);
}

#[test]
fn every_trainable_tensor_gets_its_decay_by_its_shape() {
    // With a gradient of zero AdamW only decays, so a step shows which tensors are decayed.
    let (dir, config) = setting(
        CLM,
        &[
            "optimizer.weight_decay=0.5",
            "optimizer.lr=0.1",
            "schedule.kind=\"constant\"",
            "schedule.warmup_steps=0",
        ],
    );
    let prepared = prepare::prepare(&config, dir.path(), &mut Silent).unwrap();
    for decay_all in [false, true] {
        let model = prepared.start().unwrap();
        let model = model.update(|_, values| values.fill(1.0));
        let options = StepOptions {
            seed: 1,
            lr: 0.1,
            schedule: config.schedule.over(10, config.optimizer.lr, 16),
            // A norm this small takes the gradient out of the step, but for Adam's scale: eps is above it.
            clip_norm: 1e-30,
            decay_all,
            recompute: false,
        };
        let mut trainer = Trainer::new(
            model,
            Optimizer::new(config.optimizer.rule.clone()).unwrap(),
            0,
            options,
        );
        let batches = step_batches(&*prepared.train, 1, 0, 1, 2).unwrap();
        trainer.advance(&batches).unwrap();
        trainer.model().read(|info, values| {
            let decayed = values.iter().all(|&x| (x - 0.95).abs() < 1e-6);
            let kept = values.iter().all(|&x| (x - 1.0).abs() < 1e-6);
            let vector = info.name.ends_with(".bias")
                || info.name.ends_with(".gamma")
                || info.name.ends_with(".beta");
            assert!(
                if vector && !decay_all { kept } else { decayed },
                "{} {decay_all}",
                info.name
            );
        });
    }
}

#[test]
fn examples_are_shown_as_readable_text() {
    let (_dir, config) = setting(MLM, &[]);
    let shown = show(&config, None, 3, &mut Silent).unwrap();
    assert_eq!(shown.len(), 3);
    assert!(
        shown
            .iter()
            .all(|text| text.contains("[CLS]") && text.contains('→') && text.contains("segment"))
    );
    let (_dir, config) = setting(DENOISING, &[]);
    let shown = show(&config, None, 3, &mut Silent).unwrap();
    for text in &shown {
        let (input, output) = text.split_once("out:").unwrap();
        assert!(
            input.contains("<mask>") && !output.contains("<mask>"),
            "{text}"
        );
        assert!(
            output.trim_start().starts_with("<s>") && output.ends_with("</s>"),
            "{text}"
        );
    }
    let (_dir, config) = setting(CLM, &["tokenizer.train.vocab_size=280"]);
    let shown = show(&config, None, 2, &mut Silent).unwrap();
    assert!(
        shown.iter().all(|text| text.contains("24 predicted")),
        "{shown:?}"
    );
    // The smallest vocabulary has few whole syllables: their bytes are joined for the reader.
    assert!(
        shown[0].contains("(3)") || shown[0].contains("(2)"),
        "{shown:?}"
    );
    assert!(
        shown[0].chars().any(|c| ('가'..='힣').contains(&c)),
        "{shown:?}"
    );
}

#[test]
fn translations_train_models_that_know_languages_and_models_that_know_segments() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (0..40)
        .map(|i| format!("영화 {} 좋다\tfilm {} is good", i % 7, i % 7))
        .collect();
    std::fs::write(
        dir.path().join("train.tsv"),
        format!("ko\ten\n{}\n", rows.join("\n")),
    )
    .unwrap();
    for (architecture, more) in [("bert", ""), ("xlm", "published = { n_langs = 2 }")] {
        let toml = format!(
            r#"
            [model]
            architecture = "{architecture}"
            d_model = 32
            n_layers = 1
            n_heads = 2
            max_len = 48
            {more}
            [tokenizer]
            train = {{ kind = "wordpiece", vocab_size = 80 }}
            [data]
            dir = {:?}
            train = "train.tsv"
            [objective]
            kind = "tlm"
            columns = ["ko", "en"]
            pairs = 1.0
            [train]
            steps = 3
            batch_size = 4
            "#,
            dir.path()
        );
        let config = PretrainConfig::parse(&toml, "test", &[]).unwrap();
        let shown = show(&config, None, 2, &mut Silent).unwrap();
        // Two texts, each on a line of its own.
        assert!(
            shown.iter().all(|text| text.lines().count() == 3),
            "{shown:?}"
        );
        let summary = run(
            &config,
            &options(&dir.path().join(architecture)),
            &mut Silent,
        )
        .unwrap();
        assert_eq!(summary.step, 3);
        if architecture == "xlm" {
            let set = ["objective.languages=[0, 2]".to_string()];
            let wrong = PretrainConfig::parse(&toml, "test", &set).unwrap();
            let out = options(&dir.path().join("wrong"));
            let error = run(&wrong, &out, &mut Silent).unwrap_err().to_string();
            assert!(error.contains("objective.languages"), "{error}");
        }
        let set = ["objective.columns=[\"ko\", \"fr\"]".to_string()];
        let wrong = PretrainConfig::parse(&toml, "test", &set).unwrap();
        let out = options(&dir.path().join("columns"));
        let error = run(&wrong, &out, &mut Silent).unwrap_err();
        assert!(
            error.is_bad_input() && error.to_string().contains("fr"),
            "{error}"
        );
    }
}
