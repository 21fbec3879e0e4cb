//! No field of a published configuration is read over: another value changes the model, is refused by name, or stands in a list of
//! those that change nothing.

use std::collections::BTreeSet;
use std::path::Path;

use malmoi_models::{Head, ModelConfig};
use serde_json::{Value, json};

/// What the library writes into every file and no computation reads: where it comes from, how it was stored, what calls return, tokens
/// of the tokenizer, and a second form of the names of the labels.
const EVERYWHERE: &[&str] = &[
    "_name_or_path",
    "architectures",
    "cls_token_id",
    "dtype",
    "label2id",
    "mask_token_id",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "sep_token_id",
    "transformers_version",
    "use_cache",
];

/// The same of single architectures.
const OWN: &[(&str, &[&str])] = &[
    // Tokens that old code took from here, and settings of a beam head that is refused by its name.
    (
        "xlm",
        &[
            "end_n_top",
            "lang_id",
            "mask_index",
            "start_n_top",
            "unk_index",
        ],
    ),
    // Generation.
    ("bart", &["forced_eos_token_id"]),
    // A head that is refused by its name, and the order of two exact operations.
    (
        "gpt2",
        &[
            "reorder_and_upcast_attn",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ],
    ),
    // The list that follows from `attention_types`, and a head that is refused by its name.
    ("gpt_neo", &["attention_layers", "classifier_dropout"]),
    // Another order of the same sums.
    ("llama", &["pretraining_tp"]),
    // How the same is computed, and the tails of initial values.
    (
        "modernbert",
        &[
            "deterministic_flash_attn",
            "initializer_cutoff_factor",
            "sparse_pred_ignore_index",
            "sparse_prediction",
        ],
    ),
    // `architectures` says whether there is a decoder.
    ("t5", &["is_encoder_decoder"]),
    ("mt5", &["is_encoder_decoder"]),
];

/// Other values for a field: of its kind, or of every kind where it is null.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![json!(1), json!(0.5), json!(true), json!("surprise")],
        Value::Bool(on) => vec![json!(!on)],
        Value::Number(n) if n.is_u64() => {
            let n = n.as_u64().expect("a whole number");
            vec![json!(n + 1), json!(2 * n + 2)]
        }
        Value::Number(n) => vec![json!(n.as_f64().expect("a number") + 0.125)],
        Value::String(_) => vec![json!("surprise")],
        Value::Array(list) => {
            let longer = list.iter().cloned().chain([json!("surprise")]);
            vec![longer.collect()]
        }
        Value::Object(map) => {
            let mut map = map.clone();
            map.insert("surprise".into(), json!("surprise"));
            vec![map.into()]
        }
    }
}

#[test]
fn no_field_of_a_published_configuration_is_read_over() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/config_fields.json");
    let text = std::fs::read_to_string(file).expect("a golden file");
    let golden: Value = serde_json::from_str(&text).expect("JSON");
    let configs = golden["configs"].as_object().expect("configurations");
    assert_eq!(configs.len(), 15);
    for (model_type, config) in configs {
        let mut config = config.clone();
        if model_type == "xlm" {
            // With a single language there is nothing to embed.
            config["n_langs"] = json!(3);
        }
        let config = &config;
        let read = |config: &Value| ModelConfig::from_json(config, false);
        let base = read(config).unwrap_or_else(|error| panic!("{model_type}: {error}"));
        let mut ignored = BTreeSet::new();
        for (key, value) in config.as_object().expect("an object") {
            if key == "model_type" {
                continue;
            }
            for other in others(value) {
                let mut changed = config.clone();
                changed[key] = other.clone();
                match read(&changed) {
                    Err(error) => {
                        let message = error.to_string();
                        assert!(
                            message.contains(key.as_str()),
                            "{model_type} {key}: {message}"
                        );
                    }
                    Ok(found) if found.to_json(Head::None) == base.to_json(Head::None) => {
                        ignored.insert(key.as_str());
                    }
                    Ok(_) => {}
                }
            }
        }
        let own = OWN.iter().find(|(name, _)| name == model_type);
        let own = own.map_or(&[][..], |(_, keys)| keys);
        let expected: BTreeSet<&str> = (EVERYWHERE.iter().chain(own))
            .copied()
            .filter(|key| config.get(key).is_some())
            .collect();
        assert_eq!(ignored, expected, "{model_type}");
    }
}
