//! Routes of text-embeddings-inference, tasks, blanks, next tokens and attention.

use serde_json::{Value, json};

use crate::SERVER;

const TEXT: &str = "어제 카페 갔었어 거기 사람 많더라";

fn norm(vector: &Value) -> f64 {
    let values = vector.as_array().unwrap().iter();
    values
        .map(|x| x.as_f64().unwrap().powi(2))
        .sum::<f64>()
        .sqrt()
}

/// Tokens carve their text out of what was sent, in characters and in bytes.
fn check_tokens(tokens: &Value, text: &str) {
    let characters: Vec<char> = text.chars().collect();
    let mut written = 0;
    for token in tokens.as_array().unwrap() {
        let number = |key: &str| token[key].as_u64().unwrap() as usize;
        let by_character: String = characters[number("start")..number("end")].iter().collect();
        let by_byte = &text[number("byte_start")..number("byte_end")];
        assert_eq!(by_character, by_byte);
        if token["special"] == false {
            assert_eq!(token["text"], by_byte, "{token}");
            written += 1;
        }
    }
    assert!(written > 0);
}

#[test]
fn embeddings_are_normal_and_do_not_depend_on_their_neighbours() {
    let one = SERVER.post("/embed", &json!({"inputs": TEXT, "model": "bert"}));
    assert_eq!(one.status, 200, "{}", one.text());
    let tokens: usize = one.header("x-compute-tokens").unwrap().parse().unwrap();
    assert!(tokens > 3 && one.header("x-truncated") == Some("false"));
    let one = one.json();
    assert!((norm(&one[0]) - 1.0).abs() < 1e-5 && one[0].as_array().unwrap().len() == 16);
    let many = SERVER.ok(
        "/embed?model=bert",
        &json!({"inputs": ["다른 글", TEXT, ""]}),
    );
    assert_eq!(many.as_array().unwrap().len(), 3);
    for (a, b) in one[0]
        .as_array()
        .unwrap()
        .iter()
        .zip(many[1].as_array().unwrap())
    {
        assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-4);
    }
    let raw = json!({"inputs": TEXT, "model": "bert", "normalize": false});
    let all = SERVER.ok("/embed_all", &json!({"inputs": TEXT, "model": "bert"}));
    let rows = all[0].as_array().unwrap();
    assert_eq!(rows.len(), tokens);
    let mean = |i: usize| {
        let sum: f64 = rows.iter().map(|row| row[i].as_f64().unwrap()).sum();
        sum / rows.len() as f64
    };
    let raw = SERVER.ok("/embed", &raw);
    assert!((raw[0][3].as_f64().unwrap() - mean(3)).abs() < 1e-5);
    let short = SERVER.ok(
        "/embed",
        &json!({"inputs": TEXT, "model": "bert", "dimensions": 4}),
    );
    assert!(short[0].as_array().unwrap().len() == 4 && (norm(&short[0]) - 1.0).abs() < 1e-5);
}

#[test]
fn long_texts_are_refused_or_cut_as_asked() {
    let long = "사람 ".repeat(100);
    let refused = SERVER.post("/embed", &json!({"inputs": long, "model": "bert"}));
    assert_eq!(refused.status, 422);
    assert!(refused.json()["error"].as_str().unwrap().contains("48 fit"));
    let cut = SERVER.post(
        "/embed",
        &json!({"inputs": long, "model": "bert", "truncate": true}),
    );
    assert_eq!((cut.status, cut.header("x-truncated")), (200, Some("true")));
    assert_eq!(cut.header("x-compute-tokens"), Some("48"));
}

