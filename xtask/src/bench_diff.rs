//! Comparison of two runs of `malmoi bench`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// One measurement: a value and whether a larger one is better.
#[derive(Debug, Clone, PartialEq)]
struct Measured {
    value: f64,
    unit: String,
}

impl Measured {
    /// Times are better when smaller; everything else is a rate.
    fn speed_relative_to(&self, before: &Self) -> f64 {
        if self.unit == "ms" || self.unit == "s" {
            before.value / self.value
        } else {
            self.value / before.value
        }
    }
}

/// Reads JSON lines with the keys `workload`, `peer`, `precision`, `value` and `unit`. The best of repeated measurements counts.
fn read(text: &str) -> Result<BTreeMap<String, Measured>, String> {
    let mut found: BTreeMap<String, Measured> = BTreeMap::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let at = |what: String| format!("line {}: {what}", number + 1);
        let row: Value = serde_json::from_str(line).map_err(|error| at(error.to_string()))?;
        let word = |key: &str| {
            row[key]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| at(format!("expected a string `{key}`")))
        };
        let value = row["value"]
            .as_f64()
            .filter(|value| *value > 0.0)
            .ok_or_else(|| at("expected a positive number `value`".into()))?;
        let measured = Measured {
            value,
            unit: word("unit")?,
        };
        let key = format!(
            "{} {} {}",
            word("workload")?,
            word("peer")?,
            word("precision")?
        );
        let better = found
            .get(&key)
            .is_none_or(|old| measured.speed_relative_to(old) > 1.0);
        if better {
            found.insert(key, measured);
        }
    }
    Ok(found)
}

/// A table of ratios, and whether nothing lost more than `tolerance` and nothing disappeared.
fn compare(
    before: &BTreeMap<String, Measured>,
    after: &BTreeMap<String, Measured>,
    tolerance: f64,
) -> (Vec<String>, bool) {
    let mut held = !before.is_empty();
    let mut lines = Vec::new();
    for (key, old) in before {
        let Some(new) = after.get(key) else {
            lines.push(format!("GONE   {key}"));
            held = false;
            continue;
        };
        let ratio = new.speed_relative_to(old);
        let verdict = if ratio < 1.0 - tolerance {
            "SLOWER"
        } else {
            "ok    "
        };
        held &= ratio >= 1.0 - tolerance;
        lines.push(format!(
            "{verdict} {key:44} {:>12.2} → {:>12.2} {:10} {ratio:.3}×",
            old.value, new.value, new.unit
        ));
    }
    (lines, held)
}

/// `cargo xtask bench-diff BEFORE AFTER`.
pub fn run(before: &Path, after: &Path, tolerance: f64) -> bool {
    let load = |path: &Path| {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        text.and_then(|text| read(&text))
            .map_err(|message| format!("{}: {message}", path.display()))
    };
    match (load(before), load(after)) {
        (Ok(before), Ok(after)) => {
            let (lines, held) = compare(&before, &after, tolerance);
            lines.iter().for_each(|line| println!("{line}"));
            held
        }
        (before, after) => {
            [before.err(), after.err()]
                .into_iter()
                .flatten()
                .for_each(|message| eprintln!("{message}"));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"workload":"decode","peer":"malmoi","precision":"f32","value":100.0,"unit":"tokens/s"}
{"workload":"encode-latency","peer":"malmoi","precision":"f32","value":10.0,"unit":"ms"}"#;

    fn held(new: &str) -> bool {
        compare(&read(OLD).expect("valid"), &read(new).expect("valid"), 0.05).1
    }

    #[test]
    fn a_slower_rate_or_a_longer_time_fails() {
        assert!(held(OLD));
        assert!(held(&OLD.replace("100.0", "96.0")));
        assert!(!held(&OLD.replace("100.0", "94.0")));
        assert!(!held(
            &OLD.replace("10.0,", "11.0,").replace("100.0", "200.0")
        ));
    }

    #[test]
    fn a_workload_that_disappeared_fails() {
        assert!(!held(OLD.lines().next().unwrap_or_default()));
    }

    #[test]
    fn bad_lines_are_named() {
        assert!(read("{}").is_err_and(|message| message.contains("line 1")));
        assert!(read(&OLD.replace("100.0", "-1")).is_err());
    }
}
