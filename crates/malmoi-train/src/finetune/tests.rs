use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use malmoi_models::{
    ClassTargets, Head, Labels, Mode, Model, ModelConfig, OpenOptions, SaveOptions,
};
use malmoi_tasks::read_records;
use malmoi_text::{Algorithm, TrainOptions, train_from_iter};
use serde_json::json;

use super::data::held;
use super::*;
use crate::data::{Answer, Counts, Example, MicroBatch, Weighted};
use crate::training::{Event, Silent, StopReason};

mod recipes;
mod tasks;
mod tuning;

/// Rows of the Korean film reviews of the repository.
fn reviews(file: &str, rows: usize) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../data/ko_sentiment_nsmc")
        .join(file);
    read_records(&path, &["document", "label"], "utf-8")
        .unwrap()
        .iter()
        .take(rows)
        .map(|row| (row.text("document").unwrap(), row.text("label").unwrap()))
        .collect()
}

fn write_rows(path: &Path, header: &str, rows: &[(String, String)]) -> PathBuf {
    let mut text = format!("{header}\n");
    for (a, b) in rows {
        writeln!(text, "{a}\t{b}").unwrap();
    }
    std::fs::write(path, text).unwrap();
    path.to_path_buf()
}

/// A small untrained model with a tokenizer for these texts.
fn start(dir: &Path, config: &serde_json::Value, head: Head, texts: &[String]) -> PathBuf {
    let algorithm = match config["model_type"].as_str() {
        Some("bert") => Algorithm::WordPiece,
        Some("t5") => Algorithm::Unigram,
        _ => Algorithm::Bpe,
    };
    let trained = train_from_iter(
        texts.iter().map(|text| Ok(text.clone())),
        &TrainOptions::new(algorithm, 1500),
        &mut |_| (),
    )
    .unwrap();
    let config = ModelConfig::from_json(config, false)
        .unwrap()
        .with_vocab_size(trained.tokenizer.vocab_size());
    let model = Model::initialise(config, head, 1, Mode::Inference);
    let path = dir.join("start");
    model.save(&path, &SaveOptions::default()).unwrap();
    trained.tokenizer.save(&path, None).unwrap();
    path
}

fn bert() -> serde_json::Value {
    json!({
        "model_type": "bert", "vocab_size": 8, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 128, "max_position_embeddings": 48,
    })
}

fn gpt2() -> serde_json::Value {
    json!({
        "model_type": "gpt2", "vocab_size": 8, "n_embd": 64, "n_layer": 1, "n_head": 2, "n_positions": 48,
    })
}

fn configured(
    model: &Path,
    train: &Path,
    valid: &Path,
    sets: &[&str],
) -> Result<FinetuneConfig, TrainError> {
    let text = format!(
        "[model]\npath = {:?}\n[data]\ntrain = {:?}\nvalid = {:?}\nmax_len = 40\n[task]\nkind = \"classify\"\n",
        model, train, valid
    );
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    FinetuneConfig::parse(&text, "test", &sets)
}

/// Makes a run that is interrupted at a step.
fn halted(config: &FinetuneConfig, out: PathBuf, at: u64) -> Summary {
    let flag = Arc::new(AtomicBool::new(false));
    let mine = Arc::clone(&flag);
    let halted = RunOptions {
        interrupt: Some(flag),
        ..options(out)
    };
    let mut watch = |event: &Event<'_>| {
        if matches!(event, Event::Step(step) if step.step == at) {
            mine.store(true, Ordering::Relaxed);
        }
    };
    run(config, &halted, &mut watch).unwrap()
}

/// A small untrained model in `dir`, and the first reviews as rows of text and label.
fn small_start(dir: &Path, rows: usize) -> (PathBuf, PathBuf) {
    let train = reviews("train.tsv.gz", rows);
    let texts: Vec<String> = train.iter().map(|(text, _)| text.clone()).collect();
    let model = start(dir, &bert(), Head::None, &texts);
    let rows = write_rows(&dir.join("train.tsv"), "text\tlabel", &train);
    (model, rows)
}

