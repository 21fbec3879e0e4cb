//! The encoder families and BART: what they refuse, how ELECTRA's two networks train together, and layers that share parameters.

use std::collections::BTreeMap;
use std::path::PathBuf;

use malmoi_models::{
    DETECTION_FACTOR, GENERATOR_FOLDER, Head, Labels, Mode, Model, ModelConfig, ModelError,
    ModelInfo, OpenOptions, PackedBatch, Pass, Precision, ReplacedTokens, SaveOptions,
    VocabularyTargets,
};
use malmoi_nn::{Key, Purpose};
use serde_json::{Value, json};

fn bert_keys(model_type: &str) -> Value {
    json!({"model_type": model_type, "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
           "intermediate_size": 24, "max_position_embeddings": 20, "initializer_range": 0.3})
}

fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

fn config(json: &Value) -> ModelConfig {
    ModelConfig::from_json(json, false).expect("a valid configuration")
}

fn temporary() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("model");
    (directory, path)
}

fn values(model: &Model) -> BTreeMap<String, Vec<f32>> {
    let mut values = BTreeMap::new();
    model.read(|info, parameter| {
        values.insert(info.name.clone(), parameter.to_vec());
    });
    values
}

#[test]
fn unsupported_settings_of_every_family_are_refused_by_name() {
    let xlm =
        json!({"model_type": "xlm", "vocab_size": 40, "emb_dim": 16, "n_layers": 2, "n_heads": 4});
    let distilbert = json!({"model_type": "distilbert", "vocab_size": 40, "dim": 16, "n_heads": 4});
    let bart = json!({"model_type": "bart", "vocab_size": 40, "d_model": 16, "encoder_attention_heads": 4,
                      "decoder_attention_heads": 4});
    for (base, key, value) in [
        (
            bert_keys("roberta"),
            "position_embedding_type",
            json!("relative_key_query"),
        ),
        (bert_keys("roberta"), "hidden_act", json!("softsign")),
        (bert_keys("roberta"), "is_decoder", json!(true)),
        (bert_keys("roberta"), "max_position_embeddings", json!(2)),
        (
            bert_keys("xlm-roberta"),
            "tie_word_embeddings",
            json!(false),
        ),
        (bert_keys("xlm-roberta"), "surprise", json!(1)),
        (
            bert_keys("albert"),
            "position_embedding_type",
            json!("relative_key"),
        ),
        (bert_keys("albert"), "num_hidden_groups", json!(3)),
        (bert_keys("albert"), "inner_group_num", json!(0)),
        (bert_keys("albert"), "embedding_size", json!("wide")),
        (bert_keys("electra"), "summary_type", json!("mean")),
        (bert_keys("electra"), "summary_activation", json!("tanh")),
        (bert_keys("electra"), "hidden_size", json!(18)),
        (
            bert_keys("electra"),
            "position_embedding_type",
            json!("relative_key"),
        ),
        (distilbert.clone(), "activation", json!("softsign")),
        (distilbert.clone(), "dim", json!(18)),
        (distilbert, "dropout", json!(1.5)),
        (xlm.clone(), "asm", json!(true)),
        (xlm.clone(), "is_encoder", json!(false)),
        (xlm.clone(), "summary_type", json!("last")),
        (xlm.clone(), "summary_activation", json!("tanh")),
        (xlm, "n_langs", json!(0)),
        (bart.clone(), "encoder_layerdrop", json!(0.1)),
        (bart.clone(), "decoder_attention_heads", json!(5)),
        (bart, "normalize_before", json!(true)),
    ] {
        let found = ModelConfig::from_json(&with(base.clone(), key, value), false);
        let message = found.expect_err(key).to_string();
        assert!(message.contains(key), "{base} {key}: {message}");
    }
}

