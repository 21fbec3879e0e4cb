//! The fine-tuning tasks on the command line: several runs, adapters, reports, and predictions that stream.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{malmoi, model, run, says};

fn path(path: PathBuf) -> String {
    path.display().to_string()
}

fn written(path: PathBuf, text: &str) -> String {
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Sentences of the small model's words, a word and its tag a line.
fn tagged(n: usize) -> String {
    let rows = [("음악이", "연기가"), ("연기가", "음악이")];
    (0..n)
        .map(|i| rows[i % 2])
        .map(|(a, b)| {
            format!(
                "{a}\tB-{}\n좋았다\tO\n{b}\tO\n\n",
                if a == "음악이" { "SND" } else { "ACT" }
            )
        })
        .collect()
}

fn finetune(task: &str, model: &str, train: &str, out: &str, more: &[&str]) -> String {
    let arguments = [
        "finetune", task, "--model", model, "--train", train, "--valid", train, "--out", out,
    ];
    run(&[
        &arguments[..],
        &["--lr", "1e-2", "--max-len", "16", "--batch-size", "8"],
        more,
    ]
    .concat())
    .ok()
}

#[test]
fn names_are_found_with_their_places_and_errors_are_listed() {
    let parent = tempdir().unwrap();
    let bert = path(model(parent.path(), "bert"));
    let rows = written(parent.path().join("train.conll"), &tagged(32));
    let out = path(parent.path().join("run"));
    let said = finetune("tag", &bert, &rows, &out, &["--epochs", "30"]);
    says(&said, &["f1 strict", "best: f1 1.0000"]);
    assert!(
        fs::read_to_string(Path::new(&out).join("curves.svg"))
            .unwrap()
            .contains(">f1<")
    );
    let (svg, errors) = (
        path(parent.path().join("c.svg")),
        path(parent.path().join("e.jsonl")),
    );
    let wrong = written(
        parent.path().join("wrong.conll"),
        "음악이\tB-ACT\n좋았다\tO\n\n음악이\tB-SND\n좋았다\tO\n",
    );
    let found = run(&[
        "eval",
        "tag",
        "--model",
        &out,
        "--data",
        &wrong,
        "--json",
        "--confusion",
        &svg,
        "--errors",
        &errors,
    ])
    .ok();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(
        (found["f1"].as_f64(), found["rows"].as_u64()),
        (Some(0.5), Some(2))
    );
    assert!(fs::read_to_string(&svg).unwrap().contains("B-SND"));
    let errors = lines(&fs::read_to_string(&errors).unwrap());
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0]["place"]
            .as_str()
            .unwrap()
            .ends_with("wrong.conll: line 1")
    );
    assert_eq!(errors[0]["truth"], json!(["B-ACT", "O"]));
    // Texts and files with a token a line are both understood.
    let asked = run(&[
        "predict",
        "tag",
        "--model",
        &out,
        "--prompt",
        "연기가 좋았다 음악이",
    ])
    .ok();
    let asked = &lines(&asked)[0];
    assert_eq!(
        asked["entities"],
        json!([{"type": "ACT", "text": "연기가", "start": 0, "end": 3, "byte_start": 0, "byte_end": 9}])
    );
    assert_eq!(
        (&asked["truncated"], &asked["text"]),
        (&json!(false), &json!("연기가 좋았다 음악이"))
    );
    assert!(asked["tokens"].as_u64().unwrap() >= 5);
    let asked = lines(&run(&["predict", "tag", "--model", &out, "--input", &wrong]).ok());
    assert_eq!(
        (asked.len(), &asked[1]["tags"]),
        (2, &json!(["B-SND", "O"]))
    );
    // A model for one task is not one for another.
    let message = run(&["predict", "qa", "--model", &out, "--input", &wrong]).fails(2);
    says(
        &message,
        &["qa", "finds answers", "BertForTokenClassification"],
    );
}

