//! Strict reading of `config.json`, and comparing names.

mod common;

use malmoi_checkpoint::{
    AcceptNames, ConfigError, ConfigReader, Error, NamedTensor, Tensors, match_names,
    to_safetensors_bytes,
};
use serde_json::{Value, json};

fn read_bert(
    config: &Value,
    accept_unknown: bool,
) -> Result<(usize, f64, Vec<String>), ConfigError> {
    let reader = ConfigReader::new(config, "bert")?;
    let d_model = reader.usize("hidden_size")?;
    let eps = reader.f64_or("layer_norm_eps", 1e-12)?;
    reader.refuse_unless("position_embedding_type", "absolute")?;
    reader.inert(&["directionality"]);
    Ok((d_model, eps, reader.finish(accept_unknown)?))
}

#[test]
fn keys_are_read_inert_or_refused() {
    let config = json!({
        "model_type": "bert", "hidden_size": 32, "layer_norm_eps": 1e-5, "directionality": "bidi",
        "transformers_version": "5.23.0", "id2label": {"0": "x"}, "pruned_heads": {}, "temperature": 1,
        "position_embedding_type": "absolute", "classifier_dropout": null,
    });
    assert_eq!(read_bert(&config, false).unwrap(), (32, 1e-5, vec![]));

    let with = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        config
    };
    let message = read_bert(
        &with("position_embedding_type", json!("relative_key")),
        false,
    )
    .unwrap_err()
    .to_string();
    assert_eq!(
        message,
        "config.json (bert): `position_embedding_type` = \"relative_key\" isn't supported, expected \"absolute\"; \
         use a model without it"
    );
    let message = read_bert(&with("pruned_heads", json!({"0": [1]})), false)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`pruned_heads` = {\"0\":[1]} isn't supported, expected {}"),
        "{message}"
    );
    // A setting that changes the computation is refused even when unknown keys are accepted.
    assert!(read_bert(&with("is_decoder", json!(true)), true).is_err());

    let odd = with("use_magic", json!(3));
    let message = read_bert(&odd, false).unwrap_err().to_string();
    assert!(
        message.contains("`use_magic`") && message.contains("--accept-unknown-config"),
        "{message}"
    );
    assert_eq!(read_bert(&odd, true).unwrap().2, ["use_magic"]);
    assert!(
        read_bert(&with("use_magic", Value::Null), false).is_ok(),
        "null counts as absent"
    );

    let message = read_bert(&with("hidden_size", json!(-1)), false)
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "config.json (bert): `hidden_size` is -1, expected a non-negative whole number; correct it"
    );
    assert!(matches!(
        read_bert(&json!({}), false),
        Err(ConfigError::Missing { .. })
    ));
    assert!(matches!(
        read_bert(&json!([]), false),
        Err(ConfigError::NotAnObject { .. })
    ));
    assert!(matches!(
        read_bert(&with("hidden_size", json!("32")), false),
        Err(ConfigError::WrongType { .. })
    ));
}

#[test]
fn a_key_an_architecture_reads_is_not_held_to_its_inert_value() {
    let config = json!({ "is_encoder_decoder": true, "top_k": 3 });
    let reader = ConfigReader::new(&config, "t5").unwrap();
    assert!(reader.bool("is_encoder_decoder").unwrap());
    reader.refuse_unless("top_k", 3.0).unwrap();
    assert_eq!(reader.finish(false).unwrap(), Vec::<String>::new());
}

