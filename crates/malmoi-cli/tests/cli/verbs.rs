//! What the verbs print for good input.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::support::{malmoi, model, pretraining, run, says};
use serde_json::Value;
use tempfile::tempdir;

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn info_counts_published_parameters() {
    for (preset, expected) in [
        ("bert-base", 109_482_240),
        ("gpt1", 116_534_784),
        ("gpt2", 124_439_808),
        ("gpt2-xl", 1_557_611_200u64),
        ("t5-base", 222_903_552),
        ("llama-7b", 6_738_415_616),
    ] {
        let info = &json_lines(&run(&["info", preset, "--json"]).ok())[0];
        assert_eq!(info["parameters"].as_u64(), Some(expected), "{preset}");
        let parts: u64 = info["parts"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|part| part["parameters"].as_u64())
            .sum();
        assert_eq!(parts, expected);
    }
    assert!(run(&["info", "gpt3-175b"]).ok().contains("parameters"));
}

#[test]
fn generation_streams_and_its_json_is_the_same_text() {
    let parent = tempdir().unwrap();
    let gpt = path(&model(parent.path(), "gpt"));
    let arguments = [
        "generate",
        "--model",
        &gpt,
        "--prompt",
        "이 영화는",
        "--max-new-tokens",
        "5",
        "--sample",
        "--seed",
        "3",
    ];
    let text = run(&arguments).ok();
    assert_eq!(
        text,
        run(&arguments).ok(),
        "the same seed gives the same text"
    );
    let rows =
        json_lines(&run(&[&arguments[..], &["--json", "--log-probabilities"]].concat()).ok());
    assert_eq!(
        format!("이 영화는{}\n", rows[0]["text"].as_str().unwrap()),
        text
    );
    assert_eq!(
        rows[0]["ids"].as_array().unwrap().len(),
        rows[0]["log_probabilities"].as_array().unwrap().len()
    );
    let beams = [
        "generate",
        "--model",
        &gpt,
        "--prompt",
        "이",
        "--num-beams",
        "3",
        "--num-return-sequences",
        "2",
        "--json",
    ];
    let rows = json_lines(&run(&beams).ok());
    assert!(rows.len() == 2 && rows[0]["score"].as_f64() >= rows[1]["score"].as_f64());
}

#[test]
fn an_encoder_decoder_prints_the_new_text_alone() {
    let parent = tempdir().unwrap();
    let t5 = path(&model(parent.path(), "t5"));
    let prompt = "이 영화는";
    let arguments = [
        "generate",
        "--model",
        &t5,
        "--prompt",
        prompt,
        "--max-new-tokens",
        "6",
    ];
    let rows = json_lines(&run(&[&arguments[..], &["--json"]].concat()).ok());
    assert_eq!(rows[0]["prompt"].as_str(), Some(prompt));
    let text = rows[0]["text"].as_str().unwrap();
    assert_eq!(run(&arguments).ok(), format!("{text}\n"));
    let beams = [&arguments[..], &["--num-beams", "2"]].concat();
    let found = json_lines(&run(&[&beams[..], &["--json"]].concat()).ok());
    let text = found[0]["text"].as_str().unwrap();
    assert_eq!(run(&beams).ok(), format!("{text}\n"));
    // Nothing that a decoder alone can do.
    let data = parent.path().join("text.txt");
    fs::write(&data, "이 영화는 정말 재미있다\n".repeat(9)).unwrap();
    let message = run(&["eval", "lm", "--model", &t5, "--data", &path(&data)]).fails(2);
    says(&message, &["t5"]);
}

#[test]
fn blanks_embeddings_and_measures_have_json() {
    let parent = tempdir().unwrap();
    let bert = path(&model(parent.path(), "bert"));
    let rows = json_lines(
        &run(&[
            "fill-mask",
            "--model",
            &bert,
            "--prompt",
            "이 [MASK] 정말 [MASK]",
            "--top-k",
            "3",
            "--json",
        ])
        .ok(),
    );
    let blanks = rows[0]["blanks"].as_array().unwrap();
    assert_eq!(blanks.len(), 2);
    assert!(
        blanks
            .iter()
            .all(|blank| blank.as_array().unwrap().len() == 3
                && blank[0]["probability"].as_f64() >= blank[1]["probability"].as_f64())
    );
    let long = "정말 재미있다 ".repeat(30);
    let rows = json_lines(
        &run(&[
            "embed",
            "--model",
            &bert,
            "--normalize",
            "--json",
            "--prompt",
            "영화",
            "--prompt",
            &long,
        ])
        .ok(),
    );
    assert_eq!(
        (
            rows[0]["truncated"].as_bool(),
            rows[1]["truncated"].as_bool()
        ),
        (Some(false), Some(true))
    );
    for row in &rows {
        let norm: f64 = row["embedding"]
            .as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap().powi(2))
            .sum();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
    let text = parent.path().join("text.txt");
    fs::write(
        &text,
        "이 영화는 정말 재미있다\n배우의 연기가 좋았다\n".repeat(10),
    )
    .unwrap();
    let gpt = path(&model(parent.path(), "gpt"));
    let found = &json_lines(
        &run(&[
            "eval",
            "lm",
            "--model",
            &gpt,
            "--data",
            &path(&text),
            "--json",
        ])
        .ok(),
    )[0];
    assert!(
        (found["loss"].as_f64().unwrap().exp() - found["perplexity"].as_f64().unwrap()).abs()
            < 1e-6
    );
    let found = &json_lines(
        &run(&[
            "eval",
            "lm",
            "--model",
            &bert,
            "--data",
            &path(&text),
            "--json",
        ])
        .ok(),
    )[0];
    assert!(found["hidden"].as_u64() > Some(0));
}

