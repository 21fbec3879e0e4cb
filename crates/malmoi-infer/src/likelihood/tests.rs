//! Against values of Python's `transformers` (golden/likelihood.py), and against the plain way of doing the same.

use std::path::{Path, PathBuf};

use malmoi_models::{Head, Mode, Model, ModelConfig};
use malmoi_text::Tokenizer;
use serde_json::{Value, json};

use super::*;
use crate::pipeline::PipelineOptions;

/// Logits reach 20, so their f32 rounding is about 1e-6, and a layer adds as much again; up to 16 of them are summed.
const TOLERANCE: f64 = 2e-4;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden")
}

fn recorded() -> Value {
    let text = std::fs::read_to_string(golden().join("likelihood/requests.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A recorded model with its tokenizer.
fn pipeline(name: &str, tokenizer: &str) -> Pipeline {
    let dir = tempfile::tempdir().unwrap();
    for (from, file) in [
        (golden().join("likelihood").join(name), "config.json"),
        (golden().join("likelihood").join(name), "model.safetensors"),
        (golden().join(tokenizer), "tokenizer.json"),
    ] {
        std::fs::copy(from.join(file), dir.path().join(file)).unwrap();
    }
    Pipeline::open(dir.path(), &PipelineOptions::default()).unwrap()
}

fn options(tokens_per_batch: usize) -> ScoreOptions {
    ScoreOptions {
        tokens_per_batch,
        ..ScoreOptions::default()
    }
}

fn score(pipeline: &Pipeline, texts: &[(&str, &str)], options: &ScoreOptions) -> Vec<Scored> {
    pipeline.likelihoods(texts, options, &mut |_| ()).unwrap()
}

#[test]
fn likelihoods_are_those_of_python_for_every_kind_of_model_and_any_batch() {
    let recorded = recorded();
    let requests: Vec<(&str, &str)> = (recorded["requests"].as_array().unwrap().iter())
        .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
        .collect();
    let mut worst: f64 = 0.0;
    for (name, entry) in recorded["models"].as_object().unwrap() {
        let pipeline = pipeline(name, entry["tokenizer"].as_str().unwrap());
        let rows = entry["rows"].as_array().unwrap();
        for tokens_per_batch in [1, 60, 4096] {
            let found = score(&pipeline, &requests, &options(tokens_per_batch));
            for ((row, found), request) in rows.iter().zip(&found).zip(&requests) {
                let expected = row["log_likelihood"].as_f64().unwrap();
                let difference = (found.log_likelihood - expected).abs();
                assert!(
                    difference < TOLERANCE,
                    "{name}, {tokens_per_batch} tokens, {request:?}: {found:?}, expected {expected}"
                );
                worst = worst.max(difference);
                assert_eq!(
                    Some(found.tokens as u64),
                    row["tokens"].as_u64(),
                    "{name} {request:?}"
                );
                assert_eq!(
                    Some(found.truncated),
                    row["truncated"].as_bool(),
                    "{name} {request:?}"
                );
                assert_eq!(
                    Some(found.greedy),
                    row["greedy"].as_bool(),
                    "{name} {request:?}"
                );
            }
        }
        if let Some(whole_words) = entry["whole_words"].as_array() {
            let word = ScoreOptions {
                pseudo: Pseudo::Word,
                ..options(256)
            };
            for (found, expected) in score(&pipeline, &requests, &word).iter().zip(whole_words) {
                let difference = (found.log_likelihood - expected.as_f64().unwrap()).abs();
                assert!(difference < TOLERANCE, "{found:?}, expected {expected}");
            }
        }
    }
    println!("largest difference: {worst:.1e}");
}

fn gpt2(vocab_size: usize) -> Model {
    let config = json!({
        "model_type": "gpt2", "vocab_size": vocab_size, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24,
        "initializer_range": 0.5,
    });
    let config = ModelConfig::from_json(&config, false).unwrap();
    Model::initialise(config, Head::CausalLm, 5, Mode::Inference)
}

fn pair(context: &[u32], target: &[u32]) -> Pair {
    Pair {
        context: context.to_vec(),
        target: target.to_vec(),
        after: Vec::new(),
    }
}

#[test]
fn a_shared_context_changes_nothing() {
    let model = gpt2(11);
    let pairs = [
        pair(&[1, 2, 3], &[4]),
        pair(&[1, 2, 3], &[5, 6, 7]),
        pair(&[1, 2, 3], &[8, 9]),
        pair(&[2], &[4, 4]),
        pair(&[2], &[3]),
    ];
    let together = causal::score(&model, &pairs, &options(512), &mut |_| ()).unwrap();
    for (pair, sum) in pairs.iter().zip(&together) {
        let alone = causal::score(
            &model,
            std::slice::from_ref(pair),
            &options(512),
            &mut |_| (),
        );
        let alone = alone.unwrap()[0];
        assert!(
            (alone.log_likelihood - sum.log_likelihood).abs() < 1e-5,
            "{pair:?}"
        );
        assert_eq!(alone.greedy, sum.greedy);
    }
}

#[test]
fn what_greedy_decoding_writes_is_greedy() {
    let model = gpt2(11);
    let greedy = crate::generate::GenerateOptions {
        max_new_tokens: 4,
        ..Default::default()
    };
    let prompt = [3, 1, 4];
    let written = crate::generate::generate(&model, &[prompt], &greedy, &mut |_| {
        crate::generate::Flow::Continue
    });
    let ids = &written.unwrap()[0].ids;
    let mut other = ids.clone();
    other[3] = (other[3] + 1) % 11;
    let pairs = [pair(&prompt, ids), pair(&prompt, &other)];
    let sums = causal::score(&model, &pairs, &options(64), &mut |_| ()).unwrap();
    assert!(sums[0].greedy && !sums[1].greedy);
    assert!(sums[0].log_likelihood > sums[1].log_likelihood);
}

#[test]
fn without_a_token_that_starts_texts_the_first_token_is_context_and_said_so() {
    let text = "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],\"normalizer\":null,\
        \"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[\\\\s\\\\S]\"},\"behavior\":\"Isolated\",\"invert\":false},\
        \"post_processor\":null,\"decoder\":null,\
        \"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2},\"unk_token\":\"a\"}}";
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), text).unwrap();
    let pipeline = Pipeline::new(gpt2(3), Tokenizer::load(dir.path()).unwrap()).unwrap();
    let found = score(&pipeline, &[("", "abc"), ("a", "bc")], &options(64));
    assert!(found[0].without_first && !found[1].without_first);
    assert_eq!(found[0].tokens, 2);
    assert!((found[0].log_likelihood - found[1].log_likelihood).abs() < 1e-6);
    let long = "a".repeat(25);
    let refuse = |context: &str, text: &str| {
        pipeline
            .likelihoods(&[(context, text)], &options(64), &mut |_| ())
            .unwrap_err()
    };
    assert!(matches!(
        refuse("a", &long),
        InferError::TextTooLong { tokens: 25, .. }
    ));
    assert!(matches!(refuse("a", ""), InferError::TooShort { .. }));
    assert!(score(&pipeline, &[(&long, "b")], &options(64))[0].truncated);
}

#[test]
fn a_model_without_a_language_model_head_is_refused() {
    let config = json!({"model_type": "gpt2", "vocab_size": 1000, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2});
    let config = ModelConfig::from_json(&config, false).unwrap();
    let model = Model::initialise(config, Head::None, 1, Mode::Inference);
    let tokenizer = Tokenizer::load(golden().join("tokenizer-bytelevel-bpe")).unwrap();
    let pipeline = Pipeline::new(model, tokenizer).unwrap();
    let error = pipeline.likelihoods(&[("a", " b")], &options(64), &mut |_| ());
    assert!(matches!(error, Err(InferError::WrongModel { .. })));
}
