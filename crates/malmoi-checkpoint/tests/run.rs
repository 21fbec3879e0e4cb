//! Run directories: what is complete stays, what isn't doesn't count.

use std::fs;
use std::path::Path;
use std::process::Command;

use malmoi_checkpoint::run::{
    Checkpoint, CutBack, MARKER, RunDirectory, RunError, latest_checkpoint, list_checkpoints,
};
use malmoi_checkpoint::{Error, FORMAT_PT, NamedTensor, Result, Tensors, write_safetensors};
use serde_json::json;

/// Writes a checkpoint of `count` weights that all have the value of its step.
fn save(run: &mut RunDirectory, step: u64, count: usize) -> Result<Checkpoint> {
    let pending = run.begin_checkpoint(step)?;
    let weights = vec![step as f32; count];
    write_safetensors(
        pending.path().join("model.safetensors"),
        &[NamedTensor::new("w", &[count], &weights)],
        FORMAT_PT,
    )?;
    fs::create_dir(pending.path().join("tokenizer")).unwrap();
    fs::write(pending.path().join("tokenizer/vocab.txt"), "a\n").unwrap();
    run.commit(pending)
}

fn value(checkpoint: &Path) -> f32 {
    Tensors::open(checkpoint.join("model.safetensors"))
        .unwrap()
        .to_f32("w")
        .unwrap()
        .1[0]
}

fn steps(run: &Path) -> Vec<u64> {
    list_checkpoints(run)
        .unwrap()
        .iter()
        .map(|c| c.step)
        .collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn checkpoints_are_found_again_by_their_steps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runs/a");
    let mut run = RunDirectory::create(&path).unwrap();
    run.write_file("config.toml", b"seed = 1\n").unwrap();
    assert_eq!(run.latest().unwrap(), None);
    for step in [9, 100, 20] {
        save(&mut run, step, 4).unwrap();
    }
    drop(run);
    let run = RunDirectory::open(&path).unwrap();
    assert_eq!(steps(&path), [9, 20, 100], "by number, not by name");
    let latest = run.latest().unwrap().unwrap();
    assert_eq!((latest.step, value(&latest.path)), (100, 100.0));
    assert_eq!(value(&path.join("last")), 100.0);
    assert_eq!(
        fs::read_link(path.join("last")).unwrap(),
        Path::new("checkpoints/step-100")
    );
    assert_eq!(
        fs::read_to_string(path.join("config.toml")).unwrap(),
        "seed = 1\n"
    );
    let moved = dir.path().join("moved");
    drop(run);
    fs::rename(&path, &moved).unwrap();
    assert_eq!(value(&moved.join("last")), 100.0, "links are relative");
}

#[test]
fn rotation_keeps_the_latest_and_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDirectory::create(dir.path()).unwrap();
    for step in 1..=6 {
        let saved = save(&mut run, step, 4).unwrap();
        if step == 2 {
            run.set_best(&saved).unwrap();
        }
    }
    let deleted: Vec<u64> = run.rotate(3).unwrap().iter().map(|c| c.step).collect();
    assert_eq!((deleted, steps(dir.path())), (vec![1, 3], vec![2, 4, 5, 6]));
    assert_eq!(
        (
            run.best().unwrap().unwrap().step,
            value(&dir.path().join("best"))
        ),
        (2, 2.0)
    );
    let latest = run.latest().unwrap().unwrap();
    run.set_best(&latest).unwrap();
    run.rotate(0).unwrap();
    assert_eq!(steps(dir.path()), [6], "at least one stays");
}

#[test]
fn what_was_not_completed_does_not_count_and_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDirectory::create(dir.path()).unwrap();
    save(&mut run, 1, 4).unwrap();
    save(&mut run, 2, 4).unwrap();
    // A killed process leaves a temporary directory, or one that was renamed but not marked.
    std::mem::forget(run.begin_checkpoint(3).unwrap());
    drop(run);
    let checkpoints = dir.path().join("checkpoints");
    fs::remove_file(checkpoints.join("step-2").join(MARKER)).unwrap();
    assert_eq!(latest_checkpoint(dir.path()).unwrap().unwrap().step, 1);
    assert_eq!(names(&checkpoints).len(), 3);
    let run = RunDirectory::open(dir.path()).unwrap();
    assert_eq!(names(&checkpoints), ["step-1"]);
    assert_eq!(run.latest().unwrap().unwrap().step, 1);
    assert_eq!(value(&dir.path().join("last")), 1.0, "the link is mended");
}

