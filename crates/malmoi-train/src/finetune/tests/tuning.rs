//! What is trained: frozen parameters, rates by layer, adapters, weights of classes, several runs.

use malmoi_models::ParameterInfo;

use super::*;
use crate::data::{EpochOrder, Examples as _};
use crate::training::{ADAPTER_FOLDER, AdapterOptions, Adapters, StepOptions, Trainer, Tuning};

fn small(mode: Mode) -> Model {
    let config = json!({
        "model_type": "bert", "vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 8, "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1},
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3,
    });
    let config = ModelConfig::from_json(&config, false).unwrap();
    Model::initialise(config, Head::SequenceClassification, 3, mode)
}

fn batch() -> MicroBatch {
    let examples: Vec<Example> = (0..4_u32)
        .map(|i| Example {
            ids: vec![2, 5 + i, 9 - i, 3],
            starts: vec![0],
            positions: vec![0, 1, 2, 3],
            answer: Some(Answer::Class(Weighted::plain(i % 2))),
            ..Example::default()
        })
        .collect();
    MicroBatch::pack(&examples)
}

fn trainer(model: Model, tuning: Tuning) -> Trainer {
    recomputing(model, tuning, false)
}

fn recomputing(model: Model, tuning: Tuning, recompute: bool) -> Trainer {
    let rule = crate::optim::Rule::Sgd(Default::default());
    let options = StepOptions {
        seed: 1,
        lr: 0.1,
        schedule: crate::config::ScheduleSection::default().over(10, 0.1, 16),
        clip_norm: 0.0,
        decay_all: false,
        recompute,
    };
    Trainer::new(
        model,
        crate::optim::Optimizer::new(rule).unwrap(),
        0,
        options,
    )
    .with_tuning(tuning)
}

fn values(model: &Model) -> Vec<(String, Vec<f32>)> {
    let mut all = Vec::new();
    model.read(|info, values| all.push((info.name.clone(), values.to_vec())));
    all
}

#[test]
fn frozen_parameters_get_no_gradient_and_the_others_the_same_as_before() {
    let all = trainer(small(Mode::Training), Tuning::default());
    let whole = all.gradients(&[batch()]).unwrap();
    let frozen = |name: &str| name.starts_with("embeddings") || name.starts_with("layers.0");
    let factors = (small(Mode::Inference).parameters().into_iter())
        .filter(|info| frozen(&info.name))
        .map(|info| (info.name, 0.0));
    let tuning = Tuning {
        factors: factors.collect(),
        adapters: None,
    };
    let mut some = trainer(small(Mode::Training), tuning);
    let before = values(some.model());
    let part = some.gradients(&[batch()]).unwrap();
    assert_eq!(whole.loss, part.loss);
    for ((info, a), (_, b)) in whole.gradients.iter().zip(&part.gradients) {
        match frozen(&info.name) {
            true => assert!(a.is_some() && b.is_none(), "{}", info.name),
            false => assert_eq!(a, b, "{}", info.name),
        }
    }
    // Frozen in the middle, with activations that are computed again.
    let middle = |name: &str| name.starts_with("layers.1.attention");
    let names = whole.gradients.iter().map(|(info, _)| info.name.clone());
    let tuning = Tuning {
        factors: names
            .filter(|name| middle(name))
            .map(|name| (name, 0.0))
            .collect(),
        adapters: None,
    };
    let again = recomputing(small(Mode::Training), tuning, true);
    let again = again.gradients(&[batch()]).unwrap();
    for ((info, a), (_, b)) in whole.gradients.iter().zip(&again.gradients) {
        match middle(&info.name) {
            true => assert!(b.is_none(), "{}", info.name),
            false => assert_eq!(a, b, "{}", info.name),
        }
    }
    for _ in 0..2 {
        some.advance(&[batch()]).unwrap();
    }
    for ((name, old), (_, new)) in before.iter().zip(values(some.model())) {
        assert_eq!(*old == new, frozen(name), "{name}");
    }
}

