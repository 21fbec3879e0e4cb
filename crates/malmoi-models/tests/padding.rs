//! The padding token's vector: not trained where published code leaves it alone, trained where it is like any other.

use malmoi_models::{
    ClassTargets, Head, Labels, Mode, Model, ModelConfig, PackedBatch, Pass, VocabularyTargets,
};
use serde_json::{Value, json};

/// A text in which token 3 stands like any other.
fn batch() -> PackedBatch {
    PackedBatch::from_sequences(&[vec![5, 3, 7, 3]])
}

/// Whether the vector of token 3 gets a gradient in `head` of this configuration.
fn is_trained(json: &Value, head: Head, labels: Labels) -> bool {
    let config = ModelConfig::from_json(json, false).expect("a valid configuration");
    let model = Model::initialise(config, head, 1, Mode::Training);
    let (_, gradients) = model
        .loss_and_gradients(&batch(), &labels, &Pass::inference())
        .expect("gradients");
    let table = |name: &str| name == "token.weight" || name == "embeddings.token.weight";
    let (info, gradient) = (gradients.into_iter())
        .find(|(info, _)| table(&info.name))
        .expect("a table of tokens");
    let d = info.shape[1];
    let gradient = gradient.expect("a gradient");
    assert!(
        gradient[5 * d..6 * d].iter().any(|g| *g != 0.0),
        "{json}: token 5 has no gradient"
    );
    gradient[3 * d..4 * d].iter().any(|g| *g != 0.0)
}

fn next_token() -> Labels {
    Labels::Vocabulary(VocabularyTargets {
        rows: [0, 2].into(),
        targets: [8, 9].into(),
        weights: [0.5, 0.5].into(),
    })
}

#[test]
fn llama_leaves_its_padding_alone_and_gpt2_does_not() {
    let llama = |pad: Value| {
        json!({"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
               "intermediate_size": 12, "pad_token_id": pad})
    };
    assert!(!is_trained(&llama(json!(3)), Head::CausalLm, next_token()));
    assert!(is_trained(&llama(json!(2)), Head::CausalLm, next_token()));
    assert!(is_trained(
        &llama(json!(null)),
        Head::CausalLm,
        next_token()
    ));
    let gpt2 = json!({"model_type": "gpt2", "vocab_size": 11, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8,
                      "pad_token_id": 3, "tie_word_embeddings": false});
    assert!(is_trained(&gpt2, Head::CausalLm, next_token()));
}

#[test]
fn an_encoder_without_padding_trains_every_vector() {
    let bert = |model_type: &str, pad: Value| {
        json!({"model_type": model_type, "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
               "intermediate_size": 12, "max_position_embeddings": 8, "embedding_size": 6, "pad_token_id": pad})
    };
    let class = || Labels::Classes(ClassTargets::mean(vec![1]));
    for model_type in ["albert", "electra"] {
        let head = Head::SequenceClassification;
        assert!(!is_trained(&bert(model_type, json!(3)), head, class()));
        assert!(is_trained(&bert(model_type, json!(null)), head, class()));
    }
    // RoBERTa counts its positions from the padding token.
    let mut roberta = bert("roberta", json!(null));
    roberta
        .as_object_mut()
        .expect("an object")
        .remove("embedding_size");
    let refused = ModelConfig::from_json(&roberta, false).expect_err("no padding token");
    assert!(refused.to_string().contains("pad_token_id"), "{refused}");
}

#[test]
fn null_is_not_absence_where_it_means_something_else() {
    let electra = |activation: Value| {
        json!({"model_type": "electra", "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
               "intermediate_size": 12, "summary_activation": activation})
    };
    assert!(ModelConfig::from_json(&electra(json!("gelu")), false).is_ok());
    // Published code computes without an activation then.
    let refused = ModelConfig::from_json(&electra(json!(null)), false).expect_err("no activation");
    assert!(
        refused.to_string().contains("summary_activation"),
        "{refused}"
    );
}
