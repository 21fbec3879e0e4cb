//! Activations computed again in the backward pass change no bit of any gradient, in any architecture.

use std::collections::BTreeSet;

use std::path::{Path, PathBuf};

use malmoi_models::{
    Direction, Head, Labels, Mode, Model, OpenOptions, PackedBatch, ParameterInfo, Pass, Precision,
    VocabularyTargets,
};
use malmoi_nn::{Key, Purpose};

/// A gradient a parameter, as bits.
type Gradients = Vec<(ParameterInfo, Option<Vec<u32>>)>;

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden")
}

fn gradients(model: &Model, recompute: bool) -> (u64, Gradients) {
    let mut batch = PackedBatch::from_sequences(&[vec![3, 9, 4, 7, 1], vec![8], vec![6, 6, 2]]);
    if model.config().direction() == Direction::EncoderDecoder {
        let sources = [vec![5, 4, 3], vec![7, 7], vec![1, 2, 3, 4]];
        batch = batch.with_source(PackedBatch::from_sequences(&sources));
    }
    if model.config().n_languages() > 0 {
        batch = batch.with_languages(vec![1; 9]);
    }
    let labels = Labels::Vocabulary(VocabularyTargets {
        rows: [0, 3, 5, 7].into(),
        targets: [4, 9, 1, 2].into(),
        weights: [0.4, 0.3, 0.2, 0.1].into(),
    });
    let pass = Pass::training(Key::new(5, Purpose::Dropout, 2)).recomputing(recompute);
    let (report, gradients) = model
        .loss_and_gradients(&batch, &labels, &pass)
        .expect("gradients");
    let bits = |gradient: Vec<f32>| gradient.into_iter().map(f32::to_bits).collect();
    let gradients = gradients.into_iter();
    let gradients = gradients.map(|(info, gradient)| (info, gradient.map(bits)));
    (report.loss.to_bits(), gradients.collect())
}

#[test]
fn gradients_are_the_same_to_the_bit() {
    let mut architectures = BTreeSet::new();
    for entry in std::fs::read_dir(golden_dir()).expect("golden references") {
        let dir = entry.expect("an entry").path();
        if !dir.join("config.json").is_file() || !dir.join("cases.json").is_file() {
            continue;
        }
        let options = OpenOptions {
            mode: Mode::Training,
            ..OpenOptions::default()
        };
        let model = Model::open(&dir, &options).expect("a golden model");
        let head = model.head();
        if !head.has_vocabulary() || matches!(head, Head::Pretraining | Head::DoubleHeads) {
            continue;
        }
        architectures.insert(model.config().model_type().to_owned());
        for precision in Precision::ALL {
            let model = model.clone().with_precision(precision);
            let (kept, again) = (gradients(&model, false), gradients(&model, true));
            assert_eq!(kept.0, again.0, "{}: {precision}: the loss", dir.display());
            let pairs = kept.1.iter().zip(&again.1);
            let differ: Vec<&str> = pairs
                .filter(|((_, kept), (_, again))| kept != again)
                .map(|((info, _), _)| info.name.as_str())
                .collect();
            assert!(
                differ.is_empty(),
                "{}: {precision}: {differ:?}",
                dir.display()
            );
        }
    }
    // One of each family: post-norm and pre-norm, shared blocks, relative biases, cross-attention, gates.
    for expected in [
        "albert", "bart", "bert", "electra", "gpt2", "gpt_neo", "llama", "t5", "xlm",
    ] {
        assert!(
            architectures.contains(expected),
            "{expected}: {architectures:?}"
        );
    }
}

#[test]
fn gradients_add_up_over_batches() {
    // The second backward pass meets parameters whose graph the first has consumed.
    let options = OpenOptions {
        mode: Mode::Training,
        ..OpenOptions::default()
    };
    let model = Model::open(&golden_dir().join("t5-v1_0"), &options).expect("a golden model");
    let first = gradients(&model, true);
    assert!(
        first == gradients(&model, true),
        "a pass leaves nothing behind"
    );
    assert!(first == gradients(&model, false));
}