#[test]
fn rates_fall_from_the_head_to_the_embeddings() {
    let dir = tempfile::tempdir().unwrap();
    let config = configured(
        dir.path(),
        dir.path(),
        dir.path(),
        &["tune.layer_decay=0.5", "tune.freeze_layers=1"],
    )
    .unwrap();
    let tuning = tune::tuning(&config, &small(Mode::Inference), None, None).unwrap();
    assert_eq!(tuning.factor("classifier.weight"), 1.0);
    assert_eq!(tuning.factor("layers.1.attention.query.weight"), 0.5);
    assert_eq!(tuning.factor("layers.0.attention.query.weight"), 0.0);
    assert_eq!(tuning.factor("embeddings.token.weight"), 0.0);
    let config = configured(
        dir.path(),
        dir.path(),
        dir.path(),
        &["tune.layer_decay=0.5"],
    )
    .unwrap();
    let tuning = tune::tuning(&config, &small(Mode::Inference), None, None).unwrap();
    assert_eq!(tuning.factor("layers.0.attention.query.weight"), 0.25);
    assert_eq!(tuning.factor("embeddings.token.weight"), 0.125);
    let config = configured(
        dir.path(),
        dir.path(),
        dir.path(),
        &["tune.freeze=[\"layer.0\"]"],
    )
    .unwrap();
    let error = tune::tuning(&config, &small(Mode::Inference), None, None).unwrap_err();
    assert!(error.to_string().contains("layer.0"), "{error}");
    assert!(configured(dir.path(), dir.path(), dir.path(), &["tune.layer_decay=0"]).is_err());
}

fn adapters(model: &Model, rank: usize, targets: &[&str]) -> Adapters {
    let options = AdapterOptions {
        rank,
        alpha: 6.0,
        targets: targets.iter().map(ToString::to_string).collect(),
        seed: 5,
        base: "base".into(),
        task_type: Some("SEQ_CLS"),
    };
    let whole = |info: &ParameterInfo| {
        info.name.starts_with("classifier") || info.name.starts_with("pooler")
    };
    Adapters::new(model, options, whole).unwrap()
}

/// Everything but head and adapters frozen.
fn adapted(model: &Model, adapters: Adapters) -> Tuning {
    let body = model.parameters().into_iter().map(|info| info.name);
    let body = body.filter(|name| !name.starts_with("classifier") && !name.starts_with("pooler"));
    Tuning {
        factors: body.map(|name| (name, 0.0)).collect(),
        adapters: Some(adapters),
    }
}

#[test]
fn gradients_of_adapters_are_those_of_their_factors() {
    let model = small(Mode::Training);
    let mut trainer = trainer(
        model.clone(),
        adapted(&model, adapters(&model, 2, &["query", "dense"])),
    );
    // The second factor starts as zeros; after some steps both have gradients.
    for _ in 0..3 {
        trainer.advance(&[batch()]).unwrap();
    }
    let mut gradients = trainer.gradients(&[batch()]).unwrap().gradients;
    let adapters = trainer.adapters().unwrap().clone();
    let found = adapters.gradients(&mut gradients);
    let loss = |adapters: &Adapters| {
        let merged = adapters
            .merged(trainer.model().clone())
            .into_mode(Mode::Inference);
        let micro = batch();
        let labels = micro.labels(Counts::of(std::slice::from_ref(&micro)));
        merged.loss(&micro.batch, &labels).unwrap().loss
    };
    let mut checked = 0;
    for (number, (info, gradient)) in found.iter().enumerate() {
        let gradient = gradient.as_ref().unwrap();
        let largest = (0..gradient.len())
            .max_by(|a, b| gradient[*a].abs().total_cmp(&gradient[*b].abs()))
            .unwrap();
        let moved = |by: f32| {
            let mut adapters = adapters.clone();
            adapters.factors_mut()[number][largest] += by;
            loss(&adapters)
        };
        // Losses near 1 in single precision: differences are good to some 1e-4 of the step.
        let step = 2e-2;
        let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
        let wanted = f64::from(gradient[largest]);
        assert!(
            (slope - wanted).abs() < 2e-2 * wanted.abs() + 2e-4,
            "{}: {slope} {wanted}",
            info.name
        );
        checked += 1;
    }
    // Query, and the three dense layers of each of two blocks, two factors each.
    assert_eq!(checked, 2 * 2 * 4);
}