#[test]
fn the_beginning_of_a_text_can_be_cut_instead_of_its_end() {
    let (first, last) = ("어제 카페 갔었어 ", "거기 사람 많더라 ");
    // 48 tokens with two special ones: the same end behind two beginnings leaves the same tokens.
    let tail = last.repeat(30);
    let with = |start: &str, side: &str| {
        let body = json!({"inputs": format!("{start}{tail}"), "model": "bert", "truncate": true, "truncation_direction": side});
        SERVER.ok("/embed", &body)
    };
    assert_eq!(with(first, "Left"), with("", "Left"));
    assert_ne!(with(first, "Right"), with("", "Right"));
    let route = |path: &str, mut body: Value, side: &str| {
        body["truncation_direction"] = json!(side);
        SERVER.ok(path, &body)
    };
    let long = format!("{first}{tail}");
    let routes = [
        (
            "/embed_all?model=bert",
            json!({"inputs": long, "truncate": true}),
        ),
        (
            "/predict?model=nli",
            json!({"inputs": long, "truncate": true}),
        ),
        (
            "/rerank",
            json!({"query": "카페", "texts": [long], "truncate": true}),
        ),
    ];
    for (path, body) in routes {
        assert_ne!(
            route(path, body.clone(), "Left"),
            route(path, body, "Right"),
            "{path}"
        );
    }
    let similar = |side: &str| {
        let inputs = json!({"source_sentence": last, "sentences": [long]});
        let parameters = json!({"truncate": true, "truncation_direction": side});
        let body = json!({"inputs": inputs, "parameters": parameters, "model": "bert"});
        SERVER.ok("/similarity", &body)
    };
    assert_ne!(similar("Left"), similar("Right"));
}

#[test]
fn similarity_is_largest_for_the_same_text() {
    let body = json!({"inputs": {"source_sentence": TEXT, "sentences": ["서울은", TEXT]}});
    let cosines = SERVER.ok("/similarity?model=bert", &body);
    assert!((cosines[1].as_f64().unwrap() - 1.0).abs() < 1e-5);
    assert!(cosines[0].as_f64().unwrap() < 1.0);
}

#[test]
fn classes_come_with_probabilities_for_texts_pairs_and_batches() {
    let sum = |list: &Value| {
        let scores = list.as_array().unwrap().iter();
        scores.map(|p| p["score"].as_f64().unwrap()).sum::<f64>()
    };
    let one = SERVER.ok("/predict?model=nli", &json!({"inputs": TEXT}));
    assert!((sum(&one) - 1.0).abs() < 1e-6 && one[0]["score"].as_f64() >= one[1]["score"].as_f64());
    let pair = SERVER.ok("/predict?model=nli", &json!({"inputs": ["가고", "있다"]}));
    assert_eq!(pair.as_array().unwrap().len(), 3);
    let batch = json!({"inputs": [[TEXT], ["가고", "있다"]]});
    let batch = SERVER.ok("/predict?model=nli", &batch);
    assert_eq!(batch.as_array().unwrap().len(), 2);
    for (a, b) in [(&batch[0], &one), (&batch[1], &pair)] {
        let (x, y) = (
            a[0]["score"].as_f64().unwrap(),
            b[0]["score"].as_f64().unwrap(),
        );
        assert!(a[0]["label"] == b[0]["label"] && (x - y).abs() < 1e-5);
    }
    let ranks =
        json!({"query": "카페", "texts": ["서울", "카페 사람", "학교"], "return_text": true});
    let ranks = SERVER.ok("/rerank", &ranks);
    let scores: Vec<f64> = (0..3)
        .map(|i| ranks[i]["score"].as_f64().unwrap())
        .collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().all(|s| (0.0..=1.0).contains(s)));
    let at = ranks[0]["index"].as_u64().unwrap() as usize;
    assert_eq!(ranks[0]["text"], ["서울", "카페 사람", "학교"][at]);
}

#[test]
fn tokens_go_there_and_back() {
    for model in ["gpt", "bert", "t5"] {
        let list = SERVER.ok(
            "/tokenize",
            &json!({"inputs": ["카페 사람", "a"], "model": model}),
        );
        assert_eq!(list.as_array().unwrap().len(), 2);
        let ids: Vec<u64> = (list[0].as_array().unwrap().iter())
            .map(|token| token["id"].as_u64().unwrap())
            .collect();
        let text = SERVER.ok("/decode", &json!({"ids": ids, "model": model}));
        assert_eq!(text, json!(["카페 사람"]), "{model}");
    }
    let emoji = SERVER.ok("/tokenize", &json!({"inputs": "한🙂글", "model": "gpt"}));
    let last = emoji[0].as_array().unwrap().last().unwrap();
    assert_eq!((&last["stop"], &last["byte_stop"]), (&json!(3), &json!(10)));
    let wrong = SERVER.post("/decode", &json!({"ids": [999_999], "model": "gpt"}));
    assert_eq!(wrong.status, 422);
}