#[test]
fn a_step_saved_again_replaces_the_old_one_even_when_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDirectory::create(dir.path()).unwrap();
    save(&mut run, 1, 4).unwrap();
    let again = save(&mut run, 1, 9).unwrap();
    assert_eq!(
        Tensors::open(again.path.join("model.safetensors"))
            .unwrap()
            .to_f32("w")
            .unwrap()
            .0,
        [9]
    );
    let checkpoints = dir.path().join("checkpoints");
    assert_eq!(names(&checkpoints), ["step-1"]);
    // Interrupted between setting the old one aside and marking the new one.
    drop(run);
    fs::rename(
        checkpoints.join("step-1"),
        checkpoints.join(".replaced-step-1"),
    )
    .unwrap();
    fs::create_dir(checkpoints.join("step-1")).unwrap();
    let run = RunDirectory::open(dir.path()).unwrap();
    assert_eq!(names(&checkpoints), ["step-1"]);
    assert_eq!(value(&run.latest().unwrap().unwrap().path), 1.0);
}

#[test]
fn damage_to_a_complete_checkpoint_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDirectory::create(dir.path()).unwrap();
    let saved = save(&mut run, 5, 4).unwrap();
    let weights = saved.path.join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
    let message = run.latest().unwrap_err().to_string();
    let expected = format!(
        "`model.safetensors` has {} bytes, expected {}",
        whole.len() - 1,
        whole.len()
    );
    assert!(message.contains(&expected), "{message}");
    fs::write(&weights, &whole).unwrap();
    fs::remove_file(saved.path.join("tokenizer/vocab.txt")).unwrap();
    let message = run.latest().unwrap_err().to_string();
    assert!(
        message.contains("`tokenizer/vocab.txt` is missing"),
        "{message}"
    );
    fs::write(saved.path.join(MARKER), "{").unwrap();
    assert!(matches!(
        run.latest(),
        Err(Error::Run(RunError::Damaged { .. }))
    ));
    fs::write(
        saved.path.join(MARKER),
        r#"{"version": 2, "step": 5, "files": {}, "new": 1}"#,
    )
    .unwrap();
    assert!(matches!(
        run.latest(),
        Err(Error::Run(RunError::Version { .. }))
    ));
}

#[test]
fn only_one_writer_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(dir.path()).unwrap();
    let message = RunDirectory::open(dir.path()).unwrap_err().to_string();
    let holder = format!(
        "being written by another process (process {})",
        std::process::id()
    );
    assert!(message.contains(&holder), "{message}");
    drop(run);
    RunDirectory::open(dir.path()).unwrap();
}

#[test]
fn directories_that_are_no_runs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        RunDirectory::open(dir.path()),
        Err(Error::Run(RunError::NotARun { .. }))
    ));
    fs::write(dir.path().join("thesis.txt"), "mine").unwrap();
    assert!(matches!(
        RunDirectory::create(dir.path()),
        Err(Error::Run(RunError::NotEmpty { .. }))
    ));
    let run = dir.path().join("run");
    drop(RunDirectory::create(&run).unwrap());
    let error = RunDirectory::create(&run).unwrap_err();
    assert!(
        error.to_string().contains("continue it with --resume") && error.is_bad_input(),
        "{error}"
    );
    fs::write(
        run.join("run.json"),
        r#"{"format": "malmoi-run", "version": 2}"#,
    )
    .unwrap();
    let message = RunDirectory::open(&run).unwrap_err().to_string();
    assert!(
        message.contains("has run format 2, expected 1"),
        "{message}"
    );
}

#[test]
fn a_start_that_was_interrupted_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    drop(RunDirectory::create(dir.path()).unwrap());
    fs::remove_file(dir.path().join("run.json")).unwrap();
    RunDirectory::create(dir.path()).unwrap();
}

