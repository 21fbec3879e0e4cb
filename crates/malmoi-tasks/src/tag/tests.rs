use std::path::PathBuf;

use malmoi_text::Tokenizer;

use super::*;
use crate::records::collected;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../data")
        .join(name)
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::load(data("vocab").join(name)).unwrap()
}

fn encoder(tokenizer: &Tokenizer, max_len: usize) -> Encoder<'_> {
    Encoder {
        tokenizer,
        max_len,
        segments: true,
        decoder_only: false,
        task_tokens: None,
    }
}

/// Logits that say these tags at the tokens of a case, as sure as can be.
fn logits(case: &Case, at: impl Fn(usize) -> u32, n_labels: usize) -> Vec<f32> {
    let mut logits = vec![0.0; case.tokens() * n_labels];
    for token in 0..case.tokens() {
        logits[token * n_labels + at(token) as usize] = 9.0;
    }
    logits
}

#[test]
fn tags_of_words_survive_the_way_through_sub_words() {
    let tokenizer = tokenizer("bert-base-uncased");
    let path = data("samples/en_ner_wnut17/valid.conll");
    let records = collected(Tag::default().rows(&path, "utf-8", true).unwrap(), &path).unwrap();
    let task = Tag::default().settled(&records);
    assert_eq!(task.units, Units::Words);
    let labels = task.labels(&records).unwrap();
    let mut split = 0;
    for record in &records {
        let case = task
            .case(record, Some(&labels), &encoder(&tokenizer, 512))
            .unwrap();
        let (Layout::Tagged(tagged), Some(Truth::Tags(truth))) = (&case.layout, &case.truth) else {
            panic!("a tagged case")
        };
        let tokens = record.texts("tokens").unwrap();
        assert_eq!(
            (tagged.units.len(), truth.len()),
            (tokens.len(), tokens.len())
        );
        for (unit, word) in tagged.units.iter().zip(&tokens) {
            let text: String = tagged
                .text
                .chars()
                .skip(unit.chars.0)
                .take(unit.chars.1 - unit.chars.0)
                .collect();
            assert_eq!(text, *word);
        }
        split += usize::from(case.tokens() > tokens.len() + 2);
        // A model that says the truth at the first token of each word, and nonsense elsewhere, is right.
        let wrong = (labels.len() - 1) as u32;
        let of_token = |token: usize| {
            let unit = tagged
                .units
                .iter()
                .position(|unit| unit.token == Some(token));
            unit.map_or(wrong, |unit| truth[unit])
        };
        let said = task.decode(&case, &logits(&case, of_token, labels.len()), &labels);
        let Prediction::Tags(tags) = &said else {
            panic!()
        };
        let kept: Vec<bool> = tagged
            .units
            .iter()
            .map(|unit| unit.token.is_some())
            .collect();
        assert!(
            kept.iter().filter(|kept| !**kept).count() <= 1,
            "only unknown white space has no token: {record:?}"
        );
        for ((said, truth), kept) in tags.classes.iter().zip(truth).zip(kept) {
            assert!(said == truth || !kept);
        }
    }
    assert!(split > 20, "sub-words were at work in {split} sentences");
}

#[test]
fn characters_share_the_tag_of_their_token_and_spaces_have_none() {
    let tokenizer = tokenizer("koelectra");
    let path = data("samples/ko_ner_klue/valid.tsv.gz");
    let records = collected(Tag::default().rows(&path, "utf-8", true).unwrap(), &path).unwrap();
    let task = Tag::default().settled(&records);
    assert_eq!(task.units, Units::Characters);
    let labels = task.labels(&records).unwrap();
    let (mut truths, mut said) = (Vec::new(), Vec::new());
    for record in &records {
        let case = task
            .case(record, Some(&labels), &encoder(&tokenizer, 510))
            .unwrap();
        let (Layout::Tagged(tagged), Some(Truth::Tags(truth))) = (&case.layout, &case.truth) else {
            panic!("a tagged case")
        };
        let letters: String = tagged.text.chars().filter(|c| !c.is_whitespace()).collect();
        assert_eq!(letters.chars().count(), tagged.units.len());
        let of_token = |token: usize| {
            let unit = tagged
                .units
                .iter()
                .position(|unit| unit.token == Some(token));
            unit.map_or(0, |unit| truth[unit])
        };
        said.push(task.decode(&case, &logits(&case, of_token, labels.len()), &labels));
        truths.push(case.truth.clone().unwrap());
    }
    let scores = task.score(&truths, &said, &labels);
    let get = |name| scores.iter().find(|(n, _)| *n == name).unwrap().1;
    // What is left is where an entity ends inside a token, before a particle: no model with this vocabulary does better.
    assert!(get("f1") > 0.7 && get("f1") < 1.0, "{scores:?}");
    let cases: Vec<Case> = (records.iter())
        .map(|record| {
            task.case(record, Some(&labels), &encoder(&tokenizer, 510))
                .unwrap()
        })
        .collect();
    assert!((task.ceiling(&cases, &labels) - get("f1")).abs() < 1e-12);
    assert!(
        get("f1_char") > 0.95 && get("accuracy") > 0.97,
        "{scores:?}"
    );
    assert!(get("loss") < 0.01, "{scores:?}");
}