#[test]
fn attention_of_a_decoder_looks_back_and_that_of_an_encoder_both_ways() {
    for (model, causal) in [("gpt", true), ("bert", false)] {
        let answer = SERVER.ok("/attention", &json!({"text": TEXT, "model": model}));
        check_tokens(&answer["tokens"], TEXT);
        let n = answer["tokens"].as_array().unwrap().len();
        let attention = answer["attention"].as_array().unwrap();
        assert_eq!(
            (attention.len(), attention[0].as_array().unwrap().len()),
            (2, 2)
        );
        let mut ahead = 0.0;
        for rows in attention.iter().flat_map(|layer| layer.as_array().unwrap()) {
            let rows = rows.as_array().unwrap();
            assert_eq!(rows.len(), n);
            for (query, row) in rows.iter().enumerate() {
                let row: Vec<f64> = (row.as_array().unwrap().iter())
                    .map(|p| p.as_f64().unwrap())
                    .collect();
                assert!(row.len() == n && (row.iter().sum::<f64>() - 1.0).abs() < 1e-4);
                ahead += row[query + 1..].iter().sum::<f64>();
            }
        }
        assert_eq!(ahead == 0.0, causal, "{model}: {ahead}");
    }
    let some = json!({"text": TEXT, "model": "bert", "layers": [1], "heads": [1]});
    let some = SERVER.ok("/attention", &some);
    let all = SERVER.ok("/attention", &json!({"text": TEXT, "model": "bert"}));
    assert_eq!(some["attention"][0][0], all["attention"][1][1]);
    let both = json!({"text": "카페 사람", "target": "the dog", "model": "t5"});
    let both = SERVER.ok("/attention", &both);
    let source = both["tokens"].as_array().unwrap().len();
    let cross = &both["cross_attention"][0][0];
    assert_eq!(
        cross.as_array().unwrap().len(),
        both["target_tokens"].as_array().unwrap().len()
    );
    assert_eq!(cross[0].as_array().unwrap().len(), source);
    assert_eq!(both["target_attention"][0][0][0][1], json!(0.0));
    // The decoder starts from its own token, and does not read the end that it is to write.
    let written = both["target_tokens"].as_array().unwrap();
    assert_eq!(
        (&written[0]["id"], &written[0]["special"]),
        (&json!(0), &json!(true))
    );
    assert!(written.len() > 1 && written[1..].iter().all(|token| token["special"] == false));
    check_tokens(&both["target_tokens"], "the dog");
    for row in cross.as_array().unwrap() {
        let row = row.as_array().unwrap().iter();
        let total: f64 = row.map(|p| p.as_f64().unwrap()).sum();
        assert!((total - 1.0).abs() < 1e-4);
    }
    let wrong = SERVER.post(
        "/attention",
        &json!({"text": "a", "model": "bert", "layers": [7]}),
    );
    assert_eq!(wrong.status, 422);
}

#[test]
fn next_tokens_name_the_one_that_follows_and_its_rank() {
    let answer = SERVER.ok("/next-token", &json!({"text": TEXT, "top_k": 100}));
    check_tokens(&answer["tokens"], TEXT);
    let tokens = answer["tokens"].as_array().unwrap();
    let positions = answer["positions"].as_array().unwrap();
    assert_eq!(positions.len(), tokens.len());
    let error = SERVER.post("/next-token", &json!({"text": TEXT, "top_k": 101}));
    assert_eq!(error.status, 422);
    for (i, position) in positions.iter().enumerate() {
        let candidates = position["candidates"].as_array().unwrap();
        let of = |c: &Value| c["probability"].as_f64().unwrap();
        assert!(candidates.is_sorted_by(|a, b| of(a) >= of(b)));
        assert!(candidates.iter().map(of).sum::<f64>() <= 1.0 + 1e-9);
        let actual = &position["actual"];
        let Some(next) = tokens.get(i + 1) else {
            assert!(actual.is_null());
            continue;
        };
        assert_eq!(actual["id"], next["id"]);
        let rank = actual["rank"].as_u64().unwrap() as usize;
        if rank <= candidates.len() {
            assert_eq!(candidates[rank - 1]["id"], next["id"]);
        }
    }
}

