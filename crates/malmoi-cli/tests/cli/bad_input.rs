//! Bad input ends with one clear message and exit status 1 or 2; nothing is lost, nothing panics.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{malmoi, model, pretraining, ran, run, says};
use tempfile::tempdir;

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_truncated_weight_file_is_named() {
    let parent = tempdir().unwrap();
    let dir = model(parent.path(), "gpt");
    let weights = dir.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    for keep in [0, 4, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&weights, &bytes[..keep]).unwrap();
        let message = run(&["generate", "--model", &path(&dir), "--prompt", "영화"]).fails(2);
        says(&message, &["model.safetensors"]);
    }
}

#[test]
fn an_unknown_config_key_is_named_and_can_be_accepted() {
    let parent = tempdir().unwrap();
    let dir = model(parent.path(), "gpt");
    let config = dir.join("config.json");
    let text = fs::read_to_string(&config)
        .unwrap()
        .replacen('{', "{\"secret_sauce\": 3,", 1);
    fs::write(&config, text).unwrap();
    let arguments = [
        "generate",
        "--model",
        &path(&dir),
        "--prompt",
        "영화",
        "--max-new-tokens",
        "2",
    ];
    says(
        &run(&arguments).fails(2),
        &["secret_sauce", "--accept-unknown-config"],
    );
    run(&[&arguments[..], &["--accept-unknown-config"]].concat()).ok();
    let toml = pretraining(parent.path());
    let message = run(&[
        "pretrain",
        &path(&toml),
        "--out",
        &path(&parent.path().join("run")),
        "--set",
        "train.stepz=3",
    ])
    .fails(2);
    says(&message, &["stepz"]);
    assert!(!parent.path().join("run").exists());
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let parent = tempdir().unwrap();
    let gpt = model(parent.path(), "gpt");
    let bert = model(parent.path(), "bert");
    for (from, to) in [(&gpt, &bert), (&bert, &gpt)] {
        let target = parent.path().join("mixed");
        fs::create_dir(&target).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(to.join(file), target.join(file)).unwrap();
        }
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            fs::copy(from.join(file), target.join(file)).unwrap();
        }
        let message = run(&["embed", "--model", &path(&target), "--prompt", "영화"]).fails(2);
        says(&message, &["tokenizer", "vocabulary", "290", "39"]);
        fs::remove_dir_all(target).unwrap();
    }
}

#[test]
fn an_empty_corpus_is_refused_before_anything_is_written() {
    let parent = tempdir().unwrap();
    let toml = pretraining(parent.path());
    fs::write(parent.path().join("train.txt"), "\n\n  \n").unwrap();
    let out = parent.path().join("run");
    says(
        &run(&["pretrain", &path(&toml), "--out", &path(&out)]).fails(2),
        &["empty", "train.txt"],
    );
    assert!(!out.exists());
    let text = path(&parent.path().join("train.txt"));
    let message = run(&[
        "tokenizer",
        "train",
        "--kind",
        "bpe",
        "--out",
        &path(&out),
        &text,
    ])
    .fails(2);
    says(&message, &["empty"]);
    assert!(!out.exists());
}

#[test]
fn a_sequence_longer_than_the_positions_is_refused() {
    let parent = tempdir().unwrap();
    let gpt = model(parent.path(), "gpt");
    let long = "정말 재미있다 ".repeat(30);
    let message = run(&["generate", "--model", &path(&gpt), "--prompt", &long]).fails(2);
    says(&message, &["24 positions", "shorten"]);
    let bert = model(parent.path(), "bert");
    let message = run(&[
        "fill-mask",
        "--model",
        &path(&bert),
        "--prompt",
        &format!("{long}[MASK]"),
    ])
    .fails(2);
    says(&message, &["16 positions", "shorten"]);
    let toml = pretraining(parent.path());
    let message = run(&[
        "pretrain",
        &path(&toml),
        "--out",
        &path(&parent.path().join("run")),
        "--set",
        "objective.context=17",
    ])
    .fails(2);
    says(&message, &["objective.context", "17", "16"]);
}

