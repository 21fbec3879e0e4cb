//! Against values of sentence-transformers (golden/embeddings.py), and runs on small models.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use malmoi_infer::embed::{EmbedOptions, cosine, embed};
use malmoi_models::{
    Head, Mode, Model, ModelConfig, OpenOptions, Pass, Pooling, SaveOptions, SentenceLayout,
};
use malmoi_text::{Algorithm, EncodeOptions, Tokenizer, TrainOptions, train_from_iter};
use serde_json::{Value, json};

use super::*;
use crate::data::{Counts, Example, MicroBatch, SentenceRule};
use crate::training::{Event, Silent};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden")
}

fn recorded() -> Value {
    let text = std::fs::read_to_string(golden().join("embeddings.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn pooling(name: &str) -> Pooling {
    match name {
        "mean" => Pooling::Mean,
        "cls" => Pooling::Cls,
        "lasttoken" => Pooling::Last,
        "max" => Pooling::Max,
        "weightedmean" => Pooling::WeightedMean,
        "mean_sqrt_len_tokens" => Pooling::MeanSqrtLen,
        other => panic!("{other}"),
    }
}

/// The recorded model without dropout, whose pooler its files lack.
fn golden_model(mode: Mode) -> (Model, Tokenizer) {
    let options = OpenOptions {
        head: Some(Head::None),
        mode,
        accept_missing: true,
        accept_unused: true,
        ..OpenOptions::default()
    };
    let model = Model::open(&golden().join("likelihood/bert"), &options).unwrap();
    let model = crate::finetune::with_dropout(model, 0.0, mode);
    let tokenizer = Tokenizer::load(golden().join("tokenizer-wordpiece")).unwrap();
    (model, tokenizer)
}

#[test]
fn losses_and_gradients_are_those_of_sentence_transformers() {
    let recorded = recorded();
    let (model, tokenizer) = golden_model(Mode::Training);
    for (name, expected) in recorded["losses"].as_object().unwrap() {
        let (kind, mode) = name.split_once('/').unwrap();
        let (loss, group) = match kind {
            "contrastive" => (LossKind::Contrastive, 2),
            "contrastive-with-negatives" => (LossKind::Contrastive, 3),
            "similarity" => (LossKind::Similarity, 2),
            "cosent" => (LossKind::Cosent, 2),
            other => panic!("{other}"),
        };
        let rule = SentenceRule {
            loss,
            scale: 20.0,
            pooling: pooling(mode),
            group,
        };
        let examples: Vec<Example> = (recorded["pairs"].as_array().unwrap().iter())
            .map(|pair| {
                let mut example = Example {
                    sentences: Some((rule, pair[3].as_f64().unwrap() as f32)),
                    ..Example::default()
                };
                for text in &pair.as_array().unwrap()[..group] {
                    let ids = tokenizer.encode_ids(text.as_str().unwrap(), true).unwrap();
                    example.starts.push(example.ids.len());
                    example.positions.extend(0..ids.len() as u32);
                    example.ids.extend(ids);
                }
                example
            })
            .collect();
        let micro = MicroBatch::pack(&examples);
        let counts = Counts::of(std::slice::from_ref(&micro));
        assert_eq!(micro.share(counts), 1.0);
        let (report, gradients) = model
            .loss_and_gradients(&micro.batch, &micro.labels(counts), &Pass::inference())
            .unwrap();
        let value = expected["loss"].as_f64().unwrap();
        // Rounding of f32 states of a two-layer model, times the scale of 20.
        assert!(
            (report.loss - value).abs() < 1e-4,
            "{name}: {} {value}",
            report.loss
        );
        let gradients: Vec<_> = gradients
            .into_iter()
            .filter_map(|(info, gradient)| Some((info, gradient?)))
            .collect();
        let norms = expected["gradient_norms"].as_object().unwrap();
        let published = model.publish(&gradients);
        assert_eq!(published.len(), norms.len(), "{name}");
        for (parameter, _, gradient) in published {
            let norm = gradient
                .iter()
                .map(|g| f64::from(*g).powi(2))
                .sum::<f64>()
                .sqrt();
            let expected = norms[&parameter].as_f64().unwrap();
            assert!(
                (norm - expected).abs() < 1e-3 * expected + 1e-5,
                "{name} {parameter}: {norm} {expected}"
            );
        }
    }
}

#[test]
fn every_pooling_gives_the_embeddings_of_sentence_transformers() {
    let recorded = recorded();
    let (model, tokenizer) = golden_model(Mode::Inference);
    let sequences: Vec<Vec<u32>> = (recorded["pairs"].as_array().unwrap().iter())
        .map(|pair| {
            tokenizer
                .encode_ids(pair[1].as_str().unwrap(), true)
                .unwrap()
        })
        .collect();
    for (name, expected) in recorded["embeddings"].as_object().unwrap() {
        let options = EmbedOptions {
            pooling: pooling(name),
            normalize: false,
            ..EmbedOptions::default()
        };
        let found = embed(&model, &sequences, &options).unwrap();
        for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
            for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
                let difference = (f64::from(*found) - expected.as_f64().unwrap()).abs();
                assert!(difference < 1e-4, "{name}: {found} {expected}");
            }
        }
    }
}