/// Makes a run in one go, and one that is interrupted at a step and continued; checks that these files of their last checkpoints are the
/// same. Gives both, and how to continue the second.
fn straight_and_resumed(
    config: &FinetuneConfig,
    dir: &Path,
    at: u64,
    files: &[&str],
) -> (Summary, Summary, RunOptions) {
    let straight = run(config, &options(dir.join("straight")), &mut Silent).unwrap();
    let out = dir.join("halted");
    let summary = halted(config, out.clone(), at);
    assert_eq!(
        (summary.reason, summary.step),
        (StopReason::Interrupted, at)
    );
    let resume = RunOptions {
        resume: true,
        ..options(out)
    };
    let resumed = run(config, &resume, &mut Silent).unwrap();
    for file in files {
        let bytes = |summary: &Summary| std::fs::read(summary.last_checkpoint.join(file)).unwrap();
        assert_eq!(bytes(&resumed), bytes(&straight), "{file}");
    }
    (straight, resumed, resume)
}

/// Makes a run and gives its warnings.
fn warnings(config: &FinetuneConfig, out: PathBuf) -> String {
    let mut warned = String::new();
    let mut watch = |event: &Event<'_>| {
        if let Event::Warning(text) = event {
            warned += text;
        }
    };
    run(config, &options(out), &mut watch).unwrap();
    warned
}

fn options(out: PathBuf) -> RunOptions {
    RunOptions {
        out,
        ..RunOptions::default()
    }
}

#[test]
fn a_small_model_learns_sentiment_and_its_folder_knows_the_task() {
    let dir = tempfile::tempdir().unwrap();
    let (train, valid) = (reviews("train.tsv.gz", 2400), reviews("valid.tsv", 400));
    let texts: Vec<String> = train.iter().map(|(text, _)| text.clone()).collect();
    for (shape, name) in [(bert(), "bert"), (gpt2(), "gpt2")] {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let model = start(&dir, &shape, Head::None, &texts);
        let rows = write_rows(&dir.join("train.tsv"), "text\tlabel", &train);
        let held_out = write_rows(&dir.join("valid.tsv"), "text\tlabel", &valid);
        let sets = ["optimizer.lr=2e-3", "train.epochs=4"];
        let config = configured(&model, &rows, &held_out, &sets).unwrap();
        let mut warned = String::new();
        let out = dir.join("run");
        let summary = run(&config, &options(out.clone()), &mut |event: &Event<'_>| {
            if let Event::Warning(text) = event {
                warned.push_str(text);
            }
        })
        .unwrap();
        let found = summary.evaluation.unwrap();
        let get = |name: &str| found.get(name).unwrap();
        // Four standard deviations of a guess over 400 rows are 0.1.
        assert!(get("accuracy") > get("majority") + 0.1, "{name}: {found:?}");
        assert!(
            warned.contains("training rows are longer than 40 tokens"),
            "{warned}"
        );
        // The best checkpoint is the one that the metric names, and it says what it is for.
        let (best, value) = summary.best.unwrap();
        assert!(value >= get("accuracy"), "{best} {value}");
        let saved = SavedTask::load(&out.join("best")).unwrap().unwrap();
        assert_eq!((saved.task, saved.max_len), (config.task.clone(), 40));
        let model = Model::open(&out.join("best"), &OpenOptions::default()).unwrap();
        assert_eq!(model.config().labels(), ["0", "1"]);
        let tokenizer = malmoi_text::Tokenizer::load(out.join("best")).unwrap();
        let task = config.task.task();
        let encoder = encoder(model.config(), &tokenizer, 40, None);
        let cases = read_cases(
            &held_out,
            task,
            Some(model.config().labels()),
            &encoder,
            "utf-8",
        );
        let again = evaluate(
            &model,
            &tokenizer,
            &config.task,
            &cases.unwrap(),
            &mut |_| (),
        );
        assert_eq!(again.unwrap().get("accuracy"), Some(value));
    }
}

