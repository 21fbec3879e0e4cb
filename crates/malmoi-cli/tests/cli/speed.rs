//! Roofline, plans, profiles.

use std::fs;

use crate::support::{model, run, says};
use serde_json::Value;
use tempfile::tempdir;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn a_small_model_is_measured_and_drawn() {
    let parent = tempdir().unwrap();
    let gpt = model(parent.path(), "gpt").display().to_string();
    let svg = parent.path().join("roof.svg");
    let report = json(
        &run(&[
            "roofline",
            &gpt,
            "--batch",
            "1,2",
            "--tokens",
            "5",
            "--runs",
            "1",
            "--json",
            "--svg",
            &svg.display().to_string(),
        ])
        .ok(),
    );
    let machine = &report["machine"];
    assert!(machine["peaks"][0]["all"].as_f64().unwrap() > 0.0);
    let levels = machine["levels"].as_array().unwrap();
    assert_eq!(levels.last().unwrap()["name"], "memory");
    let phases = report["phases"].as_array().unwrap();
    // Prefill and decoding, alone and in pairs.
    assert_eq!(phases.len(), 4);
    for phase in phases {
        assert!(phase["measured_s"].as_f64().unwrap() > 0.0, "{phase}");
        assert!(phase["predicted_s"].as_f64().unwrap() > 0.0, "{phase}");
        assert!(!phase["ops"].as_array().unwrap().is_empty());
    }
    let picture = fs::read_to_string(&svg).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("decode"));
}

#[test]
fn predictions_need_no_run_and_say_what_would_help() {
    let text = run(&[
        "roofline",
        "gpt2",
        "--phase",
        "decode",
        "--batch",
        "1",
        "--predict",
        "--ops",
    ])
    .ok();
    says(
        &text,
        &[
            "memory-bound",
            "8 sequences at once",
            "vocabulary projection",
            "f32",
        ],
    );
    says(
        &run(&["roofline", "bert-base", "--phase", "decode", "--predict"]).fails(2),
        &["decode", "does not generate"],
    );
    says(
        &run(&["roofline", "gpt2", "--tokens", "2000", "--predict"]).fails(2),
        &["2000", "1 to 1024"],
    );
}

#[test]
fn plans_are_printed_and_bad_ones_refused() {
    let text = run(&[
        "plan",
        "gpt3-175b",
        "--tokens",
        "300B",
        "--hardware",
        "h200x1024",
    ])
    .ok();
    says(&text, &["6·N·D", "3.14", "days", "AdamW moments"]);
    let small = run(&[
        "plan",
        "gpt3-175b",
        "--tokens",
        "300B",
        "--hardware",
        "h200x8",
        "--json",
    ]);
    let plan = json(&small.ok());
    assert_eq!(plan["fits"], false);
    assert!(plan["fewest_devices"].as_u64().unwrap() > 8);
    for (arguments, part) in [
        (["--tokens", "many", "--hardware", "h200"], "many"),
        (["--tokens", "1B", "--hardware", "h200x0"], "h200x0"),
    ] {
        let all = [&["plan", "gpt2"][..], &arguments[..]].concat();
        says(&run(&all).fails(2), &[part, "expected"]);
    }
    let planned = ["plan", "gpt2", "--tokens", "1B", "--hardware"];
    let wide = [&planned[..], &["h200", "--precision", "f32"]].concat();
    says(&run(&wide).fails(2), &["h200", "16 bits", "cpu"]);
    // Half the activations; weights stay as they are.
    let memory = |precision: &str| {
        let here = [
            &planned[..],
            &["cpu", "--keep-activations", "--json", "--precision"],
        ];
        let plan = json(&run(&[&here.concat()[..], &[precision]].concat()).ok());
        let parts = plan["memory"].as_array().unwrap().clone();
        ["weights", "activations"].map(|name| {
            let part = parts.iter().find(|part| part["name"] == name);
            part.expect(name)["bytes"].as_u64().unwrap()
        })
    };
    let ([wide, all], [narrow, half]) = (memory("f32"), memory("bf16"));
    assert_eq!(wide, narrow);
    assert!((0.5..0.52).contains(&(half as f64 / all as f64)));
}