#[test]
fn adapters_change_their_targets_alone_and_are_saved_as_peft_reads_them() {
    let model = small(Mode::Training);
    let fresh = adapters(&model, 3, &[]);
    assert_eq!(
        fresh.n_parameters(),
        2 * 2 * (3 * 16 + 16 * 3),
        "query and value of two blocks"
    );
    // A zero factor: training starts from the model as it is.
    assert_eq!(values(&fresh.merged(model.clone())), values(&model));
    let mut trainer = trainer(model.clone(), adapted(&model, fresh));
    for _ in 0..3 {
        trainer.advance(&[batch()]).unwrap();
    }
    for ((name, old), (_, new)) in values(&model).iter().zip(values(trainer.model())) {
        let trained = name.contains("query.weight")
            || name.contains("value.weight")
            || name.starts_with("classifier")
            || name.starts_with("pooler");
        assert_eq!(*old != new, trained, "{name}");
    }
    let dir = tempfile::tempdir().unwrap();
    let adapters_now = trainer.adapters().unwrap();
    adapters_now.save(dir.path(), trainer.model()).unwrap();
    let config = malmoi_checkpoint::read_json(&dir.path().join("adapter_config.json")).unwrap();
    assert_eq!(
        (
            &config["r"],
            &config["lora_alpha"],
            &config["fan_in_fan_out"]
        ),
        (&json!(3), &json!(6.0), &json!(false))
    );
    assert_eq!(config["target_modules"], json!(["query", "value"]));
    assert_eq!(
        config["modules_to_save"],
        json!(["classifier", "pooler.dense"])
    );
    let tensors =
        malmoi_checkpoint::Tensors::open(dir.path().join("adapter_model.safetensors")).unwrap();
    let (shape, b) = tensors
        .to_f32("base_model.model.bert.encoder.layer.1.attention.self.value.lora_B.weight")
        .unwrap();
    assert_eq!(shape, [16, 3]);
    let (shape, a) = tensors
        .to_f32("base_model.model.bert.encoder.layer.1.attention.self.value.lora_A.weight")
        .unwrap();
    assert_eq!(shape, [3, 16]);
    assert!(tensors.contains("base_model.model.classifier.weight"));
    // W = W0 + alpha / rank · B A, by hand.
    let of = |model: &Model| {
        values(model)
            .into_iter()
            .find(|(name, _)| name == "layers.1.attention.value.weight")
            .unwrap()
            .1
    };
    let (start, now) = (of(&model), of(trainer.model()));
    for row in 0..16 {
        for column in 0..16 {
            let product: f32 = (0..3).map(|k| b[row * 3 + k] * a[k * 16 + column]).sum();
            let expected = start[row * 16 + column] + 2.0 * product;
            assert!((expected - now[row * 16 + column]).abs() < 1e-5);
        }
    }
    let mut again = adapters(&model, 3, &[]);
    again.load(dir.path()).unwrap();
    assert_eq!(
        values(&again.merged(model)),
        values(trainer.model())
            .into_iter()
            .map(|(name, new)| {
                // The head is not part of the factors.
                let old = values(&small(Mode::Inference))
                    .into_iter()
                    .find(|(n, _)| *n == name)
                    .unwrap()
                    .1;
                (
                    name.clone(),
                    if name.starts_with("classifier") || name.starts_with("pooler") {
                        old
                    } else {
                        new
                    },
                )
            })
            .collect::<Vec<_>>()
    );
    let wrong = AdapterOptions {
        rank: 2,
        alpha: 1.0,
        targets: vec!["c_attn".into()],
        seed: 1,
        base: String::new(),
        task_type: Some("SEQ_CLS"),
    };
    let error = Adapters::new(&small(Mode::Inference), wrong, |_| false)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("c_attn") && error.contains("query"),
        "{error}"
    );
}