#[test]
fn decoders_alone_and_behind_an_encoder_learn_text_to_text() {
    let animals = [
        ("개", "dog"),
        ("고양이", "cat"),
        ("말", "horse"),
        ("소", "cow"),
        ("새", "bird"),
    ];
    let rows: Vec<(String, String)> = (0..200)
        .map(|i| animals[i % animals.len()])
        .map(|(a, b)| (format!("{a} 한 마리"), format!("one {b}")))
        .collect();
    let texts: Vec<String> = rows.iter().map(|(a, b)| format!("번역: {a} {b}")).collect();
    let t5 = json!({
        "model_type": "t5", "vocab_size": 8, "d_model": 64, "num_layers": 1, "num_heads": 2, "d_kv": 32, "d_ff": 128,
        "n_positions": 48, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
    });
    for (shape, head) in [(gpt2(), Head::CausalLm), (t5, Head::Seq2SeqLm)] {
        let dir = tempfile::tempdir().unwrap();
        let model = start(dir.path(), &shape, head, &texts);
        let data = write_rows(&dir.path().join("train.tsv"), "ko\ten", &rows);
        let sets = [
            "task={kind=\"text2text\", source_column=\"ko\", target_column=\"en\", prefix=\"번역: \", max_target_len=8}",
            "optimizer.lr=3e-3",
            "train.epochs=12",
            "evaluate.rows=10",
        ];
        let config = configured(&model, &data, &data, &sets).unwrap();
        let summary = run(&config, &options(dir.path().join("run")), &mut Silent).unwrap();
        let found = summary.evaluation.unwrap();
        assert_eq!(found.get("exact_match"), Some(1.0), "{found:?}");
        assert!(found.loss < 0.1, "{found:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let model = start(dir.path(), &gpt2(), Head::CausalLm, &texts);
    let data = write_rows(&dir.path().join("train.tsv"), "ko\ten", &rows);
    let long =
        ["task={kind=\"text2text\", source_column=\"ko\", target_column=\"en\", max_target_len=9}"];
    let config = configured(&model, &data, &data, &long).unwrap();
    let error = run(&config, &options(dir.path().join("long")), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("40 + 9"), "{error}");
}

#[test]
fn a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    let (model, rows) = small_start(dir.path(), 96);
    let config = configured(
        &model,
        &rows,
        &rows,
        &["train.batch_size=8", "train.epochs=2"],
    )
    .unwrap();
    let files = ["model.safetensors"];
    let (straight, resumed, resume) = straight_and_resumed(&config, dir.path(), 5, &files);
    assert_eq!(resumed.evaluation, straight.evaluation);
    let other = configured(
        &model,
        &rows,
        &rows,
        &["train.batch_size=4", "train.epochs=2"],
    )
    .unwrap();
    let error = run(&other, &resume, &mut Silent).unwrap_err();
    assert!(
        error.to_string().contains("train.batch_size: was 8, now 4"),
        "{error}"
    );
}

#[test]
fn bad_input_ends_in_one_message_and_leaves_no_run_behind() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |text: &str, label: &str| (text.to_string(), label.to_string());
    let rows = vec![pair("좋다 좋아", "1"), pair("싫다 싫어", "0")];
    let texts: Vec<String> = rows.iter().map(|(text, _)| text.clone()).collect();
    let model = start(dir.path(), &bert(), Head::None, &texts);
    let file = |name: &str, header: &str, rows: &[(String, String)]| {
        write_rows(&dir.path().join(name), header, rows)
    };
    let good = file("good.tsv", "text\tlabel", &rows);
    let empty = dir.path().join("nothing.tsv");
    std::fs::write(&empty, "").unwrap();
    let cases = [
        (
            file("columns.tsv", "document\tlabel", &rows),
            good.clone(),
            "text",
        ),
        (
            file("rows.tsv", "text\tlabel", &[]),
            good.clone(),
            "no rows",
        ),
        (empty, good.clone(), "empty"),
        (
            file("one.tsv", "text\tlabel", &rows[..1]),
            good.clone(),
            "at least two",
        ),
        (
            good.clone(),
            file("unseen.tsv", "text\tlabel", &[pair("좋다", "2")]),
            "unseen.tsv: line 2: the label `2` is none of those that the model knows (0, 1)",
        ),
        (dir.path().join("absent.tsv"), good.clone(), "absent.tsv"),
    ];
    for (train, valid, words) in cases {
        let out = dir.path().join("run");
        let config = configured(&model, &train, &valid, &[]).unwrap();
        let error = run(&config, &options(out.clone()), &mut Silent).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!out.exists(), "{words}");
    }
    let word = ["task.kind=regress"];
    let bad = file("value.tsv", "text\tlabel", &[pair("좋다", "아주")]);
    let config = configured(&model, &bad, &good, &word).unwrap();
    let error = run(&config, &options(dir.path().join("run")), &mut Silent).unwrap_err();
    assert!(
        error.to_string().contains("a number") && error.is_bad_input(),
        "{error}"
    );
}

#[test]
fn a_damaged_body_is_refused_and_a_new_head_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let rows = reviews("train.tsv.gz", 40);
    let texts: Vec<String> = rows.iter().map(|(text, _)| text.clone()).collect();
    let model = start(dir.path(), &bert(), Head::MaskedLm, &texts);
    let data = write_rows(&dir.path().join("train.tsv"), "text\tlabel", &rows);
    let one = configured(&model, &data, &data, &["train.steps=1"]).unwrap();
    // A masked-language model has neither pooler nor classifier: both are new.
    run(&one, &options(dir.path().join("new-head")), &mut Silent).unwrap();
    let path = model.join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let deeper = text.replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2");
    assert_ne!(text, deeper);
    std::fs::write(&path, deeper).unwrap();
    let error = run(&one, &options(dir.path().join("damaged")), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("layer.1."), "{error}");
}