#[test]
fn text_that_is_not_utf8_is_located() {
    let parent = tempdir().unwrap();
    let toml = pretraining(parent.path());
    let text = parent.path().join("train.txt");
    // "영화" in CP949 on the second line.
    fs::write(&text, b"first\n\xbf\xb5\xc8\xad\nthird\n").unwrap();
    let out = parent.path().join("run");
    for arguments in [
        vec![
            "pretrain".to_owned(),
            path(&toml),
            "--out".into(),
            path(&out),
        ],
        [
            "tokenizer",
            "train",
            "--kind",
            "bpe",
            "--out",
            &path(&out),
            &path(&text),
        ]
        .map(str::to_owned)
        .to_vec(),
    ] {
        says(
            &run(&arguments).fails(2),
            &["train.txt", "line 2", "utf-8"].map(|s| if s == "utf-8" { "8" } else { s }),
        );
        assert!(!out.exists());
    }
    let gpt = model(parent.path(), "gpt");
    says(
        &run(&["generate", "--model", &path(&gpt), "--input", &path(&text)]).fails(2),
        &["line 2", "UTF-8"],
    );
}

/// The program under a limit on the size of a file (8 KiB): the full disk that a test can have without being root. Writing
/// fails in the middle of the weights.
#[cfg(target_os = "linux")]
fn with_full_disk(arguments: &[&str]) -> crate::support::Ran {
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_malmoi")])
        .args(arguments);
    ran(command.stdin(Stdio::null()).output().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_while_saving_keeps_the_last_checkpoint() {
    let parent = tempdir().unwrap();
    let toml = path(&pretraining(parent.path()));
    let out = parent.path().join("run");
    let run_path = path(&out);
    let arguments = ["pretrain", &toml, "--out", &run_path, "--quiet"];
    run(&arguments).ok();
    let steps = || {
        let entries = fs::read_dir(out.join("checkpoints")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    };
    // Back to the checkpoint before the last, so that resuming has one to write.
    let [.., before, last] = &steps()[..] else {
        panic!("two checkpoints are kept")
    };
    let expected = fs::read(last.join("model.safetensors")).unwrap();
    let weights = fs::read(before.join("model.safetensors")).unwrap();
    fs::remove_dir_all(last).unwrap();
    let resume = [&arguments[..], &["--resume"]].concat();
    says(
        &with_full_disk(&resume).fails(1),
        &["model.safetensors", "large"],
    );
    assert_eq!(
        steps(),
        std::slice::from_ref(before),
        "nothing half-written stays"
    );
    assert_eq!(fs::read(before.join("model.safetensors")).unwrap(), weights);
    run(&resume).ok();
    assert_eq!(fs::read(last.join("model.safetensors")).unwrap(), expected);
}

/// `/dev/full` answers every write with "no space left on device".
#[cfg(target_os = "linux")]
#[test]
fn results_on_a_full_device_fail_with_a_message() {
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let ran = ran(malmoi()
        .args(["info", "gpt2"])
        .stdout(full)
        .output()
        .unwrap());
    assert_eq!(ran.code, Some(1));
    says(&ran.stderr, &["cannot write the result"]);
}

#[test]
fn an_existing_run_is_not_overwritten() {
    let parent = tempdir().unwrap();
    let toml = path(&pretraining(parent.path()));
    let out = path(&parent.path().join("run"));
    run(&["pretrain", &toml, "--out", &out]).ok();
    let message = run(&["pretrain", &toml, "--out", &out, "--quiet"]).fails(2);
    says(&message, &["run"]);
}

#[test]
fn missing_models_and_files_say_what_was_expected() {
    let parent = tempdir().unwrap();
    says(&run(&["info", "./nowhere"]).fails(2), &["nowhere"]);
    says(
        &run(&["generate", "--model", "gpt2-xl", "--prompt", "x"]).fails(2),
        &["preset", "weights"],
    );
    says(
        &run(&["generate", "--model", &path(parent.path()), "--prompt", "x"]).fails(2),
        &["tokenizer"],
    );
    says(
        &run(&["pretrain", "nowhere.toml"]).fails(2),
        &["nowhere.toml"],
    );
    says(
        &run(&["verify", &path(parent.path())]).fails(2),
        &["no fixture"],
    );
    says(
        &run(&["quickstart", "--data", &path(parent.path())]).fails(2),
        &["ko_corpus_reviews"],
    );
    let bert = model(parent.path(), "bert");
    says(
        &run(&["generate", "--model", &path(&bert), "--prompt", "x"]).fails(2),
        &["decoder"],
    );
    says(
        &run(&["fill-mask", "--model", &path(&bert), "--prompt", "영화"]).fails(2),
        &["[MASK]"],
    );
}