/// Sentences of eight subjects, each in its own words; pairs of one subject belong together.
fn corpus() -> Vec<(String, String, usize)> {
    const WORDS: [[&str; 4]; 8] = [
        ["비가", "우산", "구름", "날씨"],
        ["배우", "영화", "연기", "극장"],
        ["기차", "역", "표", "시간표"],
        ["책", "읽다", "도서관", "작가"],
        ["밥", "국", "반찬", "식당"],
        ["공", "경기", "선수", "결승"],
        ["꽃", "나무", "정원", "봄"],
        ["노래", "음악", "가수", "무대"],
    ];
    let mut rows = Vec::new();
    for n in 0..160 {
        let (subject, words) = (n % 8, WORDS[n % 8]);
        let pick = |shift: usize| words[(n / 8 + shift) % 4];
        let a = format!("{} 그리고 {}", pick(0), pick(1));
        let b = format!("{} 또는 {}", pick(2), pick(3));
        rows.push((a, b, subject));
    }
    rows
}

fn start(dir: &Path) -> PathBuf {
    let rows = corpus();
    let texts = rows
        .iter()
        .flat_map(|(a, b, _)| [a, b])
        .map(|t| Ok(t.clone()));
    let options = TrainOptions::new(Algorithm::WordPiece, 300);
    let trained = train_from_iter(texts, &options, &mut |_| ()).unwrap();
    let config = json!({
        "model_type": "bert", "vocab_size": trained.tokenizer.vocab_size(), "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 32,
    });
    let config = ModelConfig::from_json(&config, false).unwrap();
    let path = dir.join("start");
    // A head for blanks, so that the pooler has to be made.
    let model = Model::initialise(config, Head::MaskedLm, 1, Mode::Inference);
    model.save(&path, &SaveOptions::default()).unwrap();
    trained.tokenizer.save(&path, None).unwrap();
    path
}

fn write(path: &Path, header: &str, rows: impl Iterator<Item = String>) -> PathBuf {
    let mut text = format!("{header}\n");
    for row in rows {
        writeln!(text, "{row}").unwrap();
    }
    std::fs::write(path, text).unwrap();
    path.to_path_buf()
}

fn configured(model: &Path, train: &Path, sets: &[&str]) -> Result<EmbeddingConfig, TrainError> {
    let text = format!(
        "[model]\npath = {model:?}\n[data]\ntrain = {train:?}\nvalid = {train:?}\n[optimizer]\nlr = 2e-3\n"
    );
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    EmbeddingConfig::parse(&text, "test", &sets)
}

fn options(out: PathBuf) -> RunOptions {
    RunOptions {
        out,
        ..RunOptions::default()
    }
}