#[test]
fn languages_are_checked_against_the_table() {
    let xlm = json!({"model_type": "xlm", "vocab_size": 40, "emb_dim": 16, "n_layers": 1, "n_heads": 4, "n_langs": 2,
                     "max_position_embeddings": 8});
    let model = |json: &Value| Model::initialise(config(json), Head::None, 1, Mode::Inference);
    let batch = |language| PackedBatch::from_sequences(&[vec![3, 4]]).with_languages([0, language]);
    assert!(model(&xlm).last_hidden(&batch(1)).is_ok());
    assert!(
        model(&xlm).last_hidden(&batch(2)).is_err(),
        "a third language"
    );
    assert!(
        model(&bert_keys("bert")).last_hidden(&batch(0)).is_err(),
        "languages for a model without"
    );
    assert_ne!(
        model(&xlm).last_hidden(&batch(0)).expect("states"),
        model(&xlm).last_hidden(&batch(1)).expect("states"),
        "the language counts"
    );
}

#[test]
fn sinusoidal_positions_are_a_table_that_starts_at_the_sinusoids() {
    let json = json!({"model_type": "distilbert", "vocab_size": 40, "dim": 16, "n_layers": 1, "n_heads": 4, "hidden_dim": 24,
                      "max_position_embeddings": 12, "sinusoidal_pos_embds": true});
    let model = Model::initialise(config(&json), Head::None, 1, Mode::Inference);
    let table = &values(&model)["embeddings.position.weight"];
    assert_eq!(table[..16], [0.0, 1.0].repeat(8));
    assert!(
        (table[3 * 16] - 3.0_f32.sin()).abs() < 1e-6,
        "{}",
        table[3 * 16]
    );
    assert_eq!(
        model.config().to_json(Head::None)["sinusoidal_pos_embds"],
        true
    );
}

/// Replaces the weights of a model directory.
fn rewrite(directory: &std::path::Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let named: Vec<_> = tensors
        .iter()
        .map(|(name, shape, values)| malmoi_checkpoint::NamedTensor {
            name: name.as_str().into(),
            shape: shape.clone(),
            data: values.as_slice().into(),
        })
        .collect();
    let bytes = malmoi_checkpoint::to_safetensors_bytes(&named, malmoi_checkpoint::FORMAT_PT);
    std::fs::write(directory.join("model.safetensors"), bytes.expect("bytes")).expect("written");
}

// --- layers that share their parameters ---------------------------------------------------------------------------------

/// Models of four layers whose layers can share, with what they are trained on.
fn of_four_layers() -> Vec<(Value, Head, PackedBatch)> {
    let batch = || PackedBatch::from_sequences(&[vec![5, 6, 7, 8], vec![9, 3]]);
    let gpt = |model_type: &str| json!({"model_type": model_type, "vocab_size": 40, "n_embd": 16, "n_layer": 4, "n_head": 4, "n_positions": 20});
    let distilbert = json!({"model_type": "distilbert", "vocab_size": 40, "dim": 16, "n_layers": 4, "n_heads": 4,
                            "hidden_dim": 24, "max_position_embeddings": 20});
    let llama = json!({"model_type": "llama", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 4,
                       "num_attention_heads": 4, "intermediate_size": 24, "max_position_embeddings": 20});
    let t5 = json!({"model_type": "t5", "vocab_size": 40, "d_model": 16, "d_kv": 4, "num_heads": 4, "d_ff": 24,
                    "num_layers": 4});
    let bart = json!({"model_type": "bart", "vocab_size": 40, "d_model": 16, "encoder_layers": 4, "decoder_layers": 4,
                      "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 24,
                      "decoder_ffn_dim": 24, "max_position_embeddings": 20});
    let four = |json| with(json, "num_hidden_layers", json!(4));
    vec![
        (four(bert_keys("bert")), Head::MaskedLm, batch()),
        (four(bert_keys("roberta")), Head::MaskedLm, batch()),
        (four(bert_keys("electra")), Head::MaskedLm, batch()),
        (distilbert, Head::MaskedLm, batch()),
        (gpt("openai-gpt"), Head::CausalLm, batch()),
        (gpt("gpt2"), Head::CausalLm, batch()),
        (llama, Head::CausalLm, batch()),
        (bart, Head::Seq2SeqLm, batch().with_source(batch())),
        (t5, Head::Seq2SeqLm, batch().with_source(batch())),
    ]
}

