//! The help of every verb is a snapshot. `MALMOI_UPDATE_SNAPSHOTS=1 cargo test --release -p malmoi-cli --test cli` writes them anew.

use std::path::Path;

use crate::support::run;

/// Verbs with a help page.
const PAGES: &[&[&str]] = &[
    &[],
    &["quickstart"],
    &["tokenizer"],
    &["tokenizer", "train"],
    &["tokenizer", "encode"],
    &["tokenizer", "inspect"],
    &["pretrain"],
    &["finetune"],
    &["finetune", "classify"],
    &["finetune", "regress"],
    &["finetune", "pair"],
    &["finetune", "tag"],
    &["finetune", "qa"],
    &["finetune", "choice"],
    &["finetune", "text2text"],
    &["finetune", "lm"],
    &["finetune", "embed"],
    &["predict"],
    &["predict", "classify"],
    &["predict", "regress"],
    &["predict", "pair"],
    &["predict", "tag"],
    &["predict", "qa"],
    &["predict", "choice"],
    &["predict", "text2text"],
    &["predict", "zero-shot-classify"],
    &["generate"],
    &["fill-mask"],
    &["embed"],
    &["eval"],
    &["eval", "lm"],
    &["eval", "classify"],
    &["eval", "regress"],
    &["eval", "pair"],
    &["eval", "tag"],
    &["eval", "qa"],
    &["eval", "choice"],
    &["eval", "text2text"],
    &["eval", "zeroshot"],
    &["eval", "embed"],
    &["eval", "retrieval"],
    &["serve"],
    &["verify"],
    &["bench"],
    &["roofline"],
    &["info"],
    &["plan"],
    &["doctor"],
];

#[test]
fn help_pages_are_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let update = std::env::var_os("MALMOI_UPDATE_SNAPSHOTS").is_some();
    let mut wrong = Vec::new();
    for page in PAGES {
        let found = run(&[page, &["--help"][..]].concat()).ok();
        let file = folder.join(format!(
            "{}.txt",
            if page.is_empty() {
                "malmoi".into()
            } else {
                page.join("-")
            }
        ));
        if update {
            std::fs::write(&file, &found).expect("the snapshot is written");
        } else if std::fs::read_to_string(&file).ok().as_deref() != Some(found.as_str()) {
            wrong.push(file.display().to_string());
        }
    }
    assert!(
        wrong.is_empty(),
        "the help differs from {}; if that is intended, see the head of this file",
        wrong.join(", ")
    );
}

#[test]
fn every_verb_has_an_example() {
    for page in PAGES.iter().filter(|page| {
        !matches!(
            ***page,
            [] | ["tokenizer"] | ["finetune"] | ["predict"] | ["eval"]
        )
    }) {
        let text = run(&[page, &["--help"][..]].concat()).ok();
        assert!(
            text.contains(&format!("  malmoi {}", page.join(" "))),
            "no example in the help of {page:?}"
        );
    }
}

#[test]
fn every_verb_of_the_first_page_has_a_snapshot() {
    let text = run(&["--help"]).ok();
    let verbs = text
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    for verb in verbs.filter_map(|line| line.split_whitespace().next()) {
        assert!(PAGES.contains(&&[verb][..]), "{verb}");
    }
    assert_eq!(
        run(&["help", "tokenizer", "train"]).ok().lines().next(),
        Some("Train a tokenizer on text files")
    );
}
