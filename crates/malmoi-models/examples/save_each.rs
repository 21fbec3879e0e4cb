//! Saves a small random model of every architecture with every head, and beside each what it computes.
//!
//! `cargo run --release -p malmoi-models --example save_each -- DIR`, then `python3 golden/check_saved.py DIR`: Python's
//! `from_pretrained` opens each and must compute the same.

use std::error::Error;
use std::path::{Path, PathBuf};

use malmoi_models::{Direction, Head, Mode, Model, ModelConfig, PackedBatch, SaveOptions};
use malmoi_nn::{Key, Purpose};
use serde_json::{Map, Value, json};

/// Sequences of a batch (or choices of its one example) and their length.
const ROWS: usize = 2;
const LENGTH: usize = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: save_each DIR")?;
    let folder = PathBuf::from(folder);
    for json in configurations() {
        let config = ModelConfig::from_json(&json, false)?;
        for (head, class) in config.architecture_names() {
            let name = match config.is_causal() && json["model_type"] == "xlm" {
                true => format!("{class}-causal"),
                false => (*class).to_owned(),
            };
            save(&folder.join(name), &config, *head)?;
        }
    }
    let electra = configuration("electra");
    let discriminator = ModelConfig::from_json(&electra, false)?;
    let pair = discriminator.clone().with_generator(discriminator)?;
    save(&folder.join("ElectraPair"), &pair, Head::ReplacedTokens)?;
    Ok(())
}

/// One of each architecture; sizes differ from each other, so that no two can be mixed up.
fn configurations() -> Vec<Value> {
    let mut all: Vec<Value> = ["bert", "roberta", "xlm-roberta", "albert", "electra"]
        .map(configuration)
        .into();
    let xlm = json!({"model_type": "xlm", "vocab_size": 50, "emb_dim": 16, "n_layers": 3, "n_heads": 4, "n_langs": 3,
                     "max_position_embeddings": 20});
    let mut causal = xlm.clone();
    causal["causal"] = true.into();
    let gpt = |model_type: &str| {
        json!({"model_type": model_type, "vocab_size": 50, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 20,
               "pad_token_id": 0})
    };
    all.extend([
        json!({"model_type": "distilbert", "vocab_size": 50, "dim": 16, "n_layers": 3, "n_heads": 4, "hidden_dim": 24,
               "max_position_embeddings": 20, "sinusoidal_pos_embds": true}),
        xlm,
        causal,
        gpt("openai-gpt"),
        gpt("gpt2"),
        json!({"model_type": "gpt_neo", "vocab_size": 50, "hidden_size": 16, "num_layers": 3, "num_heads": 4,
               "attention_types": [[["global", "local"], 1], [["local"], 1]], "window_size": 3,
               "max_position_embeddings": 20, "pad_token_id": 0}),
        json!({"model_type": "llama", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
               "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 24, "max_position_embeddings": 20,
               "pad_token_id": 0}),
        json!({"model_type": "modernbert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 4,
               "num_attention_heads": 4, "intermediate_size": 24, "max_position_embeddings": 20, "local_attention": 4,
               "global_attn_every_n_layers": 2, "pad_token_id": 0}),
        json!({"model_type": "t5", "vocab_size": 50, "d_model": 16, "d_kv": 6, "num_heads": 3, "d_ff": 24, "num_layers": 2,
               "num_decoder_layers": 3, "relative_attention_num_buckets": 6, "relative_attention_max_distance": 5}),
        json!({"model_type": "mt5", "vocab_size": 50, "d_model": 16, "d_kv": 4, "num_heads": 4, "d_ff": 24,
               "num_layers": 2, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}),
    ]);
    all
}

fn configuration(model_type: &str) -> Value {
    let mut config = json!({
        "model_type": model_type, "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 24, "max_position_embeddings": 20, "num_hidden_groups": 2,
    });
    match model_type {
        "albert" => {
            config["embedding_size"] = 12.into();
            config["inner_group_num"] = 2.into();
        }
        "electra" => config["embedding_size"] = 12.into(),
        _ => {}
    }
    config
}