#[test]
fn shared_layers_are_one_set_of_parameters() {
    for (base, head, batch) in of_four_layers() {
        let shared = with(base.clone(), "num_hidden_groups", json!(2));
        let model = Model::initialise(config(&shared), head, 3, Mode::Training);
        let count = |model: &Model| {
            let names = values(model).into_keys();
            names.filter(|name| name.contains("layers.")).count()
        };
        let plain = Model::initialise(config(&base), head, 3, Mode::Inference);
        assert_eq!(2 * count(&model), count(&plain), "{shared}");

        let (_keep, path) = temporary();
        model.save(&path, &SaveOptions::default()).expect("saved");
        let reopened = Model::open(&path, &OpenOptions::default()).expect("opened");
        assert_eq!(values(&reopened), values(&model), "{shared}");
        // Without the key, as Python reads the file, the layers are separate and equal.
        let file = path.join("config.json");
        let mut read: Value =
            serde_json::from_slice(&std::fs::read(&file).expect("read")).expect("JSON");
        read.as_object_mut()
            .expect("an object")
            .remove("num_hidden_groups");
        std::fs::write(&file, read.to_string()).expect("written");
        let unshared = OpenOptions {
            mode: Mode::Training,
            ..OpenOptions::default()
        };
        let unshared = Model::open(&path, &unshared).expect("opened");
        assert_eq!(
            unshared.last_hidden(&batch).expect("states"),
            model.last_hidden(&batch).expect("states"),
            "{shared}"
        );
        // Their gradients add up to the shared block's.
        let labels = Labels::Vocabulary(VocabularyTargets {
            rows: [1, 4].into(),
            targets: [2, 11].into(),
            weights: [0.5, 0.5].into(),
        });
        let gradients = |model: &Model| -> BTreeMap<String, Vec<f32>> {
            let pass = Pass::inference();
            let (_, gradients) = model
                .loss_and_gradients(&batch, &labels, &pass)
                .expect("gradients");
            let named = gradients.into_iter();
            named
                .map(|(info, gradient)| (info.name, gradient.expect("a gradient")))
                .collect()
        };
        let (ours, theirs) = (gradients(&model), gradients(&unshared));
        for (name, gradient) in &ours {
            let parts: Vec<&Vec<f32>> = match name.split_once("layers.") {
                None => vec![&theirs[name]],
                Some((stack, rest)) => {
                    let (block, rest) = rest.split_once('.').expect("a layer");
                    let block: usize = block.parse().expect("a number");
                    let layers = [2 * block, 2 * block + 1];
                    layers
                        .map(|layer| &theirs[&format!("{stack}layers.{layer}.{rest}")])
                        .into()
                }
            };
            for (i, found) in gradient.iter().enumerate() {
                let sum: f32 = parts.iter().map(|part| part[i]).sum();
                let size: f32 = parts.iter().map(|part| part[i].abs()).sum();
                // Two sums of the same terms in another order.
                assert!(
                    (found - sum).abs() <= 1e-5 * (1.0 + size),
                    "{name}[{i}]: {found} {sum}"
                );
            }
        }
    }
}

#[test]
fn files_whose_layers_differ_are_no_shared_model() {
    for (base, head, _) in of_four_layers() {
        let model = Model::initialise(config(&base), head, 3, Mode::Inference);
        let (_keep, path) = temporary();
        model.save(&path, &SaveOptions::default()).expect("saved");
        let file = path.join("config.json");
        let read: Value =
            serde_json::from_slice(&std::fs::read(&file).expect("read")).expect("JSON");
        std::fs::write(&file, with(read, "num_hidden_groups", json!(2)).to_string())
            .expect("written");
        let error = Model::open(&path, &OpenOptions::default()).expect_err("layers that differ");
        assert!(
            matches!(error, ModelError::NotShared { .. }),
            "{base}: {error}"
        );
    }
}