/// What `info` says of the peak, beside what a run of the workload takes.
#[test]
fn memory_is_predicted_within_15_percent() {
    for (workload, model, batch, tokens, phase) in [
        ("encode-latency", "bert-base", "1", "32", "encode"),
        ("decode", "gpt2", "1", "95", "decode"),
        ("mlm-train", "bert-base", "8", "128", "train"),
    ] {
        for precision in ["f32", "bf16"] {
            let common = ["--precision", precision, "--json"];
            let timed = [&["bench", workload, "--runs", "1"], &common[..]].concat();
            let found = json(&run(&timed).ok())["peak_rss_mib"].as_f64().unwrap();
            let sized = ["info", model, "--batch", batch, "--tokens", tokens];
            let info = json(&run(&[&sized, &common[..]].concat()).ok());
            let phases = info["phases"].as_array().unwrap();
            let this = phases.iter().find(|one| one["work"]["phase"] == phase);
            let peak = this.expect(phase)["memory"]["peak"].as_f64().unwrap();
            let ratio = peak / f64::from(1 << 20) / found;
            assert!(
                (0.85..1.15).contains(&ratio),
                "{workload} {precision}: {ratio:.2} of {found} MiB"
            );
        }
    }
}

#[test]
fn info_shows_memory_and_arithmetic_by_phase() {
    let info = json(&run(&["info", "gpt2", "--batch", "4", "--tokens", "256", "--json"]).ok());
    let phases = info["phases"].as_array().unwrap();
    let names: Vec<&str> = phases
        .iter()
        .map(|phase| phase["work"]["phase"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["train", "prefill", "decode"]);
    let memory = &phases[0]["memory"];
    assert!(memory["peak"].as_u64() > memory["moments"].as_u64());
    // All positions asked for: a new token takes the last of them.
    let full = json(&run(&["info", "gpt2", "--tokens", "1024", "--json"]).ok());
    let decode = full["phases"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&decode["work"]["phase"], &decode["work"]["tokens"]),
        (&"decode".into(), &1023.into())
    );
    let text = run(&["info", "bert-base"]).ok();
    says(
        &text,
        &["training step, 1 x 512", "encode, 1 x 512", "peak"],
    );
}

#[test]
fn profiles_and_traces_hold_every_operation() {
    let parent = tempdir().unwrap();
    let gpt = model(parent.path(), "gpt").display().to_string();
    let trace = parent.path().join("trace.json");
    let found = run(&[
        "generate",
        "--model",
        &gpt,
        "--prompt",
        "이",
        "--max-new-tokens",
        "3",
        "--ignore-end",
        "--profile",
        "--trace",
        &trace.display().to_string(),
    ]);
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    says(
        &found.stderr,
        &["Linear", "CachedAttention", "between operations"],
    );
    let calls = |name: &str| {
        let written = json(&fs::read_to_string(&trace).unwrap());
        let events = written["traceEvents"].as_array().unwrap();
        events.iter().filter(|event| event["name"] == name).count()
    };
    // Two norms a block and one behind them, in each of three passes.
    assert_eq!(calls("Norm"), 9);
    // A workload that is timed: shares of the roof as well, and no pass that only warms up.
    let timed = run(&[
        "bench",
        "encode-latency",
        "--runs",
        "1",
        "--profile",
        "--trace",
        &trace.display().to_string(),
    ]);
    assert_eq!(timed.code, Some(0), "{}", timed.stderr);
    says(
        &timed.stderr,
        &["FeedForward", "FLOP/s", "of the roof", "between operations"],
    );
    // Five passes of twelve blocks.
    assert_eq!(calls("Attention"), 60);
}

#[test]
fn an_unsupported_precision_is_named() {
    says(
        &run(&["bench", "encode-latency", "--precision", "int3"]).fails(2),
        &["int3", "f32"],
    );
}
