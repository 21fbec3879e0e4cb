//! Fine-tuning on the command line: train, measure, ask; and what bad input says.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::tempdir;

use crate::support::{model, run, says};

const ROWS: [(&str, &str); 4] = [
    ("음악이 좋았다", "긍정"),
    ("연기가 좋았다", "긍정"),
    ("음악이 나빴다", "부정"),
    ("연기가 나빴다", "부정"),
];

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn table(path: PathBuf, header: &str, rows: &[(&str, &str)]) -> String {
    let lines: Vec<String> = rows.iter().map(|(a, b)| format!("{a}\t{b}")).collect();
    fs::write(&path, format!("{header}\n{}\n", lines.join("\n"))).unwrap();
    path.display().to_string()
}

#[test]
fn a_classifier_is_trained_measured_and_asked() {
    let parent = tempdir().unwrap();
    let bert = path(&model(parent.path(), "bert"));
    let rows = ROWS.repeat(16);
    let train = table(parent.path().join("train.tsv"), "review\tsense", &rows);
    let out = path(&parent.path().join("run"));
    let arguments = [
        "finetune",
        "classify",
        "--model",
        &bert,
        "--train",
        &train,
        "--valid",
        &train,
        "--text-column",
        "review",
        "--label-column",
        "sense",
        "--out",
        &out,
        "--lr",
        "1e-2",
        "--epochs",
        "40",
        "--max-len",
        "16",
        "--set",
        "train.batch_size=8",
    ];
    let said = run(&arguments).ok();
    says(
        &said,
        &["320 of 320 steps", "accuracy", "majority", "best: "],
    );
    // The model knows columns and labels of its own.
    let found = run(&[
        "eval", "classify", "--model", &out, "--data", &train, "--json",
    ])
    .ok();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["rows"], 64);
    assert_eq!(found["accuracy"], 1.0);
    assert_eq!(found["majority"], 0.5);
    let asked = run(&[
        "predict",
        "classify",
        "--model",
        &out,
        "--prompt",
        "음악이 나빴다",
    ])
    .ok();
    let asked: Value = serde_json::from_str(&asked).unwrap();
    assert_eq!(asked["label"], "부정");
    assert_eq!(asked["review"], "음악이 나빴다");
    assert!(asked["probabilities"]["긍정"].as_f64().unwrap() < 0.5);
    let message = run(&["predict", "regress", "--model", &out, "--prompt", "음악"]).fails(2);
    says(&message, &["regress", "one output", "found 2"]);
    // A table goes row by row, without labels too.
    let table = table(
        parent.path().join("ask.tsv"),
        "id\treview",
        &[("1", "연기가 좋았다")],
    );
    let asked = run(&["predict", "classify", "--model", &out, "--input", &table]).ok();
    says(&asked, &["\"label\":\"긍정\""]);
    let again = run(&arguments).fails(2);
    says(&again, &[&out]);
    run(&[&arguments[..], &["--resume"]].concat()).ok();
}

#[test]
fn bad_rows_and_columns_are_named() {
    let parent = tempdir().unwrap();
    let bert = path(&model(parent.path(), "bert"));
    let dir = parent.path();
    let good = table(dir.join("good.tsv"), "text\tlabel", &ROWS);
    let empty = table(dir.join("empty.tsv"), "text\tlabel", &[]);
    let other = table(dir.join("other.tsv"), "review\tlabel", &ROWS);
    let unseen = table(
        dir.join("unseen.tsv"),
        "text\tlabel",
        &[("보통이다", "보통")],
    );
    let out = path(&dir.join("run"));
    for (train, valid, words) in [
        (&empty, &good, &["empty.tsv", "no rows"][..]),
        (&other, &good, &["other.tsv", "text", "review"]),
        (
            &good,
            &unseen,
            &["unseen.tsv: line 2", "보통", "긍정, 부정"],
        ),
    ] {
        let message = run(&[
            "finetune", "classify", "--model", &bert, "--train", train, "--valid", valid, "--out",
            &out,
        ])
        .fails(2);
        says(&message, words);
        assert!(!Path::new(&out).exists());
    }
    let message = run(&[
        "finetune",
        "classify",
        "--model",
        &bert,
        "--train",
        &good,
        "--valid",
        &good,
        "--out",
        &out,
        "--metric",
        "beauty",
        "--epochs",
        "1",
        "--max-len",
        "16",
    ])
    .fails(2);
    says(&message, &["beauty", "accuracy"]);
    assert!(!Path::new(&out).exists());
    let message = run(&["eval", "classify", "--model", &bert, "--data", &good]).fails(2);
    says(&message, &["labels", "malmoi finetune classify"]);
    let message = run(&[
        "finetune",
        "text2text",
        "--model",
        &bert,
        "--train",
        &good,
        "--out",
        &out,
    ])
    .fails(2);
    says(&message, &["text2text", "bert"]);
}

