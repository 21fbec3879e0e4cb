//! What the web lab asks.

use serde_json::{Value, json};

use crate::SERVER;

#[test]
fn models_tell_their_shape_and_abilities() {
    let list = SERVER.get("/lab/models").json();
    let find = |name: &str| {
        let models = list["models"].as_array().unwrap().iter();
        models.clone().find(|m| m["id"] == name).unwrap().clone()
    };
    let (gpt, bert) = (find("gpt"), find("bert"));
    assert_eq!(
        (&gpt["direction"], &bert["direction"]),
        (&json!("decoder"), &json!("encoder"))
    );
    let can = |model: &Value, task: &str| model["tasks"].as_array().unwrap().contains(&json!(task));
    assert!(can(&gpt, "chat") && can(&gpt, "next-token") && can(&bert, "fill-mask"));
    assert!(can(&find("ner"), "ner") && can(&find("qa"), "qa") && can(&find("ranker"), "rerank"));
    assert!(!can(&bert, "generate") && !can(&find("t5"), "chat"));
    assert_eq!(bert["mask_token"], "[MASK]");
    let parts = bert["parts"].as_array().unwrap().iter();
    let sum: u64 = parts.map(|part| part["parameters"].as_u64().unwrap()).sum();
    assert_eq!(bert["parameters"], sum);
}

#[test]
fn a_lesson_raises_the_probability_of_the_right_words_and_leaves_the_model_alone() {
    let text = "이 영화는 정말 재미있다";
    for (model, mask) in [("gpt", json!([])), ("bert", json!([2]))] {
        let body =
            json!({"model": model, "text": text, "mask": mask, "steps": 6, "learning_rate": 0.01});
        let lesson = SERVER.ok("/lab/learn", &body);
        let steps = lesson["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 7);
        let loss = |i: usize| steps[i]["loss"].as_f64().unwrap();
        assert!(
            loss(6) < 0.7 * loss(0),
            "{model}: {} to {}",
            loss(0),
            loss(6)
        );
        let tokens = lesson["tokens"].as_array().unwrap();
        let positions = steps[6]["positions"].as_array().unwrap();
        let expected = if model == "gpt" { tokens.len() - 1 } else { 1 };
        assert_eq!(positions.len(), expected);
        for position in positions {
            let at = position["position"].as_u64().unwrap() as usize;
            assert_eq!(position["target"]["id"], tokens[at]["id"]);
        }
        // Again from the beginning: the served model did not learn.
        let again = SERVER.ok("/lab/learn", &body);
        assert_eq!(again["steps"][0], lesson["steps"][0]);
        let mut streamed = body.clone();
        streamed["stream"] = json!(true);
        let events = SERVER.post("/lab/learn", &streamed).events();
        assert_eq!(
            (events.len(), events.last().unwrap().as_str()),
            (9, "[DONE]")
        );
        let last: Value = serde_json::from_str(&events[7]).unwrap();
        assert_eq!(&last, &steps[6]);
    }
    let wrong = json!({"model": "gpt", "text": text, "learning_rate": 1.0});
    assert_eq!(SERVER.post("/lab/learn", &wrong).status, 422);
}

#[test]
fn runs_are_shown_as_curves() {
    let runs = SERVER.get("/lab/runs").json();
    assert_eq!(
        (&runs["runs"][0]["name"], &runs["runs"][0]["step"]),
        (&json!("first"), &json!(20))
    );
    let run = SERVER.get("/lab/runs/first").json();
    assert_eq!(run["train"]["step"].as_array().unwrap().len(), 20);
    assert_eq!(run["valid"]["perplexity"], json!([1808.0]));
    assert_eq!(run["samples"], json!([{"step": 20, "text": "이 영화는"}]));
    assert_eq!(run["config"], "seed = 1\n");
    let later = SERVER.get("/lab/runs/first?after=18").json();
    assert_eq!(later["train"]["step"], json!([19, 20]));
    let thin = SERVER.get("/lab/runs/first?points=5").json();
    assert!(thin["train"]["step"].as_array().unwrap().len() <= 6);
    assert_eq!(SERVER.get("/lab/runs/nobody").status, 404);
    assert_eq!(SERVER.get("/lab/runs/first?points=1").status, 422);
    assert_eq!(SERVER.get("/lab/runs/first?wrong=1").status, 422);
}

#[test]
fn the_machine_and_the_layers_are_measured() {
    let machine = SERVER.get("/lab/machine").json();
    assert!(machine["peaks"][0]["all"].as_f64().unwrap() > 1e8);
    assert!(machine["memory"]["resident"].as_u64().unwrap() > 1 << 20);
    for (model, phase) in [("bert", "encode"), ("gpt", "decode"), ("t5", "decode")] {
        let roofline = SERVER
            .get(&format!("/lab/roofline?model={model}&tokens=16"))
            .json();
        assert_eq!(roofline["phase"], phase);
        let ops = roofline["ops"].as_array().unwrap();
        let sum: u64 = ops.iter().map(|op| op["flops"].as_u64().unwrap()).sum();
        assert_eq!(roofline["flops"], sum);
    }
    assert_eq!(SERVER.get("/lab/roofline?phase=dance").status, 422);
    let live = SERVER.get("/lab/live").json();
    assert!(live["in_flight"].as_u64().unwrap() >= 1);
    assert_eq!(live["models"].as_array().unwrap().len(), 8);
}
