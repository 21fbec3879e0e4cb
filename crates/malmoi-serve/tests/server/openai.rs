//! Routes of OpenAI's interface.

use serde_json::{Value, json};

use crate::SERVER;

const PROMPT: &str = "이 영화는";

fn completion(change: Value) -> Value {
    let mut body = json!({"model": "gpt", "prompt": PROMPT, "max_tokens": 12, "seed": 3});
    for (key, value) in change.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().unwrap()
}

#[test]
fn the_models_are_listed() {
    let list = SERVER.get("/v1/models").json();
    let names: Vec<&str> = (list["data"].as_array().unwrap().iter())
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(names[..2], ["gpt", "bert"]);
    assert_eq!(SERVER.get("/v1/models/bert").json()["object"], "model");
    let missing = SERVER.get("/v1/models/nobody");
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["error"]["code"], "model_not_found");
}

#[test]
fn a_seed_gives_the_same_text_alone_and_among_others() {
    let alone = SERVER.ok("/v1/completions", &completion(json!({})));
    assert_eq!(alone["object"], "text_completion");
    let usage = &alone["usage"];
    let sum =
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], sum);
    let others: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..16)
            .map(|seed| {
                scope
                    .spawn(move || SERVER.ok("/v1/completions", &completion(json!({"seed": seed}))))
            })
            .collect();
        asked
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(text(&others[3]), text(&alone));
    assert!(others.iter().any(|other| text(other) != text(&alone)));
}

#[test]
fn settings_do_what_they_say() {
    let greedy = |change: Value| {
        let mut body = completion(json!({"temperature": 0}));
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        SERVER.ok("/v1/completions", &body)
    };
    let plain = greedy(json!({}));
    assert_eq!(text(&plain), text(&greedy(json!({"seed": 99}))));
    assert_eq!(text(&plain), text(&greedy(json!({"lookup_tokens": 4}))));
    assert_eq!(text(&plain), text(&greedy(json!({"model": "drafted"}))));
    let echo = greedy(json!({"echo": true}));
    assert_eq!(text(&echo), format!("{PROMPT}{}", text(&plain)));
    // The first token that was chosen is excluded.
    let with = greedy(json!({"logprobs": 5, "return_token_ids": true}));
    let first = with["choices"][0]["logprobs"]["token_ids"][0]
        .as_u64()
        .unwrap();
    let biased = greedy(json!({"logprobs": 0, "logit_bias": {first.to_string(): -100}}));
    assert_ne!(biased["choices"][0]["logprobs"]["token_ids"][0], first);
    // Ids go in where text does.
    let ids = &with["prompt_token_ids"][0];
    assert_eq!(text(&plain), text(&greedy(json!({"prompt": ids}))));
    let many = greedy(json!({"prompt": [PROMPT, "서울은"], "n": 2}));
    assert_eq!(many["choices"].as_array().unwrap().len(), 4);
    assert_eq!(many["choices"][1]["text"], plain["choices"][0]["text"]);
    let beams = greedy(json!({"num_beams": 3, "n": 2}));
    assert_eq!(beams["choices"].as_array().unwrap().len(), 2);
}

#[test]
fn log_probabilities_belong_to_the_tokens() {
    let body = completion(json!({"logprobs": 3, "temperature": 0}));
    let answer = SERVER.ok("/v1/completions", &body);
    let logprobs = &answer["choices"][0]["logprobs"];
    let list = |key: &str| logprobs[key].as_array().unwrap().clone();
    let n = list("tokens").len();
    assert_eq!(answer["usage"]["completion_tokens"], n);
    for key in [
        "token_logprobs",
        "top_logprobs",
        "text_offset",
        "token_ids",
        "alternatives",
    ] {
        assert_eq!(list(key).len(), n, "{key}");
    }
    for (i, alternatives) in list("alternatives").iter().enumerate() {
        // Greedy choice takes the best.
        assert_eq!(alternatives[0]["id"], list("token_ids")[i]);
        let (a, b) = (
            alternatives[0]["logprob"].as_f64(),
            list("token_logprobs")[i].as_f64(),
        );
        assert!((a.unwrap() - b.unwrap()).abs() < 1e-6);
        assert_eq!(alternatives.as_array().unwrap().len(), 3);
    }
}

