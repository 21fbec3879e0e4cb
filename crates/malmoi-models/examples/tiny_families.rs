//! Saves a tiny random model of every architecture and head, and what it computes, for `golden/check_families.py` to open in
//! Python:
//!
//! ```text
//! cargo run --release -p malmoi-models --example tiny_families -- /tmp/families
//! python3 golden/check_families.py /tmp/families
//! ```

use std::path::Path;

use malmoi_models::{Direction, Head, Mode, Model, ModelConfig, PackedBatch, SaveOptions, Sizes};
use malmoi_nn::{Key, Purpose};
use serde_json::{Value, json};

/// Settings that presets do not have, beside them: model type, changes.
fn variants() -> Vec<(&'static str, Value)> {
    vec![
        ("bert", json!({"num_hidden_groups": 1})),
        ("roberta", json!({"num_hidden_groups": 2})),
        ("distilbert", json!({"sinusoidal_pos_embds": true})),
        (
            "albert",
            json!({"num_hidden_groups": 2, "inner_group_num": 2}),
        ),
        ("xlm", json!({"n_langs": 3})),
        ("xlm", json!({"n_langs": 3, "causal": true})),
        (
            "bart",
            json!({"scale_embedding": true, "num_hidden_groups": 2}),
        ),
        ("gpt2", json!({"num_hidden_groups": 1})),
        ("gpt2", json!({"tie_word_embeddings": false})),
        (
            "gpt_neo",
            json!({"tie_word_embeddings": false, "window_size": 3}),
        ),
        (
            "llama",
            json!({"tie_word_embeddings": true, "attention_bias": true, "mlp_bias": true}),
        ),
        (
            "llama",
            json!({"rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                   "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}),
        ),
        (
            "llama",
            json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 6, "beta_fast": 2.0}}),
        ),
        (
            "llama",
            json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 6, "mscale": 0.7,
                   "mscale_all_dim": 1.0, "truncate": false}}),
        ),
        (
            "llama",
            json!({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}),
        ),
        (
            "t5",
            json!({"feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}),
        ),
        ("t5", json!({"feed_forward_proj": "gated-silu"})),
        (
            "modernbert",
            json!({"norm_bias": true, "attention_bias": true, "mlp_bias": true, "classifier_bias": true,
                              "classifier_pooling": "mean", "local_attention": 4}),
        ),
        (
            "vanilla-transformer",
            json!({"norm_first": true, "final_norm": true, "tie_word_embeddings": false}),
        ),
    ]
}

/// The first preset of a type, made tiny. Banded GPT-3 has keys of our own that Python does not know.
fn tiny(model_type: &str, changes: &Value) -> Option<ModelConfig> {
    let presets = ModelConfig::preset_names().into_iter();
    let of_type = |name: &&str| {
        ModelConfig::preset_json(name).is_some_and(|json| json["model_type"] == *model_type)
    };
    let mut json = ModelConfig::preset_json({ presets }.find(of_type)?)?;
    for (key, value) in changes.as_object()? {
        json[key] = value.clone();
    }
    let config = ModelConfig::from_json(&json, false).expect("a valid variant");
    let given = config.sizes();
    let sizes = Sizes {
        vocab_size: 60,
        max_len: 24,
        d_model: 32,
        n_layers: 3,
        n_heads: 4,
        n_kv_heads: if model_type == "llama" { 2 } else { 4 },
        d_head: 8,
        d_ff: if given.d_ff == 4 * given.d_model {
            128
        } else {
            48
        },
        ..given
    };
    let special = malmoi_models::SpecialTokens {
        pad: Some(0),
        bos: Some(1),
        eos: Some(2),
    };
    Some(config.with_sizes(&sizes).with_special_tokens(special))
}

/// Everything off its initial value: a shift that is read as a scale would not show at zero and one.
fn shaken(config: ModelConfig, head: Head) -> Model {
    let model = Model::initialise(config, head, 5, Mode::Inference);
    model.update(|info, values| {
        let mut noise = vec![0.0; values.len()];
        Key::new(6, Purpose::Other(0), 0)
            .fold_name(&info.name)
            .fill_normal(0, &mut noise);
        for (value, noise) in values.iter_mut().zip(noise) {
            *value += 0.15 * noise;
        }
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::env::args().nth(1).ok_or("give an output directory")?;
    let plain = ModelConfig::model_types()
        .into_iter()
        .map(|name| (name, json!({})));
    for (index, (model_type, changes)) in plain.chain(variants()).enumerate() {
        let Some(config) = tiny(model_type, &changes) else {
            return Err(format!("{model_type} has no preset").into());
        };
        for (head, class) in config.architecture_names() {
            let model = shaken(config.clone(), *head);
            let directory = Path::new(&out).join(format!("{index:02}-{class}"));
            let mut target: Vec<u32> = vec![5, 9, 31, 7, 44, 12, 3];
            let behind = config.direction() == Direction::EncoderDecoder;
            let reads_two = behind && matches!(head, Head::None | Head::Seq2SeqLm);
            if behind && !reads_two {
                // A classifier reads its text at the end token.
                target.push(2);
            }
            let source: Vec<u32> = vec![8, 8, 27, 50, 19];
            let mut batch = PackedBatch::from_sequences(&[&target]);
            let mut expected = json!({ "head": head, "ids": target, "changes": changes });
            if reads_two {
                batch = batch.with_source(PackedBatch::from_sequences(&[&source]));
                expected["source_ids"] = json!(source);
            }
            if config.n_languages() > 0 {
                let languages: Vec<u32> = vec![0, 2, 1, 1, 0, 2, 2];
                expected["langs"] = json!(languages);
                batch = batch.with_languages(languages);
            }
            let rows: Vec<u32> = (0..batch.n_tokens() as u32).collect();
            expected["values"] = if head.has_vocabulary() {
                json!(model.logits(&batch, &rows)?)
            } else if matches!(head, Head::None | Head::EncoderOnly) {
                json!(model.last_hidden(&batch)?)
            } else {
                json!(model.outputs(&batch)?)
            };
            model.save(&directory, &SaveOptions::default())?;
            std::fs::write(directory.join("expected.json"), expected.to_string())?;
            println!("{}", directory.display());
        }
    }
    Ok(())
}
