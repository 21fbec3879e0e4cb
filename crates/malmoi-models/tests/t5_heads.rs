//! T5 without its decoder, and the classifiers of encoder-decoders.

use malmoi_models::{
    Direction, Head, Mode, Model, ModelConfig, ModelError, OpenOptions, PackedBatch, SaveOptions,
};
use serde_json::{Value, json};

fn config() -> ModelConfig {
    let json: Value = json!({"model_type": "t5", "vocab_size": 50, "d_model": 16, "d_kv": 6, "d_ff": 20, "num_layers": 2,
                             "num_decoder_layers": 3, "num_heads": 2, "relative_attention_num_buckets": 8,
                             "id2label": {"0": "a", "1": "b", "2": "c"}});
    ModelConfig::from_json(&json, false).expect("a valid configuration")
}

/// BART with another number of heads on each side, whose start and end tokens are those of [`config`].
fn bart() -> ModelConfig {
    let json: Value = json!({"model_type": "bart", "vocab_size": 50, "d_model": 16, "encoder_layers": 2, "decoder_layers": 1,
                             "encoder_attention_heads": 4, "decoder_attention_heads": 2, "encoder_ffn_dim": 20,
                             "decoder_ffn_dim": 24, "max_position_embeddings": 9, "eos_token_id": 1,
                             "decoder_start_token_id": 0, "pad_token_id": 3});
    ModelConfig::from_json(&json, false).expect("a valid configuration")
}

/// Two texts that end with the end token (1), one of them with another in the middle.
fn texts() -> [Vec<u32>; 2] {
    [vec![9, 4, 1, 7, 5, 1], vec![8, 30, 1]]
}

#[test]
fn the_encoder_alone_computes_what_it_computes_in_front_of_a_decoder() {
    let whole = Model::initialise(config(), Head::Seq2SeqLm, 3, Mode::Inference);
    let parent = tempfile::tempdir().expect("a directory");
    let path = parent.path().join("t5");
    whole.save(&path, &SaveOptions::default()).expect("saved");
    let open = |accept_unused| {
        Model::open(
            &path,
            &OpenOptions {
                head: Some(Head::EncoderOnly),
                accept_unused,
                ..OpenOptions::default()
            },
        )
    };
    assert!(
        open(false).is_err(),
        "the decoder's tensors are not dropped unasked"
    );
    let alone = open(true).expect("an encoder");
    assert_eq!(alone.direction(), Direction::Encoder);
    assert!(
        alone
            .parameters()
            .iter()
            .all(|info| !info.name.starts_with("decoder."))
    );
    let batch = PackedBatch::from_sequences(&texts());
    let expected = whole.source_hidden_states(&batch).expect("states");
    assert_eq!(alone.hidden_states(&batch).expect("states"), expected);
    assert_eq!(
        &alone.last_hidden(&batch).expect("states"),
        expected.last().expect("layers")
    );
    // It is saved under its own name and opens by it.
    let encoder = parent.path().join("encoder");
    alone
        .save(&encoder, &SaveOptions::default())
        .expect("saved");
    assert_eq!(
        alone.config_json()["architectures"],
        json!(["T5EncoderModel"])
    );
    let again = Model::open(&encoder, &OpenOptions::default()).expect("an encoder");
    assert_eq!(again.published_tensors(), alone.published_tensors());
    assert!(matches!(
        alone.read_sources(&batch),
        Err(ModelError::WrongHead { .. })
    ));
}

#[test]
fn a_classifier_reads_its_text_on_both_sides() {
    for (config, shared) in [
        (config(), "transformer.shared.weight"),
        // Three classes are the published default here.
        (bart(), "model.shared.weight"),
    ] {
        reads_its_text_on_both_sides(config, shared);
    }
}

fn reads_its_text_on_both_sides(config: ModelConfig, shared: &str) {
    let model = Model::initialise(config, Head::SequenceClassification, 3, Mode::Inference);
    let batch = PackedBatch::from_sequences(&texts());
    let outputs = model.outputs(&batch).expect("classes");
    assert_eq!(outputs.len(), 2 * 3);
    // The decoder's text begins with the start token (0) and lacks the last one.
    let shifted = PackedBatch::from_sequences(&[vec![0, 9, 4, 1, 7, 5], vec![0, 8, 30]]);
    let by_hand = shifted.with_source(batch);
    assert_eq!(model.outputs(&by_hand).expect("classes"), outputs);
    // Nor does a neighbour in the pack.
    let longer = PackedBatch::from_sequences(&[vec![9, 4, 1, 7, 5, 1]]);
    let alone = model.outputs(&longer).expect("classes");
    let far = alone.iter().zip(&outputs).map(|(a, b)| (a - b).abs());
    assert!(far.fold(0.0, f32::max) < 1e-6, "{alone:?} {outputs:?}");
    let names: Vec<String> = model.published_tensors().into_iter().map(|t| t.0).collect();
    for name in [
        shared,
        "classification_head.dense.weight",
        "classification_head.out_proj.bias",
    ] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
}

#[test]
fn tokens_are_classified_by_the_encoder() {
    let model = Model::initialise(config(), Head::TokenClassification, 3, Mode::Inference);
    assert_eq!(model.direction(), Direction::Encoder);
    let batch = PackedBatch::from_sequences(&texts());
    assert_eq!(model.outputs(&batch).expect("classes").len(), 9 * 3);
    let names: Vec<String> = model.published_tensors().into_iter().map(|t| t.0).collect();
    assert!(names.contains(&"classifier.weight".to_owned()), "{names:?}");
    assert!(names.contains(&"transformer.encoder.final_layer_norm.weight".to_owned()));
}