#[test]
fn best_of_gives_the_most_probable() {
    let mean = |answer: &Value| {
        let list = answer["choices"][0]["logprobs"]["token_logprobs"]
            .as_array()
            .unwrap()
            .clone();
        list.iter().map(|x| x.as_f64().unwrap()).sum::<f64>() / list.len() as f64
    };
    let all = SERVER.ok(
        "/v1/completions",
        &completion(json!({"n": 4, "logprobs": 0})),
    );
    let best = SERVER.ok(
        "/v1/completions",
        &completion(json!({"best_of": 4, "logprobs": 0})),
    );
    assert_eq!(best["choices"].as_array().unwrap().len(), 1);
    let means: Vec<f64> = (0..4)
        .map(|i| mean(&json!({"choices": [all["choices"][i]]})))
        .collect();
    let largest = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    assert!((mean(&best) - largest).abs() < 1e-9);
}

#[test]
fn a_stop_string_is_not_part_of_the_text() {
    let whole = SERVER.ok("/v1/completions", &completion(json!({"max_tokens": 24})));
    let whole = text(&whole).to_owned();
    let middle: Vec<char> = whole.chars().collect();
    let stop: String = middle[middle.len() / 2..middle.len() / 2 + 2]
        .iter()
        .collect();
    let cut = SERVER.ok(
        "/v1/completions",
        &completion(json!({"max_tokens": 24, "stop": [stop]})),
    );
    assert_eq!(cut["choices"][0]["finish_reason"], "stop");
    let at = whole.find(&stop).unwrap();
    assert_eq!(text(&cut), &whole[..at]);
}

#[test]
fn a_stream_says_the_same_in_pieces_and_ends_with_done() {
    let whole = SERVER.ok("/v1/completions", &completion(json!({"n": 2})));
    let body = completion(
        json!({"n": 2, "stream": true, "stream_options": {"include_usage": true}, "logprobs": 1}),
    );
    let answer = SERVER.post("/v1/completions", &body);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let events = answer.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    for index in 0..2 {
        let own = chunks.iter().filter(|c| c["choices"][0]["index"] == index);
        let pieces: Vec<&str> = own
            .map(|c| c["choices"][0]["text"].as_str().unwrap())
            .collect();
        assert_eq!(
            pieces.concat(),
            whole["choices"][index]["text"].as_str().unwrap()
        );
        assert!(
            pieces.iter().all(|piece| !piece.contains('\u{fffd}'))
                || pieces.concat().contains('\u{fffd}')
        );
    }
    let last = chunks.last().unwrap();
    assert_eq!(last["usage"], whole["usage"]);
    assert_eq!(last["choices"], json!([]));
}

