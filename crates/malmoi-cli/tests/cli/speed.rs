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
    let trace = json(&fs::read_to_string(&trace).unwrap());
    let events = trace["traceEvents"].as_array().unwrap();
    let layers = events.iter().filter(|e| e["name"] == "Norm").count();
    // Two norms a block and one behind them, in each of three passes.
    assert_eq!(layers, 9);
}

#[test]
fn an_unsupported_precision_is_named() {
    says(
        &run(&["bench", "encode-latency", "--precision", "int3"]).fails(2),
        &["int3", "f32"],
    );
}
