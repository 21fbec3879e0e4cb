//! From rows to metrics.

use serde_json::{Value, json};

use super::*;

fn row(cells: Value) -> Row {
    let Value::Object(cells) = cells else {
        panic!("an object")
    };
    Row {
        place: "rows.jsonl: line 7".into(),
        cells,
    }
}

fn likelihood(log_likelihood: f64, tokens: usize) -> Likelihood {
    Likelihood {
        log_likelihood,
        tokens,
        greedy: false,
        unconditional: None,
    }
}

#[test]
fn shipped_templates_make_the_published_prompts() {
    let copa = Template::shipped("copa").unwrap();
    let cells = json!({"premise": "The man broke his toe.", "question": "cause", "choice1": "He got a hole in his sock.",
        "choice2": "He dropped a hammer on his foot.", "label": 1});
    let item = copa.item(&row(cells), &[]).unwrap();
    assert_eq!(item.answer, 1);
    assert_eq!(
        item.choices[1],
        Choice {
            prompt: "The man broke his toe because".into(),
            continuation: " he dropped a hammer on his foot.".into(),
            text: "he dropped a hammer on his foot.".into(),
        }
    );
    let winogrande = Template::shipped("winogrande").unwrap();
    let cells = json!({"sentence": "Ann thanked Eve because _ helped.", "option1": "Ann", "option2": "Eve", "answer": "2"});
    let item = winogrande.item(&row(cells), &[]).unwrap();
    assert_eq!(item.choices[1].prompt, "Ann thanked Eve because Eve");
    assert_eq!(item.choices[0].continuation, " helped.");
    assert_eq!(item.answer, 1);
    let blimp = Template::shipped("blimp").unwrap();
    let cells = json!({"good": "He runs.", "bad": "He run.", "paradigm": "agreement"});
    let item = blimp.item(&row(cells), &[]).unwrap();
    assert_eq!(item.choices[0].prompt, "");
    assert_eq!(item.choices[0].continuation, "He runs.");
    assert_eq!(item.group.as_deref(), Some("agreement"));
}

#[test]
fn examples_come_before_the_question_and_are_drawn_by_seed() {
    let template = Template::shipped("ko_nsmc").unwrap();
    let rows: Vec<Row> = (0..6)
        .map(|i| row(json!({"document": format!("영화 {i}"), "label": (i % 2).to_string()})))
        .collect();
    let item = template.item(&rows[0], &[&rows[1], &rows[2]]).unwrap();
    assert_eq!(
        item.choices[0].prompt,
        "영화 평: 영화 1\n긍정 또는 부정: 긍정\n\n영화 평: 영화 2\n긍정 또는 부정: 부정\n\n영화 평: 영화 0\n긍정 또는 부정:"
    );
    let drawn = |seed| template.items(&rows, &rows, 3, seed).unwrap();
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
    for (item, row) in drawn(1).iter().zip(&rows) {
        let text = row.cells["document"].as_str().unwrap();
        assert_eq!(
            item.choices[0].prompt.matches(text).count(),
            1,
            "not its own example"
        );
    }
    let error = template.items(&rows, &rows, 6, 1).unwrap_err().to_string();
    assert!(error.contains("rows.jsonl has 5 other rows"), "{error}");
}

#[test]
fn what_a_row_lacks_is_named_with_the_templates_that_fit() {
    let copa = Template::shipped("copa").unwrap();
    let cells = json!({"premise": "비가 왔다.", "question": "effect", "choice0": "길이 젖었다.", "choice1": "해가 떴다.", "label": "0"});
    let error = copa.item(&row(cells), &[]).unwrap_err().to_string();
    for part in ["line 7", "no column `choice2`", "choice0", "ko_copa"] {
        assert!(error.contains(part), "{error}");
    }
    let boolq = Template::shipped("boolq").unwrap();
    let cells = json!({"passage": "p", "question": "q", "label": "2"});
    let error = boolq.item(&row(cells), &[]).unwrap_err().to_string();
    assert!(error.contains("column `label` holds \"2\""), "{error}");
}

#[test]
fn normalisations_choose_differently_and_errors_are_those_of_the_rows() {
    let template = Template::parse(
        "prompt = \"q\"\nchoice_list = \"c\"\nlabel = \"l\"\nunconditional = \"a\"",
        "t",
        "t",
    )
    .unwrap();
    let cells = json!({"c": ["ab", "abcdefgh"], "l": 1});
    let item = template.item(&row(cells), &[]).unwrap();
    let mut likelihoods = vec![likelihood(-4.0, 1), likelihood(-6.0, 4)];
    assert_eq!(best(&item, &likelihoods, Normalization::Sum), Some(0));
    assert_eq!(best(&item, &likelihoods, Normalization::Tokens), Some(1));
    assert_eq!(best(&item, &likelihoods, Normalization::Bytes), Some(1));
    assert_eq!(
        best(&item, &likelihoods, Normalization::Unconditional),
        None
    );
    likelihoods[0].unconditional = Some(-5.0);
    likelihoods[1].unconditional = Some(-9.0);
    assert_eq!(
        best(&item, &likelihoods, Normalization::Unconditional),
        Some(1)
    );
    let other = Item {
        answer: 0,
        ..item.clone()
    };
    let found = report(
        Kind::Choice,
        &[item, other],
        &[likelihoods.clone(), likelihoods],
    );
    let names: Vec<&str> = found.measures.iter().map(|m| m.name).collect();
    assert_eq!(
        names,
        [
            "accuracy",
            "acc_norm",
            "acc_per_token",
            "acc_pmi",
            "f1_macro"
        ]
    );
    assert_eq!(found.measures[0].value, 0.5);
    assert_eq!(found.measures[0].error, Some(0.5));
    // Both rows predict class 0: F1 2/3 and 0.
    assert!((found.measures[4].value - 1.0 / 3.0).abs() < 1e-12);
}

#[test]
fn words_have_perplexity_and_are_right_when_greedy() {
    let template = Template::shipped("lambada").unwrap();
    let item = |target| {
        let cells = json!({"context": "It was a", "target": target});
        template.item(&row(cells), &[]).unwrap()
    };
    let items = [item("dog"), item("cat")];
    assert_eq!(items[0].choices[0].continuation, " dog");
    let greedy = Likelihood {
        greedy: true,
        ..likelihood(-1.0, 1)
    };
    let found = report(
        Kind::Word,
        &items,
        &[vec![greedy], vec![likelihood(-3.0, 3)]],
    );
    let value = |name| found.measures.iter().find(|m| m.name == name).unwrap();
    assert_eq!(value("accuracy").value, 0.5);
    assert!((value("perplexity").value - 2f64.exp()).abs() < 1e-12);
    assert!((value("perplexity").error.unwrap() - 2f64.exp()).abs() < 1e-12);
    assert!((value("perplexity_per_token").value - 1f64.exp()).abs() < 1e-12);
}