#[test]
fn defaults_are_the_published_recipe_and_give_way_to_the_file() {
    let path = Path::new("x");
    let given = configured(path, path, path, &[]).unwrap();
    assert_eq!(
        (given.train.epochs, given.train.batch_size),
        (Some(3.0), 32)
    );
    assert_eq!(given.optimizer.lr, 5e-5);
    assert_eq!(given.schedule.warmup_ratio, Some(0.1));
    let again = FinetuneConfig::parse(&given.to_toml().unwrap(), "again", &[]).unwrap();
    assert_eq!(again, given);
    let sets = [
        "train.steps=7",
        "schedule.warmup_steps=2",
        "optimizer.kind=sgd",
    ];
    let other = configured(path, path, path, &sets).unwrap();
    assert_eq!((other.train.epochs, other.train.steps), (None, Some(7)));
    assert_eq!(
        (other.schedule.warmup_ratio, other.schedule.warmup_steps),
        (None, 2)
    );
    let text = "[model]\npath = \"x\"\n[data]\ntrain = \"x\"\n[task]\nkind = \"classify\"\n[train]\nepochs = 5.0\n";
    let other = FinetuneConfig::parse(text, "test", &["train.steps=7".into()]).unwrap();
    assert_eq!((other.train.epochs, other.train.steps), (None, Some(7)));
    let error = configured(path, path, path, &["data.max_length=7"]).unwrap_err();
    assert!(error.to_string().contains("max_length"), "{error}");
}

#[test]
fn unequal_micro_batches_of_values_add_up_to_the_full_batch() {
    let config = json!({
        "model_type": "bert", "vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 8, "id2label": {"0": "LABEL_0"}, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    });
    let config = ModelConfig::from_json(&config, false).unwrap();
    let model = Model::initialise(config, Head::SequenceClassification, 3, Mode::Training);
    let examples: Vec<Example> = (0..5_u32)
        .map(|i| Example {
            ids: vec![2, 5 + i, 3],
            starts: vec![0],
            positions: vec![0, 1, 2],
            answer: Some(Answer::Value(i as f32)),
            ..Example::default()
        })
        .collect();
    let rule = crate::optim::Rule::Sgd(Default::default());
    let step = crate::training::StepOptions {
        seed: 1,
        lr: 0.1,
        schedule: crate::config::ScheduleSection::default().over(1, 0.1, 16),
        clip_norm: 0.0,
        decay_all: false,
        recompute: false,
    };
    let optimizer = crate::optim::Optimizer::new(rule).unwrap();
    let trainer = crate::training::Trainer::new(model, optimizer, 0, step);
    let whole = trainer.gradients(&[MicroBatch::pack(&examples)]).unwrap();
    let parts = [
        MicroBatch::pack(&examples[..2]),
        MicroBatch::pack(&examples[2..]),
    ];
    let split = trainer.gradients(&parts).unwrap();
    assert!((whole.loss - split.loss).abs() < 1e-5 * whole.loss);
    assert_eq!(whole.accuracy, None, "no value comes out on top");
    assert_eq!(split.accuracy, None);
    for ((info, a), (_, b)) in whole.gradients.iter().zip(&split.gradients) {
        for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
            // Sums in another order: a few units in the last place of the largest terms.
            assert!(
                (a - b).abs() <= 1e-5 * (1.0 + a.abs()),
                "{}: {a} {b}",
                info.name
            );
        }
    }
}

#[test]
fn classes_weigh_by_the_rows_of_the_whole_step() {
    let example = |class| Example {
        ids: vec![1, 2],
        starts: vec![0],
        positions: vec![0, 1],
        answer: Some(Answer::Class(Weighted::plain(class))),
        ..Example::default()
    };
    let micros = [
        MicroBatch::pack(&[example(0)]),
        MicroBatch::pack(&[example(1), example(1), example(0)]),
    ];
    let counts = Counts::of(&micros);
    assert_eq!(counts.answers, 4.0);
    let expected = Labels::Classes(ClassTargets {
        targets: vec![1, 1, 0].into(),
        weights: vec![0.25; 3].into(),
    });
    assert_eq!(micros[1].labels(counts), expected);
}