#[test]
fn several_runs_end_in_a_table_and_one_model() {
    let parent = tempdir().unwrap();
    let bert = path(model(parent.path(), "bert"));
    let rows: String = (0..24)
        .map(|i| {
            format!(
                "{}\t{}\n",
                ["음악이 좋았다", "음악이 나빴다"][i % 2],
                ["긍정", "부정"][i % 2]
            )
        })
        .collect();
    let rows = written(
        parent.path().join("train.tsv"),
        &format!("text\tlabel\n{rows}"),
    );
    let out = path(parent.path().join("seeds"));
    let more = [
        "--epochs",
        "2",
        "--seeds",
        "1,2",
        "--lora-rank",
        "2",
        "--class-weights",
        "balanced",
    ];
    let said = finetune("classify", &bert, &rows, &out, &more);
    says(
        &said,
        &["mean accuracy", "deviation", "best: accuracy", "model: "],
    );
    let adapter = Path::new(&out).join("best/adapter/adapter_config.json");
    assert_eq!(malmoi_checkpoint::read_json(&adapter).unwrap()["r"], 2);
    let found = run(&["eval", "classify", "--model", &out, "--data", &rows]).ok();
    says(&found, &["true \\ said", "긍정", "f1 weighted"]);
    let message = run(&[
        "finetune", "classify", "--model", &bert, "--train", &rows, "--valid", &rows, "--out",
        &out, "--seeds", "1,2",
    ])
    .fails(2);
    says(&message, &["--resume"]);
    // A recipe names the task; another one is refused.
    let recipe = written(
        parent.path().join("r.toml"),
        "[model]\npath = \"none\"\n[task]\nkind = \"pair\"\n[data]\ntrain = \"x.tsv\"\n",
    );
    let message = run(&["finetune", "classify", "--config", &recipe, "--out", &out]).fails(2);
    says(&message, &["r.toml", "`pair`", "malmoi finetune pair"]);
}

#[test]
fn flags_of_several_labels_need_several_labels() {
    let parent = tempdir().unwrap();
    let bert = path(model(parent.path(), "bert"));
    let rows = written(
        parent.path().join("rows.tsv"),
        "text\tlabel\n음악이 좋았다\t기쁨;놀람\n음악이 나빴다\t슬픔\n",
    );
    let out = path(parent.path().join("run"));
    let asked = |task: &[&str]| {
        let data = ["--train", &rows, "--out", &out, "--epochs", "1"];
        run(&[&["finetune", "classify", "--model", &bert][..], &data, task].concat())
    };
    for flag in [["--threshold", "0.3"], ["--label-separator", ";"]] {
        says(&asked(&flag).fails(2), &[flag[0], "--multi-label"]);
    }
    // The recipe may say it, and so may the model's folder later.
    let recipe = written(
        parent.path().join("recipe.toml"),
        "[task]\nkind = \"multilabel\"\n",
    );
    asked(&["--config", &recipe, "--label-separator", ";"]).ok();
    let predict = ["predict", "classify", "--model", &out, "--input", &rows];
    let said = |threshold: &str| run(&[&predict[..], &["--threshold", threshold]].concat()).ok();
    let (all, none) = (lines(&said("0")), lines(&said("1")));
    assert_eq!(all[0]["labels"].as_array().unwrap().len(), 3);
    assert_eq!(none[0]["labels"].as_array().unwrap().len(), 0);
}

#[test]
fn choices_are_confused_by_their_numbers_and_values_have_no_confusion() {
    let parent = tempdir().unwrap();
    let bert = path(model(parent.path(), "bert"));
    let rows = written(
        parent.path().join("choice.tsv"),
        "text\ta\tb\tlabel\n음악이\t좋았다\t나빴다\t0\n연기가\t좋았다\t나빴다\t1\n",
    );
    let out = path(parent.path().join("choice"));
    finetune(
        "choice",
        &bert,
        &rows,
        &out,
        &["--epochs", "1", "--choice-columns", "a,b"],
    );
    let eval = |task: &str, model: &str, data: &str, more: &[&str]| {
        let arguments = ["eval", task, "--model", model, "--data", data];
        run(&[&arguments[..], more].concat())
    };
    let confusion = path(parent.path().join("c.json"));
    let found = eval("choice", &out, &rows, &["--confusion", &confusion]).ok();
    assert!(!found.contains("LABEL_"), "{found}");
    let table: Value = serde_json::from_str(&fs::read_to_string(&confusion).unwrap()).unwrap();
    assert_eq!(table["labels"], json!(["0", "1"]));
    let counts = table["counts"].as_array().unwrap().iter();
    let all: u64 = counts
        .flat_map(|row| row.as_array().unwrap())
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(all, 2);

    let rows = written(
        parent.path().join("values.tsv"),
        "sentence1\tsentence2\tlabel\n음악이\t좋았다\t0\n연기가\t나빴다\t900\n",
    );
    let out = path(parent.path().join("values"));
    let pairs = ["--text-column", "sentence1", "--pair-column", "sentence2"];
    let more = [&["--epochs", "1"], &pairs[..]].concat();
    finetune("regress", &bert, &rows, &out, &more);
    let message = eval("regress", &out, &rows, &["--confusion", &confusion]).fails(2);
    says(&message, &["regress", "no confusion matrix"]);
    let errors = path(parent.path().join("e.jsonl"));
    eval("regress", &out, &rows, &["--errors", &errors]).ok();
    let listed = lines(&fs::read_to_string(&errors).unwrap());
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0]["truth"], 900.0);
    // Tasks with several columns read JSON lines from a pipe.
    let mut child = malmoi()
        .args(["predict", "regress", "--model", &out])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let row = json!({"sentence1": "음악이", "sentence2": "좋았다"});
    writeln!(child.stdin.take().unwrap(), "{row}").unwrap();
    let said = child.wait_with_output().unwrap();
    assert!(said.status.success());
    let said = lines(&String::from_utf8(said.stdout).unwrap());
    assert!(said[0]["value"].is_number() && said[0]["tokens"].is_number());
    let message = run(&["predict", "regress", "--model", &out, "--prompt", "음악"]).fails(2);
    says(&message, &["sentence1 and sentence2", "JSON lines"]);
}