#[test]
fn labels_come_in_the_order_of_their_numbers() {
    let labels = |config: Value| ConfigReader::new(&config, "x").unwrap().labels();
    let many: serde_json::Map<_, _> = (0..12)
        .rev()
        .map(|i| (i.to_string(), json!(format!("L{i}"))))
        .collect();
    let read = labels(json!({ "id2label": many })).unwrap().unwrap();
    assert_eq!(
        (read[2].as_str(), read[11].as_str(), read.len()),
        ("L2", "L11", 12)
    );
    assert_eq!(
        labels(json!({ "num_labels": 2 })).unwrap().unwrap(),
        ["LABEL_0", "LABEL_1"]
    );
    assert_eq!(labels(json!({})).unwrap(), None);
    for wrong in [
        json!({ "id2label": {"1": "a"} }),
        json!({ "id2label": ["a"] }),
        json!({ "id2label": {"0": 1} }),
        json!({ "id2label": {"0": "a"}, "num_labels": 2 }),
    ] {
        assert!(labels(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn common_keys_of_published_configs_are_known() {
    // What is left after the shared lists are the keys that architectures must read themselves.
    for dir in common::golden_models() {
        let config = malmoi_checkpoint::read_config(&dir).unwrap();
        let read = ConfigReader::new(&config, "any").unwrap();
        // Encoder-decoders say so, and read the key themselves; nobody else may.
        if config["is_encoder_decoder"] == json!(true) {
            read.refuse_unless("is_encoder_decoder", true).unwrap();
        }
        let unknown = read.finish(true).unwrap();
        for shared in [
            "dtype",
            "eos_token_id",
            "id2label",
            "is_decoder",
            "problem_type",
            "transformers_version",
            "use_cache",
        ] {
            assert!(
                !unknown.iter().any(|key| key == shared),
                "{}: {shared}",
                dir.display()
            );
        }
        assert!(
            unknown.iter().any(|key| key == "vocab_size"),
            "{}",
            dir.display()
        );
    }
}

fn tensors(list: &[(&'static str, &[usize])]) -> Tensors {
    let list: Vec<NamedTensor> = list
        .iter()
        .map(|(name, shape)| NamedTensor::new(*name, shape, vec![0.0f32; shape.iter().product()]))
        .collect();
    Tensors::from_bytes(
        to_safetensors_bytes(&list, &[]).unwrap(),
        "model.safetensors",
    )
    .unwrap()
}

fn expected(list: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
    list.iter()
        .map(|(name, shape)| (name.to_string(), shape.to_vec()))
        .collect()
}

#[test]
fn all_differences_of_names_are_listed_at_once() {
    let found = tensors(&[("a", &[2]), ("b", &[3]), ("x", &[1]), ("y", &[1])]);
    let wanted = expected(&[("a", &[2]), ("b", &[4]), ("c", &[1])]);
    let error = match_names(&wanted, &found, &[], AcceptNames::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the tensors in `model.safetensors` don't fit the model; 1 missing: `c` (accept with `--accept-missing-weights`); \
         2 unused: `x`, `y` (accept with `--accept-unused-weights`); 1 of another shape: `b` expected [4], found [3] \
         (make `config.json` fit the weights)"
    );
    let all = AcceptNames {
        missing: true,
        unused: true,
    };
    assert!(
        match_names(&wanted, &found, &[], all).is_err(),
        "shapes can't be accepted"
    );
    let wanted = expected(&[("a", &[2]), ("b", &[3]), ("c", &[1])]);
    let matched = match_names(&wanted, &found, &[], all).unwrap();
    assert_eq!(
        (matched.missing, matched.unused),
        (vec!["c".to_string()], vec!["x".into(), "y".into()])
    );
    let optional = ["c".to_string(), "x".into(), "y".into()];
    assert!(match_names(&wanted, &found, &optional, AcceptNames::default()).is_ok());
    let one = AcceptNames {
        missing: true,
        unused: false,
    };
    assert!(
        matches!(match_names(&wanted, &found, &[], one), Err(Error::Names(n)) if n.unused.len() == 2 && n.missing.is_empty())
    );
}

#[test]
fn long_lists_are_cut_and_counted() {
    let wanted: Vec<(String, Vec<usize>)> = (0..30).map(|i| (format!("t{i}"), vec![1])).collect();
    let message = match_names(&wanted, &tensors(&[]), &[], AcceptNames::default())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("30 missing: `t0`") && message.contains("`t7` and 22 more"),
        "{message}"
    );
    assert!(!message.contains("t8"), "{message}");
}