#[test]
fn layers_that_differ_by_more_than_their_weights_are_not_shared() {
    let gpt2 = json!({"model_type": "gpt2", "vocab_size": 40, "n_embd": 16, "n_layer": 4, "n_head": 4, "n_positions": 20,
                      "num_hidden_groups": 2});
    for (key, value) in [
        ("attention_band", json!(4)),
        ("scale_attn_by_inverse_layer_idx", json!(true)),
    ] {
        let refused = ModelConfig::from_json(&with(gpt2.clone(), key, value), false);
        let message = refused.expect_err(key).to_string();
        assert!(
            message.contains("num_hidden_groups") && message.contains(key),
            "{message}"
        );
    }
}

#[test]
fn a_shared_block_stays_shared_after_an_update() {
    let json = with(bert_keys("albert"), "embedding_size", json!(12));
    let model = Model::initialise(config(&json), Head::MaskedLm, 3, Mode::Training);
    let batch = PackedBatch::from_sequences(&[vec![5, 6, 7, 8]]);
    let labels = Labels::Vocabulary(VocabularyTargets {
        rows: [1].into(),
        targets: [9].into(),
        weights: [1.0].into(),
    });
    let step = |model: Model| {
        let pass = Pass::inference();
        let (report, gradients) = model
            .loss_and_gradients(&batch, &labels, &pass)
            .expect("gradients");
        let mut gradients = gradients.into_iter();
        let model = model.update(|_, parameter| {
            let gradient = gradients
                .next()
                .expect("one a parameter")
                .1
                .expect("a gradient");
            parameter
                .iter_mut()
                .zip(gradient)
                .for_each(|(p, g)| *p -= 0.05 * g);
        });
        (report.loss, model)
    };
    let (first, model) = step(model);
    let (second, model) = step(model);
    assert!(second < first, "{second} {first}");
    let blocks = values(&model)
        .into_keys()
        .filter(|name| name.starts_with("layers."));
    assert!(blocks.into_iter().all(|name| name.starts_with("layers.0.")));
}

// --- ELECTRA's generator and discriminator ------------------------------------------------------------------------------

fn pair_config() -> ModelConfig {
    let discriminator = with(bert_keys("electra"), "embedding_size", json!(12));
    let mut generator = discriminator.clone();
    for (key, value) in [
        ("hidden_size", 8),
        ("num_attention_heads", 2),
        ("intermediate_size", 12),
        ("num_hidden_layers", 2),
        ("num_hidden_groups", 1),
    ] {
        generator[key] = json!(value);
    }
    config(&discriminator)
        .with_generator(config(&generator))
        .expect("a pair")
}

fn blanks() -> PackedBatch {
    PackedBatch::from_sequences(&[vec![3, 4, 9, 4, 7, 1], vec![8, 4, 5]])
}

fn hidden_tokens(sample: u64, detection_factor: f32) -> ReplacedTokens {
    ReplacedTokens {
        vocabulary: VocabularyTargets {
            rows: [1, 3, 7].into(),
            targets: [10, 11, 12].into(),
            weights: [0.5, 0.25, 0.25].into(),
        },
        token_weight: 1.0 / 9.0,
        detection_factor,
        sample: Key::new(sample, Purpose::Sampling, 0),
    }
}

/// The loss, loss and correct share of each part, gradients by name.
type Joint = (f64, Vec<(f64, f64)>, BTreeMap<String, Vec<f32>>);