#[test]
fn blanks_are_filled_whether_written_or_chosen() {
    let written = json!({"text": "거기 [MASK] 많더라", "top_k": 3});
    let written = SERVER.ok("/fill-mask", &written);
    let blank = &written["blanks"][0];
    assert!(blank["original"].is_null());
    let candidates = blank["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 3);
    for candidate in candidates {
        let filled = candidate["filled"].as_str().unwrap();
        assert!(
            !filled.contains("[MASK]") && filled.ends_with("많더라"),
            "{filled}"
        );
    }
    let tokens = SERVER.ok(
        "/fill-mask",
        &json!({"text": TEXT, "mask": [2], "top_k": 100}),
    );
    check_tokens(&tokens["tokens"], TEXT);
    let blank = &tokens["blanks"][0];
    let hidden = &tokens["tokens"][2];
    assert_eq!(
        (&blank["original"]["id"], &blank["position"]),
        (&hidden["id"], &json!(2))
    );
    assert_eq!(
        (&blank["start"], &blank["byte_end"]),
        (&hidden["start"], &hidden["byte_end"])
    );
    for wrong in [
        json!({"text": TEXT}),
        json!({"text": TEXT, "mask": [0]}),
        json!({"text": TEXT, "mask": [99]}),
    ] {
        assert_eq!(SERVER.post("/fill-mask", &wrong).status, 422, "{wrong}");
    }
}

#[test]
fn entities_answers_and_labels_point_into_the_text() {
    let ner = SERVER.ok("/ner", &json!({"text": TEXT}));
    check_tokens(&ner["tokens"], TEXT);
    for entity in ner["entities"].as_array().unwrap() {
        let (from, to) = (
            entity["byte_start"].as_u64().unwrap(),
            entity["byte_end"].as_u64().unwrap(),
        );
        assert_eq!(entity["text"], TEXT[from as usize..to as usize]);
    }
    assert_eq!(
        ner["token_count"].as_u64().unwrap() as usize,
        ner["tokens"].as_array().unwrap().len()
    );
    // Longer than the model reads: in pieces.
    let context = format!("{}{TEXT}", "부산은 항구이다 ".repeat(30));
    let qa = json!({"question": "어제 어디", "context": context, "top_k": 5});
    let qa = SERVER.ok("/qa", &qa);
    let answers = qa["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 5);
    for answer in answers {
        let (from, to) = (
            answer["byte_start"].as_u64().unwrap(),
            answer["byte_end"].as_u64().unwrap(),
        );
        assert_eq!(answer["text"], context[from as usize..to as usize]);
    }
    for (model, method) in [("nli", "entailment"), ("gpt", "likelihood")] {
        let body = json!({"text": TEXT, "labels": ["집", "학교", "카페"], "template": "{} 글", "model": model});
        let answer = SERVER.ok("/zero-shot", &body);
        let scores: Vec<f64> = (answer["scores"].as_array().unwrap().iter())
            .map(|s| s.as_f64().unwrap())
            .collect();
        assert!(answer["method"] == method && scores.is_sorted_by(|a, b| a >= b));
        assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    }
}

#[test]
fn a_model_that_cannot_do_the_work_is_refused_with_those_that_can() {
    let answer = SERVER.post("/fill-mask", &json!({"text": "a", "model": "gpt"}));
    assert_eq!(answer.status, 422);
    let error = answer.json();
    assert!(
        error["error"].as_str().unwrap().contains("these can: bert"),
        "{error}"
    );
    assert_eq!(error["error_type"], "validation");
    let info = SERVER.get("/info?model=nli").json();
    assert_eq!(
        info["model_type"]["classifier"]["id2label"]["0"],
        "entailment"
    );
    assert_eq!(SERVER.get("/info?model=nobody").status, 404);
    assert_eq!(SERVER.get("/info").json()["max_input_length"], 96);
}