#[test]
fn packed_layers_of_gpt2_get_one_adapter() {
    let config = json!({"model_type": "gpt2", "vocab_size": 9, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8});
    let config = ModelConfig::from_json(&config, false).unwrap();
    let model = Model::initialise(config, Head::CausalLm, 1, Mode::Inference);
    let options = AdapterOptions {
        rank: 2,
        alpha: 2.0,
        targets: Vec::new(),
        seed: 1,
        base: String::new(),
        task_type: Some("CAUSAL_LM"),
    };
    let mut adapters = Adapters::new(&model, options, |_| false).unwrap();
    assert_eq!(adapters.n_parameters(), 2 * 16 + 48 * 2);
    let dir = tempfile::tempdir().unwrap();
    // One row of B moves one row of query, key and value laid end to end.
    let mut factors = adapters.factors_mut();
    factors[1][2 * 17] = 1.0;
    let first = factors[0][..16].to_vec();
    let merged = adapters.merged(model.clone());
    let key = |model: &Model| {
        values(model)
            .into_iter()
            .find(|(n, _)| n == "layers.0.attention.key.weight")
            .unwrap()
            .1
    };
    let (old, new) = (key(&model), key(&merged));
    for column in 0..16 {
        assert!((new[16 + column] - old[16 + column] - first[column]).abs() < 1e-6);
        assert_eq!(new[column], old[column]);
    }
    adapters.save(dir.path(), &merged).unwrap();
    let config = malmoi_checkpoint::read_json(&dir.path().join("adapter_config.json")).unwrap();
    assert_eq!(
        (&config["target_modules"], &config["fan_in_fan_out"]),
        (&json!(["c_attn"]), &json!(true))
    );
}

#[test]
fn a_run_with_adapters_resumes_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let (model, rows) = small_start(dir.path(), 64);
    let sets = [
        "train.batch_size=8",
        "train.epochs=2",
        "tune.lora.rank=4",
        "optimizer.lr=1e-3",
    ];
    let config = configured(&model, &rows, &rows, &sets).unwrap();
    let factors = format!("{ADAPTER_FOLDER}/adapter_model.safetensors");
    straight_and_resumed(&config, dir.path(), 5, &["model.safetensors", &factors]);
}

#[test]
fn heads_and_blocks_start_anew_where_that_is_asked_for() {
    let model = small(Mode::Inference);
    let tune = TuneSection {
        reset_head: true,
        reset_layers: 1,
        ..TuneSection::default()
    };
    let again = tune::reset(model.clone(), &tune, 99);
    for ((name, old), (_, new)) in values(&model).iter().zip(values(&again)) {
        let anew = name.ends_with(".weight")
            && (name.starts_with("layers.1")
                || name.starts_with("classifier")
                || name.starts_with("pooler"));
        assert_eq!(*old != new, anew, "{name}");
    }
}

#[test]
fn class_weights_make_a_weighted_mean_and_smoothing_reaches_the_loss() {
    let case = |class| malmoi_tasks::Case {
        inputs: vec![malmoi_tasks::Sequence {
            ids: vec![2, 5, 3],
            segments: vec![0; 3],
        }],
        truth: Some(malmoi_tasks::Truth::Class(class)),
        ..Default::default()
    };
    let cases: Vec<malmoi_tasks::Case> = [0, 0, 0, 1].map(case).into();
    let tune = TuneSection {
        class_weights: Some(ClassWeights::Rule("balanced".into())),
        label_smoothing: 0.2,
        ..TuneSection::default()
    };
    let labels = ["a".to_owned(), "b".to_owned()];
    let config = small(Mode::Inference).config().clone();
    let options = tune.examples(&config, &labels, &cases).unwrap();
    assert_eq!(options.class_weights, [4.0 / 6.0, 2.0]);
    let all: Vec<Example> = cases
        .iter()
        .flat_map(|case| examples(case, &options))
        .collect();
    let micro = MicroBatch::pack(&all);
    let Labels::SmoothedClasses(targets, smoothing) =
        micro.labels(Counts::of(std::slice::from_ref(&micro)))
    else {
        panic!("smoothed classes")
    };
    assert_eq!(smoothing, 0.2);
    for (weight, expected) in targets
        .weights
        .iter()
        .zip([1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 0.5])
    {
        assert!((weight - expected).abs() < 1e-6);
    }
    let model = small(Mode::Inference);
    let loss = model
        .loss(
            &micro.batch,
            &Labels::SmoothedClasses(targets.clone(), smoothing),
        )
        .unwrap()
        .loss;
    let plain = model
        .loss(&micro.batch, &Labels::Classes(targets.clone()))
        .unwrap()
        .loss;
    // By hand: 0.8 of the cross-entropy, and 0.1 of that of each of the two classes.
    let of = |class: u32| {
        let all = ClassTargets {
            targets: vec![class; 4].into(),
            weights: targets.weights.clone(),
        };
        model
            .loss(&micro.batch, &Labels::Classes(all))
            .unwrap()
            .loss
    };
    assert!((loss - (0.8 * plain + 0.1 * (of(0) + of(1)))).abs() < 1e-5);
    let named = TuneSection {
        class_weights: Some(ClassWeights::ByLabel([("c".to_owned(), 2.0)].into())),
        ..TuneSection::default()
    };
    let error = named
        .examples(&config, &labels, &cases)
        .unwrap_err()
        .to_string();
    assert!(error.contains("\"c\"") && error.contains("a, b"), "{error}");
}

