//! Memory of a long stream of predictions. Alone in its process, because buffers are shared by everything in one.

use malmoi_infer::predict::{PredictOptions, predict};
use malmoi_models::{Head, Mode, Model, ModelConfig, kept_bytes};
use malmoi_tasks::{Case, Classify, Sequence};
use malmoi_text::{Algorithm, TrainOptions, train_from_iter};
use serde_json::json;

/// A case of so many tokens.
fn case(tokens: usize) -> Case {
    Case {
        inputs: vec![Sequence {
            ids: vec![1; tokens],
            segments: vec![0; tokens],
        }],
        ..Case::default()
    }
}

#[test]
fn windows_of_many_sizes_do_not_add_up() {
    let config = json!({
        "model_type": "bert", "vocab_size": 40, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 256, "max_position_embeddings": 64, "num_labels": 2,
    });
    let model = Model::initialise(
        ModelConfig::from_json(&config, false).unwrap(),
        Head::SequenceClassification,
        1,
        Mode::Inference,
    );
    let tokenizer = train_from_iter(
        [Ok("one two three".to_owned())].into_iter(),
        &TrainOptions::new(Algorithm::WordPiece, 40),
        &mut |_| (),
    )
    .unwrap()
    .tokenizer;
    let options = PredictOptions::default();
    let mut kept = Vec::new();
    for window in 0..60 {
        // Two full batches and a rest that is now short, now long: 20 to 4,000 tokens.
        let rest = 1 + window * 67 % 200;
        let cases = vec![case(20); 2 * 204 + rest];
        let said = predict(
            &model,
            &tokenizer,
            &Classify::default(),
            &cases,
            &options,
            &mut |_| (),
        )
        .unwrap();
        assert_eq!(said.len(), cases.len());
        kept.push(kept_bytes());
    }
    let (early, late) = (&kept[..10], &kept[10..]);
    let most = *early.iter().max().unwrap();
    assert!(most > 0, "nothing was kept, so nothing was measured");
    assert!(
        late.iter().all(|&bytes| bytes <= most + most / 4),
        "{kept:?}"
    );
}