fn joint(model: &Model, labels: ReplacedTokens) -> Joint {
    let labels = Labels::ReplacedTokens(labels);
    let (report, gradients) = model
        .loss_and_gradients(&blanks(), &labels, &Pass::inference())
        .expect("gradients");
    let evaluated = model.loss(&blanks(), &labels).expect("a loss");
    assert_eq!(evaluated, report, "evaluation draws the same tokens");
    let parts = report
        .parts
        .iter()
        .map(|part| (part.loss, part.correct.expect("a choice")))
        .collect();
    let names: Vec<&str> = report.parts.iter().map(|part| part.name).collect();
    assert_eq!(names, ["mlm", "rtd"]);
    let gradients = gradients.into_iter().map(|(info, gradient)| {
        let gradient = gradient.unwrap_or_else(|| panic!("{} has no gradient", info.name));
        (info.name, gradient)
    });
    (report.loss, parts, gradients.collect())
}

#[test]
fn both_networks_learn_from_one_loss_and_nothing_passes_the_sampling() {
    let model = Model::initialise(pair_config(), Head::ReplacedTokens, 5, Mode::Training);
    let (loss, parts, gradients) = joint(&model, hidden_tokens(1, DETECTION_FACTOR));
    let [(mlm, _), (rtd, _)] = parts[..] else {
        panic!("two parts")
    };
    assert!(
        (loss - (mlm + 50.0 * rtd)).abs() < 1e-3 * loss,
        "{loss} = {mlm} + 50 · {rtd}"
    );

    // The generator alone has the same loss, and the same gradients where the discriminator has no part.
    let generator = model
        .generator()
        .expect("a generator")
        .into_mode(Mode::Training);
    let labels = Labels::Vocabulary(hidden_tokens(1, 1.0).vocabulary);
    let (alone, own) = generator
        .loss_and_gradients(&blanks(), &labels, &Pass::inference())
        .expect("gradients");
    assert_eq!(alone.loss, mlm);
    let (_, _, without) = joint(&model, hidden_tokens(1, 0.0));
    for (info, gradient) in own {
        let gradient = gradient.expect("a gradient");
        match info.name.starts_with("embeddings.") {
            true => {
                assert_eq!(without[&info.name], gradient, "{}", info.name);
                assert_ne!(
                    gradients[&info.name], gradient,
                    "{} belongs to both",
                    info.name
                );
            }
            false => {
                let name = format!("generator.{}", info.name);
                assert_eq!(without[&name], gradient, "{name}");
                assert_eq!(
                    gradients[&name], gradient,
                    "{name} must not feel the discriminator"
                );
            }
        }
    }
    // The discriminator's gradients are proportional to its factor.
    for (name, gradient) in &gradients {
        if name.starts_with("layers.") {
            assert!(without[name].iter().all(|x| *x == 0.0), "{name}");
            assert!(gradient.iter().any(|x| *x != 0.0), "{name}");
        }
    }
    assert_ne!(
        joint(&model, hidden_tokens(2, 50.0)).1,
        parts,
        "another key draws other tokens"
    );
}

#[test]
fn both_networks_run_in_bf16() {
    let model = Model::initialise(pair_config(), Head::ReplacedTokens, 5, Mode::Training);
    let (_, exact, _) = joint(&model, hidden_tokens(1, DETECTION_FACTOR));
    let (_, rounded, gradients) = joint(
        &model.with_precision(Precision::Bf16),
        hidden_tokens(1, DETECTION_FACTOR),
    );
    assert_ne!(exact, rounded, "bf16 rounds");
    // Eight bits of mantissa through one and two blocks of width 8 and 16.
    assert!(
        (exact[0].0 - rounded[0].0).abs() < 0.05 * exact[0].0,
        "{exact:?} {rounded:?}"
    );
    assert!(gradients.values().flatten().all(|x| x.is_finite()));
}