#[test]
fn an_empty_line_gets_an_answer_and_a_remark() {
    let parent = tempdir().unwrap();
    let (out, _) = classifier(parent.path());
    let texts = written(parent.path().join("texts.txt"), "음악이 좋았다\n\n음악이\n");
    let ran = run(&["predict", "classify", "--model", &out, "--input", &texts]);
    says(
        &ran.stderr,
        &["1 of 3 rows", "empty text", "texts.txt: line 2"],
    );
    let said = lines(&ran.ok());
    assert_eq!(said.len(), 3);
    assert_eq!(
        (&said[1]["text"], &said[2]["text"]),
        (&json!(""), &json!("음악이"))
    );
}

/// A classifier, and more rows than are predicted together.
fn classifier(parent: &Path) -> (String, Vec<String>) {
    let bert = path(model(parent, "bert"));
    let rows = written(
        parent.join("train.tsv"),
        "text\tlabel\n음악이 좋았다\t긍정\n음악이 나빴다\t부정\n",
    );
    let out = path(parent.join("run"));
    finetune("classify", &bert, &rows, &out, &["--epochs", "1"]);
    let texts = (0..1500)
        .map(|i| format!("{i}{}", " 음악이".repeat(1 + i % 20)))
        .collect();
    (out, texts)
}

/// Texts that are sent before the first answer is read: more than are predicted together.
const FIRST: usize = 600;

/// A program that predicts what comes through stdin, and has got some texts.
fn asked(model: &str, texts: &[String]) -> (Child, ChildStdin) {
    let mut child = malmoi()
        .args(["predict", "classify", "--model", model])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for text in texts {
        writeln!(stdin, "{text}").unwrap();
    }
    stdin.flush().unwrap();
    (child, stdin)
}

#[test]
fn predictions_keep_the_order_of_a_long_stream() {
    let parent = tempdir().unwrap();
    let (out, texts) = classifier(parent.path());
    let (mut child, mut stdin) = asked(&out, &texts[..FIRST]);
    let reader = BufReader::new(child.stdout.take().unwrap());
    let mut rows = reader.lines();
    // The first window comes out before the input has ended.
    let first: Value = serde_json::from_str(&rows.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["text"], texts[0]);
    let rest = texts[FIRST..].to_vec();
    let writer = std::thread::spawn(move || {
        for text in rest {
            writeln!(stdin, "{text}").unwrap();
        }
    });
    let (mut number, mut truncated) = (0, 0);
    for row in rows {
        number += 1;
        let row: Value = serde_json::from_str(&row.unwrap()).unwrap();
        assert_eq!(row["text"], texts[number]);
        // Sixteen positions: the words of long rows do not fit.
        let cut = row["truncated"].as_bool().unwrap();
        assert!(!cut || row["tokens"] == 16, "{row}");
        truncated += usize::from(cut);
    }
    assert!(truncated > 100 && truncated < texts.len(), "{truncated}");
    writer.join().unwrap();
    assert_eq!(number, texts.len() - 1);
    assert!(child.wait().unwrap().success());
}

#[cfg(unix)]
#[test]
fn an_interrupted_stream_ends_with_a_whole_line() {
    let parent = tempdir().unwrap();
    let (out, texts) = classifier(parent.path());
    let (mut child, mut stdin) = asked(&out, &texts[..FIRST]);
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    // More input lets a reader that waits for it go on.
    let more = texts[FIRST..].to_vec();
    let writer = std::thread::spawn(move || {
        // The program may have stopped reading.
        more.iter().all(|text| writeln!(stdin, "{text}").is_ok())
    });
    let rest: Vec<String> = reader.lines().map(Result::unwrap).collect();
    writer.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(
        rest.len() >= 511 && rest.len() < texts.len() - 1,
        "{}",
        rest.len()
    );
    for (row, text) in rest.iter().zip(&texts[1..]) {
        let row: Value = serde_json::from_str(row).unwrap();
        assert_eq!(row["text"], *text);
    }
}