#[test]
fn pairs_that_belong_together_find_each_other_and_the_folder_says_how() {
    let dir = tempfile::tempdir().unwrap();
    let model = start(dir.path());
    let rows = corpus();
    let train = write(
        &dir.path().join("pairs.tsv"),
        "sentence1\tsentence2\tkind",
        (rows.iter().enumerate()).flat_map(|(n, (a, b, _))| {
            let other = &rows[(n + 3) % rows.len()].1;
            [format!("{a}\t{b}\tsame"), format!("{a}\t{other}\tother")]
        }),
    );
    let sets = [
        "data.label_column=kind",
        "data.positive=[\"same\"]",
        "train.epochs=6",
        "train.batch_size=8",
        "embedding.normalize=true",
    ];
    let config = configured(&model, &train, &sets).unwrap();
    let out = dir.path().join("run");
    let summary = run(&config, &options(out.clone()), &mut Silent).unwrap();
    let found = summary.evaluation.unwrap();
    // 32 distinct second texts, no word of which is in the first one: chance is 10 of 32.
    assert!(found.get("recall_at_10").unwrap() > 0.9, "{found:?}");
    assert_eq!(found.targets, 160, "rows of the other label are left out");
    let best = out.join("best");
    let layout = SentenceLayout::read(&best).unwrap().unwrap();
    assert_eq!(
        layout,
        SentenceLayout {
            pooling: Pooling::Mean,
            normalize: true,
            max_len: Some(32),
        }
    );
    // The saved model is the bare one, and measures the same.
    let saved = Model::open(&best, &OpenOptions::default()).unwrap();
    assert_eq!(saved.head(), Head::None);
    let tokenizer = Tokenizer::load(&best).unwrap();
    let columns = Columns {
        text_column: "sentence1".into(),
        pair_column: "sentence2".into(),
        negative_column: None,
        label_column: Some("kind".into()),
        positive: vec!["same".into()],
    };
    let pairs = read_pairs(&train, &columns, &tokenizer, 32, "utf-8").unwrap();
    let bare = OpenOptions {
        head: Some(Head::None),
        accept_missing: true,
        accept_unused: true,
        ..OpenOptions::default()
    };
    let untrained = Model::open(&model, &bare).unwrap();
    let before = evaluate(&untrained, &pairs, Pooling::Mean).unwrap();
    assert!(before.get("recall_at_10").unwrap() < 0.7, "{before:?}");
    let again = evaluate(&saved, &pairs, Pooling::Mean).unwrap();
    let (_, value) = summary.best.unwrap();
    assert!((again.get("mrr").unwrap() - value).abs() < 1e-9);
    let vector = |text: &str| {
        let ids = tokenizer
            .encode(text, None, &EncodeOptions::default())
            .unwrap()
            .ids;
        embed(&saved, &[ids], &EmbedOptions::default())
            .unwrap()
            .remove(0)
    };
    let rain = vector("비가 그리고 우산");
    assert!(cosine(&rain, &vector("구름 또는 날씨")) > cosine(&rain, &vector("선수 또는 결승")));
}

#[test]
fn scores_are_learned_by_both_losses_and_a_run_resumes_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let model = start(dir.path());
    let rows = corpus();
    let train = write(
        &dir.path().join("scores.tsv"),
        "sentence1\tsentence2\tscore",
        (rows.iter().enumerate()).flat_map(|(n, (a, b, _))| {
            let other = &rows[(n + 3) % rows.len()].1;
            [
                format!("{a}\t{b}\t{}", 4 + n % 2),
                format!("{a}\t{other}\t{}", n % 2),
            ]
        }),
    );
    for loss in ["similarity", "cosent"] {
        let kind = format!("embedding.loss={loss}");
        let sets = ["data.label_column=score", kind.as_str(), "train.epochs=5"];
        let config = configured(&model, &train, &sets).unwrap();
        let out = dir.path().join(loss);
        let summary = run(&config, &options(out.clone()), &mut Silent).unwrap();
        let found = summary.evaluation.unwrap();
        // Ties within two groups leave a perfect separation at 0.89.
        assert!(found.get("spearman").unwrap() > 0.7, "{loss}: {found:?}");
        // Half of the run, continued, ends in the same weights.
        let half = dir.path().join(format!("{loss}-half"));
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let interrupted = RunOptions {
            interrupt: Some(std::sync::Arc::clone(&stop)),
            ..options(half.clone())
        };
        run(&config, &interrupted, &mut |event: &Event<'_>| {
            if let Event::Step(step) = event
                && step.step == 23
            {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        })
        .unwrap();
        let resumed = RunOptions {
            resume: true,
            ..options(half.clone())
        };
        run(&config, &resumed, &mut Silent).unwrap();
        let weights = |run: &Path| {
            let model = Model::open(&run.join("last"), &OpenOptions::default()).unwrap();
            model.published_tensors()
        };
        assert_eq!(weights(&out), weights(&half), "{loss}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    let (model, train) = (Path::new("model"), Path::new("train.tsv"));
    for (sets, key) in [
        (&["embedding.loss=similarity"][..], "data.label_column"),
        (&["data.label_column=score"][..], "data.positive"),
        (&["data.positive=[\"a\"]"][..], "data.label_column"),
        (&["embedding.pooling=max"][..], "embedding.pooling"),
        (&["embedding.scale=0"][..], "embedding.scale"),
        (&["train.batch_size=1"][..], "train.batch_size"),
    ] {
        let error = configured(model, train, sets).unwrap_err().to_string();
        assert!(error.contains(key), "{sets:?}: {error}");
    }
    let error = configured(model, train, &["embedding.pool=mean"]).unwrap_err();
    assert!(error.to_string().contains("pool"), "{error}");
}