/// What the issue of every task is, and where: the first wrong row of a file ends the run, what the usual tools put up with is counted.
#[test]
fn bad_rows_of_every_task_are_named_with_file_and_line() {
    let parent = tempdir().unwrap();
    let bert = path(&model(parent.path(), "bert"));
    let file = |name: &str, text: &str| {
        let path = parent.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let question = r#"{"context": "영화 음악이", "question": "영화", "answers": [{"text": "음악이", "answer_start": "#;
    let refused = [
        (
            "classify",
            file("no-label.tsv", "text\tlabel\n영화\t1\n음악이\t\n"),
            &["no-label.tsv: line 3", "`label`", "a label"][..],
        ),
        (
            "classify",
            file("short.tsv", "text\tlabel\n영화\t1\n음악이\n"),
            &["short.tsv: line 3", "2 cells"],
        ),
        (
            "pair",
            file("columns.tsv", "text\tlabel\n영화\t1\n"),
            &["columns.tsv", "sentence1", "text, label"],
        ),
        (
            "regress",
            file("word.tsv", "text\tlabel\n영화\t1\n음악이\t많이\n"),
            &["word.tsv: line 3", "많이", "a number"],
        ),
        (
            "tag",
            file("no-tag.conll", "영화\tB-WK\n음악이\n"),
            &["no-tag.conll: line 2", "음악이", "tag"],
        ),
        (
            "qa",
            file(
                "offset.jsonl",
                &format!("{question}3}}]}}\n{question}2}}]}}\n"),
            ),
            &[
                "offset.jsonl: line 2",
                "음악이",
                "character 2",
                "found at 3",
            ],
        ),
        (
            "choice",
            file(
                "choice.jsonl",
                r#"{"text": "영화", "choices": ["영화", "음악이"], "label": 2}"#,
            ),
            &["choice.jsonl: line 1", "`2`", "0 to 1"],
        ),
    ];
    let out = path(&parent.path().join("run"));
    let finetune = |task: &str, file: &str| {
        run(&[
            "finetune",
            task,
            "--model",
            &bert,
            "--train",
            file,
            "--out",
            &out,
            "--max-len",
            "16",
            "--set",
            "train.steps=1",
        ])
    };
    for (task, file, words) in &refused {
        says(&finetune(task, file).fails(2), words);
        assert!(!Path::new(&out).exists(), "{file}");
    }
    let counted = [
        (
            "classify",
            file("empty.tsv", "text\tlabel\n영화\t1\n\t0\n"),
            &["1 of 2", "empty text", "empty.tsv: line 3"][..],
        ),
        (
            "tag",
            file("broken.conll", "영화\tB-WK\n음악이\tI-PS\n"),
            &["1 of 1", "I- tag", "broken.conll: line 2"],
        ),
    ];
    for (task, file, words) in &counted {
        let ran = finetune(task, file);
        says(&ran.stderr, words);
        ran.ok();
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn pretraining_goes_on_with_a_text_of_ones_own() {
    let parent = tempdir().unwrap();
    let text = parent.path().join("own.txt");
    fs::write(&text, "오늘은 날씨가 좋다\n어제는 비가 왔다\n".repeat(40)).unwrap();
    let (text, out) = (path(&text), path(&parent.path().join("run")));
    for kind in ["gpt", "bert"] {
        let start = path(&model(parent.path(), kind));
        let out = format!("{out}-{kind}");
        let measured = |model: &str| -> f64 {
            let found = run(&["eval", "lm", "--model", model, "--data", &text, "--json"]).ok();
            let found: Value = serde_json::from_str(&found).unwrap();
            found["loss"].as_f64().unwrap()
        };
        let arguments = [
            "finetune",
            "lm",
            "--model",
            &start,
            "--train",
            &text,
            "--valid",
            &text,
            "--documents",
            "line",
            "--epochs",
            "8",
            "--lr",
            "1e-2",
            "--batch-size",
            "20",
            "--out",
            &out,
        ];
        let said = run(&arguments).ok();
        says(&said, &["finished", "validation: loss", "model: "]);
        let (before, after) = (measured(&start), measured(&out));
        assert!(after < 0.7 * before, "{kind}: {before} to {after}");
        let config = fs::read_to_string(Path::new(&out).join("config.toml")).unwrap();
        says(&config, &["documents = \"line\"", "epochs = 8.0"]);
        run(&[&arguments[..], &["--resume"]].concat()).ok();
        let adapted = format!("{out}-adapter");
        let last = arguments.len() - 1;
        let lora = [&adapted, "--lora-rank", "2", "--lora-targets"];
        let target = if kind == "gpt" { "c_attn" } else { "query" };
        run(&[&arguments[..last], &lora, &[target]].concat()).ok();
        assert!(measured(&adapted) < before, "{kind}");
        assert!(
            Path::new(&adapted)
                .join("last/adapter/adapter_model.safetensors")
                .is_file()
        );
    }
    // Both commands call documents by the names of the other one, too.
    let gpt = path(&parent.path().join("gpt"));
    let arguments = ["eval", "lm", "--model", &gpt, "--data", &text, "--json"];
    run(&[&arguments[..], &["--documents", "line"]].concat()).ok();
    let message = run(&[
        "finetune",
        "lm",
        "--model",
        &path(&parent.path().join("gpt")),
        "--train",
        &text,
        "--max-len",
        "4096",
        "--out",
        &out,
    ])
    .fails(2);
    says(&message, &["4096"]);
}
