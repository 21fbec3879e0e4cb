//! Every tokenizer fixture of the repository, entry by entry. The runner is the one of `malmoi verify`.

use std::path::{Path, PathBuf};

#[path = "../../malmoi-verify/src/tokenizers/replay.rs"]
mod replay;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn encodings_equal_the_references() {
    let golden = repository().join("golden");
    let mut fixtures = 0;
    let mut failures = Vec::new();
    for entry in std::fs::read_dir(&golden).expect("golden/") {
        let dir = entry.expect("an entry of golden/").path();
        let file = dir.join("encodings.json");
        if !file.is_file() {
            continue;
        }
        fixtures += 1;
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&file).expect("a readable fixture"))
                .expect("valid JSON");
        let vocab = repository().join("data/vocab");
        let subject = replay::Subject::load(&dir, &vocab, &json).expect("a tokenizer");
        let mut values = subject.special();
        if let Ok(pieces) = std::fs::read(dir.join("pieces.json")) {
            values.extend(subject.vocabulary(&serde_json::from_slice(&pieces).expect("JSON")));
        }
        let mut entries = 0;
        for (index, entry) in replay::entries(&json).enumerate() {
            entries += 1;
            let compared = subject.entry(entry).expect("a known kind of entry");
            assert!(!compared.is_empty(), "entry {index} compares nothing");
            values.extend(
                compared
                    .into_iter()
                    .map(|(key, got, expected)| (format!("{index} {entry}.{key}"), got, expected)),
            );
        }
        assert!(entries > 0, "{}: no entries", dir.display());
        for (name, got, expected) in values {
            if got != expected {
                let name: String = name.chars().take(300).collect();
                failures.push(format!(
                    "{}: {name}\n     got {got}\nexpected {expected}",
                    dir.display()
                ));
            }
        }
    }
    assert!(
        fixtures >= 9,
        "found {fixtures} tokenizer fixtures in golden/"
    );
    assert!(
        failures.is_empty(),
        "{} differences, the first:\n{}",
        failures.len(),
        failures[..failures.len().min(12)].join("\n")
    );
}