#[test]
fn a_sweep_goes_on_where_it_was_and_keeps_the_best_model() {
    let dir = tempfile::tempdir().unwrap();
    let train = reviews("train.tsv.gz", 32);
    let texts: Vec<String> = train.iter().map(|(text, _)| text.clone()).collect();
    let model = start(dir.path(), &bert(), Head::None, &texts);
    let rows = write_rows(&dir.path().join("train.tsv"), "text\tlabel", &train);
    let sets = [
        "train.batch_size=8",
        "train.epochs=1",
        "sweep={seeds=[1, 2], grid={\"optimizer.lr\"=[1e-3, 1e-5]}}",
    ];
    let config = configured(&model, &rows, &rows, &sets).unwrap();
    let flag = Arc::new(AtomicBool::new(false));
    let (mine, out) = (Arc::clone(&flag), dir.path().join("sweep"));
    let first = RunOptions {
        interrupt: Some(flag),
        ..options(out.clone())
    };
    let mut steps = 0;
    let stopped = sweep(
        &config,
        &first,
        &mut |event: &Event<'_>| {
            steps += usize::from(matches!(event, Event::Step(_)));
            if steps == 6 {
                mine.store(true, Ordering::Relaxed);
            }
        },
        &mut |_| (),
    )
    .unwrap();
    assert_eq!((stopped.rows.len(), stopped.runs), (1, 4));
    let error = sweep(&config, &options(out.clone()), &mut Silent, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("--resume"), "{error}");
    let resume = RunOptions {
        resume: true,
        ..options(out.clone())
    };
    let (mut told, mut steps) = (0, 0);
    let found = sweep(
        &config,
        &resume,
        &mut |event: &Event<'_>| {
            steps += usize::from(matches!(event, Event::Step(_)));
        },
        &mut |_| told += 1,
    )
    .unwrap();
    assert_eq!((found.rows.len(), told, steps), (4, 3, 4 * 4 - 6));
    let groups = found.groups();
    assert_eq!(
        groups.iter().map(|group| group.3).collect::<Vec<_>>(),
        [2, 2]
    );
    let best = found.best().unwrap();
    assert!(Model::open(&out.join("best"), &OpenOptions::default()).is_ok());
    for row in &found.rows {
        assert_eq!(
            out.join("runs").join(&row.run).join("checkpoints").is_dir(),
            row.run == best.run
        );
        assert!(
            out.join("runs")
                .join(&row.run)
                .join("metrics.jsonl")
                .is_file()
        );
    }
}