#[test]
fn text_of_a_shape_has_that_shape() {
    for seed in 0..4 {
        let body = completion(json!({"regex": "[0-9]{2}-(a|b)", "seed": seed, "max_tokens": 40}));
        let answer = SERVER.ok("/v1/completions", &body);
        let written = text(&answer).as_bytes().to_vec();
        assert!(
            written.len() == 4 && written[2] == b'-' && written[0].is_ascii_digit(),
            "{written:?}"
        );
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    let body = json!({"model": "gpt", "messages": [{"role": "user", "content": "a"}], "response_format": format, "max_tokens": 60, "seed": 1});
    let answer = SERVER.ok("/v1/chat/completions", &body);
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let value: Value = serde_json::from_str(content).unwrap();
    assert!(value["ok"].is_boolean() && answer["choices"][0]["finish_reason"] == "stop");
    let wrong = SERVER.post("/v1/completions", &completion(json!({"regex": "("})));
    assert_eq!(wrong.status, 422);
}

#[test]
fn a_conversation_follows_the_template() {
    let body = json!({"model": "gpt", "messages": [
        {"role": "system", "content": "친절하게"},
        {"role": "user", "content": [{"type": "text", "text": "안녕"}]},
    ], "max_tokens": 10, "temperature": 0, "logprobs": true, "top_logprobs": 2});
    let chat = SERVER.ok("/v1/chat/completions", &body);
    let rendered = "<system>친절하게\n<user>안녕\n<assistant>";
    let plain = SERVER.ok(
        "/v1/completions",
        &json!({"model": "gpt", "prompt": rendered, "max_tokens": 10, "temperature": 0}),
    );
    assert_eq!(
        chat["choices"][0]["message"]["content"],
        plain["choices"][0]["text"]
    );
    assert_eq!(chat["usage"], plain["usage"]);
    assert_eq!(
        chat["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let mut stream = body.clone();
    stream["stream"] = json!(true);
    let events = SERVER.post("/v1/chat/completions", &stream).events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let pieces = chunks
        .iter()
        .filter_map(|c| c["choices"][0]["delta"]["content"].as_str());
    assert_eq!(
        pieces.collect::<String>(),
        chat["choices"][0]["message"]["content"].as_str().unwrap()
    );
    let last = chunks.last().unwrap();
    assert_eq!(
        last["choices"][0]["finish_reason"],
        chat["choices"][0]["finish_reason"]
    );
    let without = SERVER.post(
        "/v1/chat/completions",
        &json!({"model": "t5", "messages": [{"role": "user", "content": "a"}]}),
    );
    assert_eq!(without.status, 422);
    assert!(
        without.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("chat template")
    );
}

#[test]
fn an_encoder_decoder_writes_too() {
    let body = json!({"model": "t5", "prompt": "카페 사람", "max_tokens": 6, "temperature": 0});
    let answer = SERVER.ok("/v1/completions", &body);
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() >= 1);
    assert_eq!(text(&answer), text(&SERVER.ok("/v1/completions", &body)));
}

#[test]
fn embeddings_come_as_numbers_and_as_bytes() {
    use base64::Engine as _;
    let body = |format: &str| json!({"model": "bert", "input": ["카페", "사람"], "encoding_format": format, "dimensions": 5});
    let numbers = SERVER.ok("/v1/embeddings", &body("float"));
    let bytes = SERVER.ok("/v1/embeddings", &body("base64"));
    assert_eq!(numbers["data"][1]["index"], 1);
    let decoded = base64::prelude::BASE64_STANDARD
        .decode(bytes["data"][1]["embedding"].as_str().unwrap())
        .unwrap();
    let floats: Vec<f32> = decoded
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let expected: Vec<f32> = (numbers["data"][1]["embedding"].as_array().unwrap().iter())
        .map(|x| x.as_f64().unwrap() as f32)
        .collect();
    assert_eq!((floats.len(), floats), (5, expected));
    assert_eq!(
        SERVER
            .post("/v1/embeddings", &json!({"input": [], "model": "bert"}))
            .status,
        422
    );
}

#[test]
fn errors_have_openais_shape_and_say_what_to_change() {
    let cases = [
        (completion(json!({"temperature": -1})), 422, "temperature"),
        (completion(json!({"max_tokens": 0})), 422, "max_tokens"),
        (completion(json!({"top_p": 3})), 422, "top_p"),
        (completion(json!({"tools": []})), 400, "`tools`"),
        (completion(json!({"model": "nobody"})), 404, "nobody"),
        (completion(json!({"model": "bert"})), 422, "these can"),
        (completion(json!({"prompt": [999_999]})), 422, "vocabulary"),
        (
            completion(json!({"prompt": "가".repeat(500)})),
            422,
            "shorten the prompt",
        ),
        (completion(json!({"n": 2, "best_of": 1})), 422, "best_of"),
        (
            completion(json!({"num_beams": 2, "stream": true})),
            422,
            "stream",
        ),
        (completion(json!({"prompt": 5})), 422, "fit"),
    ];
    for (body, status, word) in cases {
        let answer = SERVER.post("/v1/completions", &body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        let error = answer.json();
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(word), "{message}");
        assert_eq!(error["error"]["type"], "invalid_request_error");
    }
}