#[test]
fn the_generator_s_tokens_follow_its_distribution() {
    // A generator that is sure of the originals replaces nothing: the discriminator's labels are all zero, and one that always
    // says "original" is right everywhere.
    let mut model = Model::initialise(pair_config(), Head::ReplacedTokens, 5, Mode::Training);
    let set = |name: &str, parameter: &mut [f32]| match name {
        "generator.vocabulary.bias" => {
            parameter.fill(0.0);
            parameter[7] = 1e4;
        }
        "detector.output.weight" => parameter.fill(0.0),
        "detector.output.bias" => parameter.fill(-1.0),
        _ => {}
    };
    let labels = |targets: [u32; 3]| {
        let mut labels = hidden_tokens(1, 50.0);
        labels.vocabulary.targets = targets.into();
        labels
    };
    model = model.update(|info, parameter| set(&info.name, parameter));
    let (_, parts, _) = joint(&model, labels([7; 3]));
    assert!(
        (parts[1].1 - 1.0).abs() < 1e-6,
        "nothing was replaced: {parts:?}"
    );
    let (_, parts, _) = joint(&model, labels([7, 8, 9]));
    assert!(
        (parts[1].1 - 7.0 / 9.0).abs() < 1e-6,
        "two of nine tokens were replaced: {parts:?}"
    );
}

#[test]
fn a_pair_is_saved_as_two_models_and_opens_again() {
    let model = Model::initialise(pair_config(), Head::ReplacedTokens, 5, Mode::Training);
    let (_keep, path) = temporary();
    model.save(&path, &SaveOptions::default()).expect("saved");
    let options = OpenOptions {
        mode: Mode::Training,
        ..OpenOptions::default()
    };
    let opened = Model::open_with_generator(&path, &options).expect("opened");
    assert_eq!(values(&opened), values(&model));
    assert_eq!(opened.config(), model.config());

    // Each is a model of its own.
    let discriminator = Model::open(&path, &OpenOptions::default()).expect("the discriminator");
    assert_eq!(discriminator.head(), Head::ReplacedTokens);
    let batch = blanks();
    assert_eq!(
        discriminator.outputs(&batch).expect("logits"),
        model.outputs(&batch).expect("logits")
    );
    let folder = path.join(GENERATOR_FOLDER);
    let generator = Model::open(&folder, &OpenOptions::default()).expect("the generator");
    assert_eq!(generator.head(), Head::MaskedLm);

    // A generator of another training.
    let mut published = generator.published_tensors();
    let shared = published
        .iter_mut()
        .find(|tensor| tensor.0.contains("word_embeddings"));
    shared.expect("the embeddings").2[0] += 1.0;
    rewrite(&folder, &published);
    let error = Model::open_with_generator(&path, &options).expect_err("embeddings that differ");
    assert!(
        matches!(error, ModelError::UntiedEmbeddings { .. }),
        "{error}"
    );
}

#[test]
fn a_generator_must_fit_its_discriminator() {
    let electra = bert_keys("electra");
    let other = config(&with(electra.clone(), "vocab_size", json!(41)));
    let error = config(&electra)
        .with_generator(other)
        .expect_err("another vocabulary");
    assert!(error.to_string().contains("vocab_size"), "{error}");
    let error = config(&electra)
        .with_generator(config(&bert_keys("bert")))
        .expect_err("a BERT");
    assert!(matches!(error, ModelError::NoPair { .. }), "{error}");
    // And a discriminator without one cannot be trained with it.
    let alone = Model::initialise(config(&electra), Head::ReplacedTokens, 1, Mode::Training);
    let labels = Labels::ReplacedTokens(hidden_tokens(1, 50.0));
    let error = alone.loss(&blanks(), &labels).expect_err("no generator");
    assert!(error.to_string().contains("generator"), "{error}");
}

#[test]
fn a_pair_counts_its_shared_embeddings_once() {
    let count = |config: &ModelConfig, head| ModelInfo::new(config, head).parameters;
    let pair = pair_config();
    let ModelConfig::Encoder(encoder) = &pair else {
        panic!("an encoder")
    };
    let generator = ModelConfig::Encoder(*encoder.generator.clone().expect("a generator"));
    let discriminator = config(&pair.to_json(Head::ReplacedTokens));
    let embeddings = 12 * (40 + 20 + 2 + 2);
    assert_eq!(
        count(&pair, Head::ReplacedTokens),
        count(&discriminator, Head::ReplacedTokens) + count(&generator, Head::MaskedLm)
            - embeddings
    );
}