fn save(folder: &Path, config: &ModelConfig, head: Head) -> Result<(), Box<dyn Error>> {
    let model = Model::initialise(config.clone(), head, 7, Mode::Inference);
    // Biases and norms away from zero and one, matrices large enough for every term to show.
    let model = model.update(|info, values| {
        let key = Key::new(8, Purpose::Initialisation, 1).fold_name(&info.name);
        let scale = if info.shape.len() > 1 { 0.3 } else { 0.2 };
        for (position, value) in values.iter_mut().enumerate() {
            *value += scale * key.normal_at(position as u64);
        }
    });
    model.save(folder, &SaveOptions::default())?;
    let (inputs, batch) = inputs(&model);
    let expected = json!({"inputs": inputs, "outputs": outputs(&model, &batch)?});
    std::fs::write(folder.join("expected.json"), expected.to_string())?;
    println!("{}", folder.display());
    Ok(())
}

fn inputs(model: &Model) -> (Map<String, Value>, PackedBatch) {
    let key = Key::new(9, Purpose::Sampling, 0);
    let draw = |low: u64, high: u64, stream: u64| -> Vec<Vec<u32>> {
        let at = |i: usize| (low + key.fold(stream).below_at(i as u64, high - low)) as u32;
        (0..ROWS)
            .map(|row| (0..LENGTH).map(|i| at(row * LENGTH + i)).collect())
            .collect()
    };
    let config = model.config();
    let mut given = Map::new();
    let shaped = |rows: &Vec<Vec<u32>>| match model.head() {
        Head::MultipleChoice | Head::DoubleHeads => json!([rows]),
        _ => json!(rows),
    };
    // Ids below 3 are padding somewhere.
    let ids = draw(3, config.vocab_size() as u64, 0);
    let mut batch = PackedBatch::from_sequences(&ids);
    given.insert("input_ids".into(), shaped(&ids));
    let n_segments = config.n_segments();
    if (2..config.vocab_size()).contains(&n_segments) {
        let segments = draw(0, n_segments as u64, 1);
        given.insert("token_type_ids".into(), shaped(&segments));
        batch = batch.with_segments(segments.concat());
    }
    if config.n_languages() > 0 {
        let languages = draw(0, config.n_languages() as u64, 2);
        given.insert("langs".into(), json!(languages));
        batch = batch.with_languages(languages.concat());
    }
    if config.direction() == Direction::EncoderDecoder {
        let target = draw(3, config.vocab_size() as u64, 3);
        given.insert("decoder_input_ids".into(), json!(target));
        batch = PackedBatch::from_sequences(&target).with_source(batch);
    }
    if model.head() == Head::DoubleHeads {
        given.insert("mc_token_ids".into(), json!([[LENGTH - 1, 3]]));
    }
    (given, batch)
}

/// Published outputs by name, as flat lists.
fn outputs(model: &Model, batch: &PackedBatch) -> Result<Map<String, Value>, Box<dyn Error>> {
    let all: Vec<u32> = (0..batch.n_tokens() as u32).collect();
    let mut outputs = Map::new();
    let mut put = |name: &str, values: Vec<f32>| outputs.insert(name.into(), json!(values));
    match model.head() {
        Head::None => drop(put("last_hidden_state", model.last_hidden(batch)?)),
        Head::MaskedLm | Head::CausalLm | Head::Seq2SeqLm => {
            drop(put("logits", model.logits(batch, &all)?))
        }
        Head::Pretraining => {
            put("prediction_logits", model.logits(batch, &all)?);
            let pair = match model.config().model_type() {
                "albert" => "sop_logits",
                _ => "seq_relationship_logits",
            };
            put(pair, model.outputs(batch)?);
        }
        Head::QuestionAnswering => {
            let both = model.outputs(batch)?;
            for (column, name) in ["start_logits", "end_logits"].into_iter().enumerate() {
                put(name, both.iter().skip(column).step_by(2).copied().collect());
            }
        }
        Head::DoubleHeads => {
            put("logits", model.logits(batch, &all)?);
            let rows = [LENGTH as u32 - 1, LENGTH as u32 + 3];
            put("mc_logits", model.choice_logits(batch, &rows)?);
        }
        _ => drop(put("logits", model.outputs(batch)?)),
    }
    Ok(outputs)
}
