//! Ratios, floors and races.

use serde_json::json;

use super::*;

fn results(rows: &[(&str, &str, &str, f64, f64, &str)]) -> Results {
    let mut results = Results::new();
    for (workload, peer, precision, value, memory, unit) in rows {
        let key = (
            (*workload).to_owned(),
            Racer {
                peer: (*peer).to_owned(),
                precision: (*precision).to_owned(),
            },
        );
        let found = results.entry(key).or_default();
        found.values.push(*value);
        found.memory.push(*memory);
        found.unit = (*unit).to_owned();
    }
    results
}

fn floors(workload: &str, precision: &str) -> Vec<Floor> {
    let fits = |floor: &Floor| floor.workload == workload && floor.precision == precision;
    asked(true).into_iter().filter(fits).collect()
}

#[test]
fn the_best_peer_counts_and_times_are_better_when_smaller() {
    let found = results(&[
        ("encode-latency", "malmoi", "f32", 20.0, 1.0, "ms"),
        ("encode-latency", "torch", "f32", 60.0, 1.0, "ms"),
        ("encode-latency", "ort", "f32", 38.0, 1.0, "ms"),
    ]);
    let (rows, held) = table(&found, &floors("encode-latency", "f32"));
    assert_eq!(rows[1][3], "ort 38.0");
    assert_eq!((rows[1][4].as_str(), held), ("1.90", true));
    let found = results(&[
        ("decode", "malmoi", "f32", 44.0, 1.0, "tokens/s"),
        ("decode", "torch", "f32", 40.0, 1.0, "tokens/s"),
        ("decode", "llama.cpp", "f32", 45.0, 1.0, "tokens/s"),
    ]);
    let (rows, held) = table(&found, &floors("decode", "f32"));
    assert_eq!(
        (rows[1][3].as_str(), rows[1][6].as_str(), held),
        ("llama.cpp 45.0", "BELOW", false)
    );
}

#[test]
fn medians_of_rounds_are_compared_and_memory_is_judged_for_training() {
    let found = results(&[
        ("mlm-train", "malmoi", "f32", 500.0, 2000.0, "tokens/s"),
        ("mlm-train", "malmoi", "f32", 100.0, 2000.0, "tokens/s"),
        ("mlm-train", "malmoi", "f32", 510.0, 2000.0, "tokens/s"),
        ("mlm-train", "torch", "f32", 330.0, 4000.0, "tokens/s"),
    ]);
    let (rows, held) = table(&found, &floors("mlm-train", "f32"));
    assert_eq!((rows[1][4].as_str(), held), ("1.52", true));
    assert_eq!(
        (rows[2][0].as_str(), rows[2][4].as_str()),
        ("mlm-train memory", "0.50")
    );
}

#[test]
fn what_was_not_timed_is_not_judged() {
    let found = results(&[("gemm", "torch", "bf16", 2600.0, 1.0, "GFLOP/s")]);
    let (rows, held) = table(&found, &floors("gemm", "bf16"));
    assert!(held);
    assert_eq!(
        (rows[1][2].as_str(), rows[1][6].as_str()),
        ("-", "not judged")
    );
}

#[test]
fn every_race_starts_with_ours_and_leaves_out_what_peers_do_not_cover() {
    let races = races(&asked(true), &[]);
    assert_eq!(races.len(), 10);
    for (workload, racers) in &races {
        assert_eq!(racers[0].peer, OURS, "{workload}");
        assert!(
            racers
                .iter()
                .all(|racer| covers(&racer.peer, &racer.precision))
        );
    }
    let ragged = &races
        .iter()
        .find(|race| race.0 == "encode-ragged")
        .expect("there")
        .1;
    let names: Vec<String> = ragged
        .iter()
        .map(|r| format!("{} {}", r.peer, r.precision))
        .collect();
    assert_eq!(
        names,
        [
            "malmoi f32",
            "torch f32",
            "ct2 f32",
            "malmoi bf16",
            "torch bf16"
        ]
    );
}

#[test]
fn without_a_tile_unit_bf16_has_to_be_as_fast_as_the_best_peer_and_f32_as_anywhere() {
    for (with, without) in asked(true).into_iter().zip(asked(false)) {
        assert_eq!(with.workload, without.workload);
        if with.precision == "bf16" {
            assert!(
                with.least >= 1.0 && without.least == 1.0,
                "{}",
                with.workload
            );
        } else {
            assert_eq!(with.least, without.least, "{}", with.workload);
        }
    }
    assert_eq!(
        has_tile_unit(&json!({ "instruction_sets": ["portable", "avx2", "avx512", "amx"] })),
        Ok(true)
    );
    assert_eq!(
        has_tile_unit(&json!({ "instruction_sets": ["portable", "avx2"] })),
        Ok(false)
    );
    assert!(has_tile_unit(&json!({})).is_err());
}

#[test]
fn the_last_json_line_is_the_measurement() {
    let mut found = Found::default();
    let line = r#"{"value": 3.5, "unit": "ms", "peak_rss_mib": 7}"#;
    read(&format!("warming up\n{line}\n"), &mut found).expect("a measurement");
    assert_eq!(
        (found.values.as_slice(), found.memory.as_slice()),
        ([3.5].as_slice(), [7.0].as_slice())
    );
    assert!(read("nothing", &mut found).is_err());
    assert!(read("{\"value\": 0}", &mut found).is_err());
}
