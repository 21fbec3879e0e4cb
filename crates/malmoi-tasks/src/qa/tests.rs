use std::path::PathBuf;

use malmoi_text::Tokenizer;

use super::*;
use crate::records::collected;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../data")
        .join(name)
}

fn tokenizer() -> Tokenizer {
    Tokenizer::load(data("vocab/bert-base-uncased")).unwrap()
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

/// Outputs of a model that knows the spans of a case.
fn knowing(case: &Case) -> Vec<f32> {
    let Some(Truth::Answers(_, spans)) = &case.truth else {
        panic!("answers")
    };
    let mut outputs = Vec::new();
    for (input, span) in case.inputs.iter().zip(spans) {
        let mut rows = vec![0.0; 2 * input.ids.len()];
        rows[2 * span.0 as usize] = 9.0;
        rows[2 * span.1 as usize + 1] = 9.0;
        outputs.extend(rows);
    }
    outputs
}

#[test]
fn a_model_that_knows_gets_full_marks_however_the_context_is_cut() {
    let tokenizer = tokenizer();
    let path = data("samples/en_qa_xquad/train.json");
    let task = QuestionAnswering::default();
    let records = collected(task.rows(&path, "utf-8", true).unwrap(), &path).unwrap();
    assert!(records.len() > 20);
    for (max_len, stride) in [(384, 128), (96, 32), (64, 16)] {
        let task = QuestionAnswering {
            stride,
            ..QuestionAnswering::default()
        };
        let (mut truths, mut said, mut windows) = (Vec::new(), Vec::new(), 0);
        for record in &records {
            let case = task
                .case(record, Some(&[]), &encoder(&tokenizer, max_len))
                .unwrap();
            windows += case.inputs.len();
            assert!(case.inputs.iter().all(|input| input.ids.len() <= max_len));
            let Layout::Question(question) = &case.layout else {
                panic!()
            };
            let fullest: usize = question
                .windows
                .iter()
                .flatten()
                .flatten()
                .filter(|token| token.fullest)
                .count();
            let whole = tokenizer
                .encode_ids(&question.context, false)
                .unwrap()
                .len();
            assert_eq!(
                fullest, whole,
                "each token of the context counts in one window"
            );
            said.push(task.decode(&case, &knowing(&case), &[]));
            truths.push(case.truth.unwrap());
        }
        let scores = task.score(&truths, &said, &[]);
        let get = |name| scores.iter().find(|(n, _)| *n == name).unwrap().1;
        assert!(
            get("f1") > 99.0 && get("exact_match") > 97.0,
            "{max_len}: {scores:?}"
        );
        assert!(windows > records.len() || max_len == 384, "{windows}");
    }
}

#[test]
fn offsets_count_characters_and_bytes_of_the_context() {
    let tokenizer = tokenizer();
    let task = QuestionAnswering::default();
    let record = Record::at(
        "f".into(),
        1,
        vec![
            ("context".into(), json!("é Paris is nice")),
            ("question".into(), json!("what is nice?")),
            (
                "answers".into(),
                json!({"text": ["Paris"], "answer_start": [2]}),
            ),
        ],
    );
    let case = task
        .case(&record, Some(&[]), &encoder(&tokenizer, 64))
        .unwrap();
    let said = task.decode(&case, &knowing(&case), &[]);
    let shown = task.show(&case, &said, &[]);
    assert_eq!(
        (&shown["answer"], &shown["start"], &shown["end"]),
        (&json!("Paris"), &json!(2), &json!(7))
    );
    assert_eq!(
        (&shown["byte_start"], &shown["byte_end"]),
        (&json!(3), &json!(8))
    );
    assert!(shown["n_best"].as_array().unwrap().len() > 3);
    let sum: f64 = shown["n_best"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["probability"].as_f64().unwrap())
        .sum();
    assert!((sum - 1.0).abs() < 1e-9);
}

#[test]
fn no_answer_wins_where_its_score_is_above_the_threshold() {
    let tokenizer = tokenizer();
    let record = |answers: Value| {
        Record::at(
            "f".into(),
            1,
            vec![
                ("context".into(), json!("Paris is nice")),
                ("question".into(), json!("who?")),
                ("answers".into(), answers),
            ],
        )
    };
    let strict = QuestionAnswering::default();
    let error = strict
        .case(&record(json!([])), Some(&[]), &encoder(&tokenizer, 64))
        .unwrap_err()
        .to_string();
    assert!(error.contains("--no-answer"), "{error}");
    let task = QuestionAnswering {
        no_answer: true,
        ..QuestionAnswering::default()
    };
    let case = task
        .case(&record(json!([])), Some(&[]), &encoder(&tokenizer, 64))
        .unwrap();
    let said = task.decode(&case, &knowing(&case), &[]);
    let Prediction::Answers(answers, Some((loss, 1))) = &said else {
        panic!("{said:?}")
    };
    assert_eq!(answers[0].text, "");
    assert!(*loss < 0.01);
    let scores = task.score(
        &[case.truth.clone().unwrap()],
        std::slice::from_ref(&said),
        &[],
    );
    assert_eq!(scores[1], ("exact_match", 100.0));
    let reluctant = QuestionAnswering {
        null_threshold: 50.0,
        ..task
    };
    let Prediction::Answers(answers, _) = reluctant.decode(&case, &knowing(&case), &[]) else {
        panic!()
    };
    assert_ne!(answers[0].text, "");
    assert!(answers.iter().any(|answer| answer.text.is_empty()));
}

#[test]
fn an_offset_that_does_not_match_is_refused_with_file_line_and_a_hint() {
    let dir = std::env::temp_dir().join(format!("malmoi-squad-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("bad.json");
    let text = "{\"data\": [{\"paragraphs\": [{\"context\": \"서울은 크다\",\n\"qas\": [\n{\"id\": \"q1\", \"question\": \"무엇이?\",\n\
                \"answers\": [{\"text\": \"크다\", \"answer_start\": 3}]}]}]}]}";
    std::fs::write(&path, text).unwrap();
    let task = QuestionAnswering::default();
    let record = task
        .rows(&path, "utf-8", true)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let tokenizer = tokenizer();
    let error = task
        .case(&record, Some(&[]), &encoder(&tokenizer, 64))
        .unwrap_err()
        .to_string();
    for words in [
        "bad.json: line 3",
        "`크다`",
        "character 3",
        "` 크`",
        "found at 4",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(!error.contains("  "), "{error}");
    std::fs::write(&path, text.replace(": 3}", ": 300}")).unwrap();
    let record = task.rows(&path, "utf-8", true).unwrap().next().unwrap();
    let error = task
        .case(&record.unwrap(), Some(&[]), &encoder(&tokenizer, 64))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("character 300 of its context, which ends before that"),
        "{error}"
    );
    let long = "{\"id\": \"q1\"".replace("q1", "x");
    std::fs::write(&path, long).unwrap();
    assert!(
        task.rows(&path, "utf-8", true)
            .is_err_and(|error| error.to_string().contains("line 1"))
    );
    std::fs::write(&path, "{\"data\": [{\"paragraphs\": [{\"qas\": []}]}]}").unwrap();
    let error = task.rows(&path, "utf-8", true).err().unwrap().to_string();
    assert!(error.contains("text `context`"), "{error}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_part_of_a_file_is_named_by_its_articles() {
    let path = data("samples/en_qa_xquad/train.json");
    let whole = path.display().to_string();
    let task = QuestionAnswering::default();
    let rows = |source: &str| task.rows(Path::new(source), "utf-8", true).unwrap().count();
    let (first, second) = (rows(&format!("{whole}#0-0")), rows(&format!("{whole}#1-9")));
    assert!(first > 0 && second > 0);
    assert_eq!(first + second, rows(&whole));
    assert_eq!(source_file(Path::new("a#b")), (PathBuf::from("a#b"), None));
    assert_eq!(
        source_file(Path::new("a#3-1")),
        (PathBuf::from("a#3-1"), None)
    );
}

#[test]
fn a_question_that_leaves_no_room_is_refused_and_a_long_one_cut() {
    let tokenizer = tokenizer();
    let record = Record::new(
        "f: line 4",
        &[
            ("context", "a b c"),
            ("question", "one two three four five six"),
        ],
    );
    let task = QuestionAnswering {
        max_question_len: 4,
        ..QuestionAnswering::default()
    };
    let case = task.case(&record, None, &encoder(&tokenizer, 16)).unwrap();
    assert!(case.truncated);
    let error = task
        .case(&record, None, &encoder(&tokenizer, 7))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("f: line 4") && error.contains("--max-len"),
        "{error}"
    );
}
