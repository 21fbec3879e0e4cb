//! A training run that is killed, or asked to stop, and resumed: the result has the bits of one that was left alone.
#![cfg(unix)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::malmoi;

/// Steps of the run; enough that a kill between the second checkpoint and the end is easy to place.
const STEPS: usize = 60;

/// A configuration of a run that takes some seconds, under one of the two objectives.
fn configuration(dir: &Path, objective: &str) -> PathBuf {
    let lines = [
        "이 영화는 정말 재미있다",
        "배우의 연기가 좋았다",
        "the music was good",
        "다시 보고 싶다 ㅠㅠ",
    ];
    let text: String = (0..400)
        .map(|i| {
            format!(
                "{}\n{}",
                lines[i * 7 % 4],
                if i % 5 == 4 { "\n" } else { "" }
            )
        })
        .collect();
    fs::write(dir.join("train.txt"), text).expect("the text is written");
    let (architecture, tokenizer) = if objective.contains("mlm") {
        ("bert", "wordpiece")
    } else {
        ("gpt2", "bpe")
    };
    let file = dir.join("run.toml");
    let toml = format!(
        "seed = 5\n[model]\narchitecture = \"{architecture}\"\nn_layers = 2\nn_heads = 4\nd_model = 64\nmax_len = 64\n\
         [tokenizer]\ntrain = {{ kind = \"{tokenizer}\", vocab_size = 320 }}\n\
         [data]\ndir = {:?}\ntrain = \"train.txt\"\nvalid = \"train.txt\"\ndocuments = \"blank-line\"\n\
         [objective]\n{objective}\n\
         [optimizer]\nlr = 1e-3\n[schedule]\nkind = \"cosine\"\nwarmup_steps = 5\n\
         [train]\nsteps = {STEPS}\nbatch_size = 16\naccumulation = 2\ndropout = 0.1\n\
         [evaluate]\nevery = 20\nbatches = 2\n[checkpoint]\nevery = 10\n[log]\nevery = 1\n",
        dir.display().to_string()
    );
    fs::write(&file, toml).expect("the configuration is written");
    file
}

fn start(config: &Path, out: &Path, threads: usize, resume: bool) -> Child {
    let mut command = malmoi();
    command
        .arg("pretrain")
        .arg(config)
        .arg("--out")
        .arg(out)
        .args(["--threads", &threads.to_string()]);
    if resume {
        command.arg("--resume");
    }
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

fn complete(config: &Path, out: &Path, threads: usize, resume: bool) {
    let status = start(config, out, threads, resume)
        .wait()
        .expect("the program ends");
    assert!(status.success(), "{status}");
}

/// Steps that the metrics of a run hold.
fn logged(out: &Path) -> usize {
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
    metrics
        .lines()
        .filter(|line| line.contains("\"train\""))
        .count()
}

/// Waits until a run has logged so many steps.
fn wait_for(child: &mut Child, out: &Path, steps: usize) {
    let patience = Instant::now();
    while logged(out) < steps {
        assert!(
            child.try_wait().expect("the child can be asked").is_none(),
            "the run ended before step {steps}"
        );
        assert!(
            patience.elapsed() < Duration::from_secs(300),
            "the run does not get to step {steps}"
        );
        sleep(Duration::from_millis(2));
    }
}

fn result(out: &Path) -> Vec<Vec<u8>> {
    let last = out.join(format!("checkpoints/step-{STEPS}"));
    [
        "model.safetensors",
        "optimizer.safetensors",
        "config.json",
        "tokenizer.json",
    ]
    .iter()
    .map(|name| fs::read(last.join(name)).expect("the last checkpoint is complete"))
    .collect()
}

#[test]
fn a_killed_run_resumes_bit_for_bit_with_any_number_of_threads() {
    for objective in [
        "kind = \"clm\"\ncontext = 48",
        "kind = \"mlm\"\nmax_len = 48\nnext_sentence = true",
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let config = configuration(dir.path(), objective);
        let straight = dir.path().join("straight");
        complete(&config, &straight, 2, false);
        let expected = result(&straight);
        for (threads, then) in [(2, 2), (1, 3)] {
            let out = dir.path().join(format!("killed-{threads}-{then}"));
            let mut child = start(&config, &out, threads, false);
            // Between two checkpoints.
            wait_for(&mut child, &out, 24);
            child.kill().expect("the run is killed");
            let status = child.wait().expect("the program ends");
            assert_eq!(
                status.code(),
                None,
                "killed by a signal, not ended by itself"
            );
            assert!(
                !out.join(format!("checkpoints/step-{STEPS}")).exists(),
                "killed in mid-training"
            );
            complete(&config, &out, then, true);
            assert!(
                result(&out) == expected,
                "{objective}: resumed with {then} threads after {threads}"
            );
            assert_eq!(logged(&out), STEPS, "every step is logged once");
        }
    }
}

#[test]
fn a_signal_writes_a_checkpoint_and_ends_cleanly() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = configuration(dir.path(), "kind = \"clm\"\ncontext = 48");
    let straight = dir.path().join("straight");
    complete(&config, &straight, 2, false);
    for signal in ["-TERM", "-INT"] {
        let out = dir.path().join(format!("asked{signal}"));
        let mut child = start(&config, &out, 2, false);
        wait_for(&mut child, &out, 13);
        let sent = std::process::Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
        let status = child.wait().expect("the program ends");
        assert!(status.success(), "{status}");
        let done = logged(&out);
        assert!(done < STEPS);
        assert!(
            out.join(format!("checkpoints/step-{done}/complete.json"))
                .is_file(),
            "a checkpoint of the last step"
        );
        complete(&config, &out, 2, true);
        assert!(result(&out) == result(&straight), "{signal}");
    }
}