/// The recorded run of PyTorch, made by `golden/finetune.py`.
#[test]
fn fifty_steps_follow_the_loss_curve_of_pytorch() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/finetune-bert");
    let recorded = malmoi_checkpoint::read_json(&dir.join("run.json")).unwrap();
    let number = |key: &str| recorded[key].as_f64().unwrap();
    let list = |value: &serde_json::Value| -> Vec<u32> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_u64().unwrap() as u32)
            .collect()
    };
    let rows: Vec<Example> = recorded["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let case = malmoi_tasks::Case {
                inputs: vec![malmoi_tasks::Sequence {
                    ids: list(&row["ids"]),
                    segments: list(&row["segments"]),
                }],
                truth: Some(malmoi_tasks::Truth::Class(
                    row["label"].as_u64().unwrap() as u32
                )),
                ..Default::default()
            };
            examples(&case, &ExampleOptions::default()).remove(0)
        })
        .collect();
    let sets = [
        format!("optimizer.lr={}", number("lr")),
        format!("optimizer.weight_decay={}", number("weight_decay")),
        format!("train.clip_norm={:?}", number("clip_norm")),
        format!("schedule.warmup_steps={}", number("warmup_steps")),
        format!("train.steps={}", number("steps")),
    ];
    let config = configured(&dir, &dir, &dir, &sets.each_ref().map(String::as_str)).unwrap();
    let open = OpenOptions {
        mode: Mode::Training,
        ..OpenOptions::default()
    };
    let model = Model::open(&dir, &open).unwrap();
    let options = StepOptions {
        seed: config.seed,
        lr: config.optimizer.lr,
        schedule: config.schedule.over(
            number("steps") as u64,
            config.optimizer.lr,
            model.config().d_model(),
        ),
        clip_norm: config.train.clip_norm,
        decay_all: config.optimizer.decay_all,
        recompute: false,
    };
    let optimizer = crate::optim::Optimizer::new(config.optimizer.rule.clone()).unwrap();
    let mut trainer = Trainer::new(model, optimizer, 0, options);
    let mut worst = 0.0_f64;
    for (batch, loss) in recorded["batches"]
        .as_array()
        .unwrap()
        .iter()
        .zip(recorded["losses"].as_array().unwrap())
    {
        let batch: Vec<Example> = list(batch)
            .iter()
            .map(|&row| rows[row as usize].clone())
            .collect();
        let report = trainer.advance(&[MicroBatch::pack(&batch)]).unwrap();
        worst = worst.max((report.loss - loss.as_f64().unwrap()).abs());
    }
    assert_eq!(trainer.step(), 50);
    assert!(worst < 1e-3, "largest deviation {worst}");
}

#[test]
fn windows_of_a_question_are_examples_of_their_own() {
    let case = malmoi_tasks::Case {
        inputs: vec![
            malmoi_tasks::Sequence {
                ids: vec![2, 5, 3],
                segments: vec![0; 3]
            };
            3
        ],
        truth: Some(malmoi_tasks::Truth::Answers(
            vec!["x".into()],
            vec![(1, 1), (0, 0), (2, 2)],
        )),
        ..Default::default()
    };
    let cases = held(&[case.clone(), case], &ExampleOptions::default());
    assert_eq!(cases.per_epoch(), 6);
    assert_eq!(
        cases.evaluation(2).unwrap().answer,
        Some(Answer::Span(2, 2))
    );
    assert_eq!(EpochOrder::new(6).place(1, 7).0, 1);
}

#[test]
fn subwords_taken_apart_are_more_tokens_and_the_same_after_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    let (model, rows) = small_start(dir.path(), 64);
    let made = |rate: &str| {
        let set = format!("data.subword_dropout={rate}");
        let sets = ["train.batch_size=8", "train.epochs=1", &set];
        configured(&model, &rows, &rows, &sets)
    };
    let (plain, apart) = (made("0.0").unwrap(), made("0.3").unwrap());
    let whole = run(&plain, &options(dir.path().join("whole")), &mut Silent).unwrap();
    let files = ["model.safetensors"];
    let (straight, _, resume) = straight_and_resumed(&apart, dir.path(), 3, &files);
    assert!(straight.tokens > whole.tokens);
    let error = run(&plain, &resume, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("data.subword_dropout"), "{error}");
    let error = made("1.5").unwrap_err().to_string();
    assert!(error.contains("data.subword_dropout"), "{error}");
}