#[test]
fn entities_have_places_in_characters_and_in_bytes() {
    let tokenizer = tokenizer("koelectra");
    let task = Tag {
        units: Units::Characters,
        ..Tag::default()
    };
    let labels: Vec<String> = ["B-PS", "I-PS", "O"].map(str::to_owned).into();
    let record = Record::new("text 1", &[("tokens", "그는 이순신 장군이다")]);
    let case = task.case(&record, None, &encoder(&tokenizer, 64)).unwrap();
    let Layout::Tagged(tagged) = &case.layout else {
        panic!()
    };
    let of_token = |token: usize| {
        let unit = tagged.units.iter().find(|unit| unit.token == Some(token));
        match unit.map(|unit| unit.chars.0) {
            Some(3) => 0,
            Some(4 | 5) => 1,
            _ => 2,
        }
    };
    let said = task.decode(&case, &logits(&case, of_token, 3), &labels);
    let shown = task.show(&case, &said, &labels);
    let entity = &shown["entities"][0];
    assert_eq!(entity["text"], "이순신");
    assert_eq!((&entity["start"], &entity["end"]), (&json!(3), &json!(6)));
    assert_eq!(
        (&entity["byte_start"], &entity["byte_end"]),
        (&json!(7), &json!(16))
    );
    assert_eq!(shown["entities"].as_array().unwrap().len(), 1);
}

#[test]
fn cut_sentences_and_odd_tags_are_counted_and_unknown_ones_refused() {
    let tokenizer = tokenizer("bert-base-uncased");
    let cells = |tags: [&str; 4]| {
        vec![
            ("tokens".to_owned(), json!(["Ann", "lives", "in", "Bonn"])),
            ("tags".to_owned(), json!(tags)),
        ]
    };
    let record = |tags| Record::at("f".into(), 10, cells(tags));
    let labels: Vec<String> = ["B-LOC", "B-PER", "I-LOC", "O"].map(str::to_owned).into();
    let task = Tag::default();
    let case = task
        .case(
            &record(["B-PER", "O", "O", "I-LOC"]),
            Some(&labels),
            &encoder(&tokenizer, 5),
        )
        .unwrap();
    assert!(case.truncated);
    assert_eq!(case.oddity, Some((Oddity::BrokenTags, "f: line 13".into())));
    let said = task.decode(&case, &logits(&case, |_| 1, 4), &labels);
    let Prediction::Tags(tags) = said else {
        panic!()
    };
    assert_eq!(tags.classes, [1, 1, 1, 3], "what was cut off is outside");
    let error = task
        .case(
            &record(["B-PER", "O", "B-ORG", "O"]),
            Some(&labels),
            &encoder(&tokenizer, 9),
        )
        .unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("f: line 12") && error.contains("B-ORG") && error.contains("I-LOC"),
        "{error}"
    );
    let short = Record::at(
        "f".into(),
        1,
        vec![
            ("tokens".into(), json!(["a", "b"])),
            ("tags".into(), json!(["O"])),
        ],
    );
    let error = task.labels(&[short]).unwrap_err().to_string();
    assert!(error.contains("1 tags for 2 tokens"), "{error}");
}

#[test]
fn entity_scores_are_those_worked_out_by_hand() {
    let labels: Vec<String> = ["B-A", "I-A", "O"].map(str::to_owned).into();
    let truths = [Truth::Tags(vec![0, 1, 2, 0]), Truth::Tags(vec![2, 0])];
    // Found: the first; a wrong length; and one that begins with I.
    let said = [vec![0, 1, 2, 0], vec![2, 1]].map(|classes| {
        Prediction::Tags(Tags {
            probabilities: vec![1.0; classes.len()],
            classes,
            loss: Some((0.5, 1)),
        })
    });
    let scores = Tag::default().score(&truths, &said, &labels);
    let get = |name| scores.iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!((get("f1"), get("loss")), (1.0, 0.5));
    // Strictly, the third entity is not said at all: precision 1, recall 2/3.
    assert!((get("f1_strict") - 0.8).abs() < 1e-12);
    assert!((get("accuracy") - 5.0 / 6.0).abs() < 1e-12);
    // Tags: B-A 2·2/(3 + 2), I-A 2·1/(1 + 2), O 1.
    assert!((get("f1_char") - (0.8 + 2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
}

#[test]
fn tags_that_mark_no_entity_are_counted_and_bound_nothing() {
    let tokenizer = tokenizer("bert-base-uncased");
    let list = |words: &[&str]| words.iter().copied().collect::<Value>();
    let cells = vec![
        ("tokens".to_owned(), list(&["the", "film"])),
        ("tags".to_owned(), list(&["DET", "NOUN"])),
    ];
    let record = Record::at("f".into(), 4, cells);
    let task = Tag::default().settled(std::slice::from_ref(&record));
    let labels = task.labels(std::slice::from_ref(&record)).unwrap();
    let case = (task.case(&record, Some(&labels), &encoder(&tokenizer, 16))).unwrap();
    assert_eq!(case.oddity, Some((Oddity::OtherTags, "f: line 4".into())));
    assert_eq!(task.ceiling(&[case], &labels), 1.0);
}

#[test]
fn a_line_without_a_tag_is_named() {
    let dir = std::env::temp_dir().join(format!("malmoi-conll-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("bad.conll");
    std::fs::write(&path, "a\tO\n\n-DOCSTART- -X- O\n\nb c O\nd\n").unwrap();
    let task = Tag::default();
    let mut rows = task.rows(&path, "utf-8", true).unwrap();
    assert!(rows.next().unwrap().is_ok());
    let error = rows.next().unwrap().unwrap_err().to_string();
    assert!(
        error.contains("line 6") && error.contains("\"d\""),
        "{error}"
    );
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn text_without_units_is_divided_into_words() {
    let found: Vec<(usize, usize)> = words("Hi, 서울-부산 (x)")
        .iter()
        .map(|w| (w.0, w.1))
        .collect();
    assert_eq!(
        found,
        [
            (0, 2),
            (2, 3),
            (4, 6),
            (6, 7),
            (7, 9),
            (10, 11),
            (11, 12),
            (12, 13)
        ]
    );
}
