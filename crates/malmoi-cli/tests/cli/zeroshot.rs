//! Models that were not trained for what they are asked, and vectors of sentences.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{model, run, says};

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn json_of(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

fn rows(parent: &Path) -> String {
    let rows = [
        json!({"context": "이 영화는 정말", "choice0": "재미있다", "choice1": "지루하다", "choice2": "좋았다", "choice3": "나빴다", "label": 0}),
        json!({"context": "배우의 연기가", "choice0": "좋았다", "choice1": "보고", "choice2": "다시", "choice3": "음악이", "label": 0}),
        json!({"context": "음악이", "choice0": "싶다", "choice1": "좋았다 다시 보고", "choice2": "영화는", "choice3": "이", "label": 1}),
    ];
    let text: Vec<String> = rows.iter().map(Value::to_string).collect();
    let file = parent.join("rows.jsonl");
    fs::write(&file, text.join("\n")).unwrap();
    path(&file)
}

#[test]
fn every_kind_of_language_model_answers_and_the_batch_changes_nothing() {
    let parent = tempdir().unwrap();
    let data = rows(parent.path());
    for name in ["gpt", "t5", "bert"] {
        let model = path(&model(parent.path(), name));
        let samples = path(&parent.path().join(format!("{name}.jsonl")));
        let ask = |budget: &str| {
            let said = run(&[
                "eval",
                "zeroshot",
                "--model",
                &model,
                "--task",
                "hellaswag",
                "--data",
                &data,
                "--json",
                "--samples",
                &samples,
                "--batch-tokens",
                budget,
            ]);
            (
                json_of(&said.ok()).remove(0),
                fs::read_to_string(&samples).unwrap(),
            )
        };
        let (one, scores) = ask("1");
        let (other, other_scores) = ask("4096");
        assert_eq!(one, other, "{name}");
        assert_eq!(
            one["task"], "ko_hellaswag",
            "the sister that has these columns"
        );
        assert_eq!(one["rows"], 3);
        for key in [
            "accuracy",
            "accuracy_stderr",
            "acc_norm",
            "acc_per_token",
            "f1_macro",
        ] {
            assert!(one[key].is_number(), "{name} {key}: {one}");
        }
        for (a, b) in json_of(&scores).iter().zip(json_of(&other_scores)) {
            for (a, b) in a["answers"]
                .as_array()
                .unwrap()
                .iter()
                .zip(b["answers"].as_array().unwrap())
            {
                let value = |v: &Value| v["log_likelihood"].as_f64().unwrap();
                assert!((value(a) - value(b)).abs() < 1e-4, "{name}: {a} {b}");
            }
        }
    }
}

#[test]
fn tasks_are_listed_shown_and_made_from_templates() {
    let parent = tempdir().unwrap();
    let data = rows(parent.path());
    says(
        &run(&["eval", "zeroshot", "--list"]).ok(),
        &["lambada", "ko_copa", "blimp"],
    );
    let source = run(&["eval", "zeroshot", "--source", "ko_hellaswag"]).ok();
    let own = parent.path().join("own.toml");
    fs::write(&own, source.replace("{context}", "문장: {context}")).unwrap();
    let own = path(&own);
    let shown = run(&[
        "eval",
        "zeroshot",
        "--template",
        &own,
        "--data",
        &data,
        "--show",
        "1",
        "--shots",
        "1",
    ])
    .ok();
    says(
        &shown,
        &["── own", "문장: 이 영화는 정말", "* 0 ▏ 재미있다▕"],
    );
    let gpt = path(&model(parent.path(), "gpt"));
    let table = run(&[
        "eval",
        "zeroshot",
        "--model",
        &gpt,
        "--template",
        &own,
        "--data",
        &data,
    ]);
    says(&table.ok(), &["own", "accuracy", "acc norm", "± "]);
}

#[test]
fn questions_whose_answers_are_longer_than_the_model_are_left_out_and_counted() {
    let parent = tempdir().unwrap();
    let data = rows(parent.path());
    let long = "이 영화는 정말 좋았다 ".repeat(20);
    let row = json!({"context": "음악이", "choice0": long, "choice1": "좋았다", "choice2": "이", "choice3": "보고", "label": 1});
    let with_long = path(&parent.path().join("long.jsonl"));
    let text = fs::read_to_string(&data).unwrap();
    fs::write(&with_long, format!("{row}\n{text}\n{row}\n")).unwrap();
    for name in ["gpt", "bert"] {
        let model = path(&model(parent.path(), name));
        let ask = |data: &str| {
            let asked = ["--task", "hellaswag", "--data", data, "--json"];
            let verb = ["eval", "zeroshot", "--model", &model];
            run(&[&verb[..], &asked].concat())
        };
        let (short, long) = (ask(&data), ask(&with_long));
        says(
            &long.stderr,
            &["2 of 5 questions were left out", "positions"],
        );
        let (short, mut long) = (json_of(&short.ok()), json_of(&long.ok()));
        assert_eq!(
            (&short[0]["left_out"], &long[0]["left_out"]),
            (&json!(0), &json!(2))
        );
        long[0]["left_out"] = json!(0);
        assert_eq!(short, long, "{name}");
    }
    let only_long = path(&parent.path().join("only.jsonl"));
    fs::write(&only_long, row.to_string()).unwrap();
    let model = path(&parent.path().join("gpt"));
    let asked = ["--task", "hellaswag", "--data", &only_long];
    let message = run(&[&["eval", "zeroshot", "--model", &model][..], &asked].concat()).fails(2);
    says(&message, &["hellaswag", "24 positions"]);
}

#[test]
fn what_cannot_be_asked_is_said() {
    let parent = tempdir().unwrap();
    let data = rows(parent.path());
    let refused =
        |arguments: &[&str]| run(&[&["eval", "zeroshot"][..], arguments].concat()).fails(2);
    says(
        &refused(&["--task", "mmlu", "--data", &data]),
        &["mmlu", "lambada", "--template"],
    );
    says(
        &refused(&["--task", "ko_copa", "--data", &data, "--show", "1"]),
        &["line 1", "no column `premise`", "ko_hellaswag"],
    );
    says(
        &refused(&["--task", "piqa"]),
        &["--data FILE", "en_eval_piqa"],
    );
    says(
        &refused(&["--task", "ko_hellaswag", "--data", &data]),
        &["--model"],
    );
    says(
        &refused(&[
            "--task",
            "ko_hellaswag",
            "--data",
            &data,
            "--show",
            "1",
            "--shots",
            "3",
        ]),
        &["3 examples", "2 other rows"],
    );
    let template = parent.path().join("bad.toml");
    fs::write(
        &template,
        "prompt = \"{a\"\nchoices = [\"x\", \"y\"]\nanswer = 0",
    )
    .unwrap();
    says(
        &refused(&["--template", &path(&template), "--data", &data]),
        &["bad.toml", "prompt", "single `{`"],
    );
}

#[test]
fn labels_without_training_come_by_likelihood() {
    let parent = tempdir().unwrap();
    for name in ["gpt", "bert"] {
        let model = path(&model(parent.path(), name));
        let said = run(&[
            "predict",
            "zero-shot-classify",
            "--model",
            &model,
            "--labels",
            "영화,음악",
            "--template",
            " 다시 {label}",
            "--prompt",
            "배우의 연기가 좋았다",
            "--prompt",
            "음악이 좋았다",
        ]);
        let rows = json_of(&said.ok());
        assert_eq!(rows.len(), 2);
        for row in rows {
            let scores: Vec<f64> = serde_json::from_value(row["scores"].clone()).unwrap();
            assert!(
                (scores.iter().sum::<f64>() - 1.0).abs() < 1e-9 && scores[0] >= scores[1],
                "{row}"
            );
            assert_eq!(row["label"], row["labels"][0]);
        }
    }
    let gpt = path(&model(parent.path(), "gpt-2"));
    let refused = run(&[
        "predict",
        "zero-shot-classify",
        "--model",
        &gpt,
        "--labels",
        "a,b",
        "--template",
        "{label}?",
        "--prompt",
        "x",
    ]);
    says(&refused.fails(2), &["{label} at its end"]);
}

#[test]
fn vectors_are_trained_measured_and_read_back() {
    let parent = tempdir().unwrap();
    let bert = path(&model(parent.path(), "bert"));
    let table = parent.path().join("pairs.tsv");
    let lines = [
        "이 영화는\t재미있다\t5",
        "음악이 좋았다\t연기가 좋았다\t4",
        "이 영화는\t다시 보고\t0",
        "배우의\t싶다\t1",
    ];
    fs::write(&table, format!("a\tb\ts\n{}\n", lines.join("\n"))).unwrap();
    let (table, out) = (path(&table), path(&parent.path().join("run")));
    let said = run(&[
        "finetune",
        "embed",
        "--model",
        &bert,
        "--loss",
        "similarity",
        "--train",
        &table,
        "--valid",
        &table,
        "--text-column",
        "a",
        "--pair-column",
        "b",
        "--label-column",
        "s",
        "--out",
        &out,
        "--epochs",
        "40",
        "--batch-size",
        "4",
        "--lr",
        "1e-2",
        "--max-len",
        "12",
    ])
    .ok();
    says(&said, &["validation:", "spearman", "model: "]);
    let measured = run(&[
        "eval",
        "embed",
        "--model",
        &out,
        "--data",
        &table,
        "--text-column",
        "a",
        "--pair-column",
        "b",
        "--label-column",
        "s",
        "--json",
    ])
    .ok();
    let row = &json_of(&measured)[0];
    assert!(row["spearman"].as_f64().unwrap() > 0.7, "{row}");
    let found = run(&[
        "eval",
        "embed",
        "--model",
        &out,
        "--data",
        &table,
        "--text-column",
        "a",
        "--pair-column",
        "b",
        "--json",
    ])
    .ok();
    assert!(json_of(&found)[0]["recall_at_1"].is_number());
    // Only some of the rows belong together.
    let columns = [
        "--text-column",
        "a",
        "--pair-column",
        "b",
        "--label-column",
        "s",
    ];
    let arguments = ["eval", "embed", "--model", &out, "--data", &table, "--json"];
    let found = run(&[&arguments[..], &columns, &["--positive", "4,5"]].concat()).ok();
    let row = &json_of(&found)[0];
    assert!(row["mrr"].is_number() && row["rows"] == 2, "{row}");
    // The folder says how long texts may be.
    let long = "영화는 ".repeat(14);
    let embedded = run(&["embed", "--model", &out, "--json", "--prompt", &long]).ok();
    let row = &json_of(&embedded)[0];
    assert_eq!(
        (&row["tokens"], &row["truncated"]),
        (&json!(12), &json!(true))
    );
    assert_eq!(row["embedding"].as_array().unwrap().len(), 16);
}

#[test]
fn documents_are_measured_apart_and_encoders_by_pseudo_perplexity() {
    let parent = tempdir().unwrap();
    let file = parent.path().join("text.txt");
    let lines = ["이 영화는 정말 재미있다", "배우의 연기가 좋았다"];
    fs::write(&file, format!("{}\n", lines.join("\n"))).unwrap();
    let table = parent.path().join("text.tsv");
    fs::write(
        &table,
        format!("id\tdocument\n1\t{}\n2\t{}\n", lines[0], lines[1]),
    )
    .unwrap();
    let (file, table) = (path(&file), path(&table));
    let measure = |model: &str, extra: &[&str]| {
        let arguments = [&["eval", "lm", "--model", model, "--json"][..], extra].concat();
        json_of(&run(&arguments).ok()).remove(0)
    };
    let gpt = path(&model(parent.path(), "gpt"));
    let rows = measure(&gpt, &["--data", &file, "--documents", "lines"]);
    assert_eq!(rows["documents"], 2);
    assert_eq!(
        rows["bytes"].as_u64(),
        Some(lines.concat().len() as u64),
        "every byte is scored"
    );
    assert_eq!(
        rows,
        measure(&gpt, &["--data", &table, "--text-column", "document"])
    );
    let whole = measure(&gpt, &["--data", &file]);
    assert!(
        whole["bytes"].as_u64() < rows["bytes"].as_u64().map(|n| n + 2),
        "one text, its first token given"
    );
    let bert = path(&model(parent.path(), "bert"));
    let found = measure(&bert, &["--data", &file, "--pseudo"]);
    let (loss, perplexity) = (&found["pseudo_loss"], &found["pseudo_perplexity"]);
    assert!((loss.as_f64().unwrap().exp() - perplexity.as_f64().unwrap()).abs() < 1e-6);
    says(
        &run(&["eval", "lm", "--model", &bert, "--data", &file, "--pseudo"]).ok(),
        &["pseudo-perplexity, a token"],
    );
}