#[test]
fn a_tokenizer_is_trained_tried_and_measured() {
    let parent = tempdir().unwrap();
    let text = parent.path().join("text.txt");
    fs::write(
        &text,
        "이 영화는 정말 재미있다ㅋㅋ\n배우의 연기가 좋았다\n".repeat(10),
    )
    .unwrap();
    let out = path(&parent.path().join("tokenizer"));
    for kind in ["wordpiece", "bpe", "unigram", "char"] {
        let train = [
            "tokenizer",
            "train",
            "--kind",
            kind,
            "--vocab-size",
            "300",
            "--out",
            &out,
            "--overwrite",
            "--json",
            &path(&text),
        ];
        run(&train).ok();
        let rows = json_lines(
            &run(&[
                "tokenizer",
                "encode",
                "--tokenizer",
                &out,
                "--text",
                "영화는 재미있다ㅋㅋ",
                "--json",
            ])
            .ok(),
        );
        assert!(!rows[0]["ids"].as_array().unwrap().is_empty(), "{kind}");
        let report = &json_lines(
            &run(&[
                "tokenizer",
                "inspect",
                "--tokenizer",
                &out,
                "--json",
                &path(&text),
            ])
            .ok(),
        )[0];
        assert_eq!(report["unknown"].as_u64(), Some(0), "{kind}: {report}");
    }
    assert_eq!(
        run(&[
            "tokenizer",
            "train",
            "--kind",
            "bpe",
            "--out",
            &out,
            &path(&text)
        ])
        .code,
        Some(2),
        "an existing tokenizer stays"
    );
}

#[test]
fn a_run_is_a_model_for_the_other_verbs_and_resumes() {
    let parent = tempdir().unwrap();
    let config = path(&pretraining(parent.path()));
    let out = path(&parent.path().join("run"));
    assert!(
        run(&["pretrain", &config, "--show", "2"])
            .ok()
            .lines()
            .count()
            >= 2
    );
    let printed = run(&["pretrain", &config, "--out", &out]).ok();
    assert!(printed.contains("4 of 4 steps"), "{printed}");
    run(&["pretrain", &config, "--out", &out, "--resume"]).ok();
    run(&[
        "generate",
        "--model",
        &out,
        "--prompt",
        "이",
        "--max-new-tokens",
        "3",
    ])
    .ok();
    assert!(run(&["info", &out]).ok().contains("GPT2LMHeadModel"));
}

#[test]
fn a_reader_that_stops_is_no_error() {
    let mut child = malmoi()
        .args(["help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[test]
fn doctor_and_usage_errors_have_their_exit_status() {
    let report = &json_lines(&run(&["doctor", "--json"]).ok())[0];
    assert!(
        report["cores"].as_u64() > Some(0) && report["data"].is_string(),
        "{report}"
    );
    assert!(run(&["doctor"]).ok().contains("instruction set"));
    assert_eq!(run(&["generate"]).code, Some(2));
    assert_eq!(run(&["no-such-verb"]).code, Some(2));
    assert_eq!(run(&["doctor", "--threads", "0"]).code, Some(2));
}

#[test]
fn retrieval_finds_each_text_by_itself() {
    let parent = tempdir().unwrap();
    let bert = path(&model(parent.path(), "bert"));
    let pairs = path(&parent.path().join("pairs.tsv"));
    let rows = "ko\tother\n영화\t좋았다\n정말 재미있다\t이 영화\n배우의 연기가 좋았다\t배우\n";
    fs::write(&pairs, rows).unwrap();
    let measure = |more: &[&str]| {
        let fixed = [
            "eval",
            "retrieval",
            "--model",
            &bert,
            "--data",
            &pairs,
            "--source-column",
            "ko",
            "--target-column",
        ];
        run(&[&fixed, more].concat())
    };
    let found = &json_lines(&measure(&["ko", "--json"]).ok())[0];
    assert_eq!(found["accuracy"].as_f64(), Some(1.0), "{found}");
    assert_eq!(found["pairs"].as_u64(), Some(3));
    let table = measure(&["other", "--layer", "1"]).ok();
    assert!(table.contains("other → ko"), "{table}");
    let message = measure(&["ko", "--layer", "9"]).fails(2);
    assert!(message.contains("layer is 9"), "{message}");
    let message = measure(&["ko", "--source-language", "1"]).fails(2);
    assert!(message.contains("language"), "{message}");
    let message = measure(&["en"]).fails(2);
    assert!(message.contains("en"), "{message}");
}