#[test]
fn metrics_are_cut_back_to_the_resumed_step() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metrics.jsonl");
    let mut run = RunDirectory::create(dir.path()).unwrap();
    for step in 1..=5u64 {
        let fields = json!({ "loss": 1.0 / step as f64, "bad": f64::NAN });
        run.metrics()
            .append(step, fields.as_object().unwrap())
            .unwrap();
    }
    run.metrics()
        .append(3, json!({ "valid": 1 }).as_object().unwrap())
        .unwrap();
    assert_eq!(
        run.cut_metrics_back(3).unwrap(),
        CutBack {
            kept: 4,
            later: 2,
            damaged: 0
        }
    );
    run.metrics().append(4, &Default::default()).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let expected = concat!(
        "{\"step\":1,\"loss\":1.0,\"bad\":null}\n{\"step\":2,\"loss\":0.5,\"bad\":null}\n",
        "{\"step\":3,\"loss\":0.3333333333333333,\"bad\":null}\n{\"step\":3,\"valid\":1}\n{\"step\":4}\n"
    );
    assert_eq!(text, expected);
    // A crash leaves half a line, or zeros where pages were lost.
    fs::write(
        &file,
        "{\"step\":1}\n{\"step\":2}\n\0\0\n{\"step\":2,\"x\":1}\n{\"st",
    )
    .unwrap();
    assert_eq!(
        run.cut_metrics_back(9).unwrap(),
        CutBack {
            kept: 2,
            later: 0,
            damaged: 3
        }
    );
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "{\"step\":1}\n{\"step\":2}\n"
    );
    fs::remove_file(&file).unwrap();
    assert_eq!(run.cut_metrics_back(9).unwrap(), CutBack::default());
}

/// Where [`a_checkpoint_that_does_not_fit`] works; set by the tests that run it.
const NARROW_DIR: &str = "MALMOI_TEST_NARROW_DIR";

/// Fills the place it is given. Run by the two tests below, each in a process of its own.
#[test]
#[ignore = "needs a place without room; run by `a_full_disk_loses_nothing` and `a_file_size_limit_loses_nothing`"]
fn a_checkpoint_that_does_not_fit() {
    let path = std::env::var_os(NARROW_DIR).expect("the directory to work in");
    let path = Path::new(&path).join("run");
    let mut run = RunDirectory::create(&path).unwrap();
    run.metrics().append(1, &Default::default()).unwrap();
    save(&mut run, 1, 1000).unwrap();
    let before = names(&path);
    // 4 MB, more than either place has room for; twice, because a first failure must not leave anything.
    for step in [2, 1] {
        let error = save(&mut run, step, 1_000_000).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("cannot write `"), "{message}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            source.contains("No space left") || source.contains("File too large"),
            "{source}"
        );
        assert!(
            message.contains("what was complete before is untouched"),
            "{message}"
        );
        assert!(!error.is_bad_input());
        assert_eq!((steps(&path), value(&path.join("last"))), (vec![1], 1.0));
        assert_eq!(
            names(&path.join("checkpoints")),
            ["step-1"],
            "nothing is left of the failed one"
        );
    }
    assert_eq!(names(&path), before);
    save(&mut run, 3, 1000).unwrap();
    drop(run);
    assert_eq!(
        RunDirectory::open(&path)
            .unwrap()
            .latest()
            .unwrap()
            .unwrap()
            .step,
        3
    );
    println!("the place was too narrow and nothing was lost");
}

/// Runs the test above through a shell line in which `"$@"` is the test's command.
fn run_narrow(mut command: Command, dir: &Path) {
    let output = command
        .arg(std::env::current_exe().unwrap())
        .args([
            "a_checkpoint_that_does_not_fit",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(NARROW_DIR, dir)
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && text.contains("nothing was lost"),
        "{text}"
    );
}

#[test]
#[cfg(unix)]
fn a_file_size_limit_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    // 512-byte units: 256 kB. The signal is ignored so that the write fails instead.
    command.args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$@\"", "sh"]);
    run_narrow(command, dir.path());
}

/// A file system of 1 MB, mounted in a namespace of its own that ends with the process. Where a
/// container forbids that, `a_file_size_limit_loses_nothing` covers the same path with another error.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_loses_nothing() {
    let mount = "mount -t tmpfs -o size=1m tmpfs \"$MALMOI_TEST_NARROW_DIR\"";
    let dir = tempfile::tempdir().unwrap();
    let allowed = |namespace: &[&str]| {
        let tried = Command::new("unshare")
            .args(namespace)
            .args(["sh", "-c", mount])
            .env(NARROW_DIR, dir.path())
            .output();
        tried.is_ok_and(|output| output.status.success())
    };
    let namespaces: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    match namespaces.into_iter().find(|namespace| allowed(namespace)) {
        Some(namespace) => {
            let mut command = Command::new("unshare");
            command
                .args(namespace)
                .args(["sh", "-c", &format!("{mount} && exec \"$@\""), "sh"]);
            run_narrow(command, dir.path());
        }
        None => {
            let mut command = Command::new("sh");
            command.args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$@\"", "sh"]);
            run_narrow(command, dir.path());
        }
    }
}
