use super::*;
use crate::error::TrainError;

const SMALL: &str = r#"
[model]
architecture = "gpt2"
d_model = 32

[tokenizer]
train = { kind = "char" }

[data]
train = "train.txt"
valid = "valid.txt"

[objective]
kind = "clm"
context = 16

[train]
steps = 10
batch_size = 2
"#;

fn parse(text: &str, sets: &[&str]) -> Result<PretrainConfig, TrainError> {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    PretrainConfig::parse(text, "test.toml", &sets)
}

fn message(text: &str, sets: &[&str]) -> String {
    parse(text, sets).expect_err("refused").to_string()
}

#[test]
fn defaults_are_written_out_and_read_back() {
    let config = parse(SMALL, &[]).unwrap();
    assert_eq!(config.train.clip_norm, 1.0);
    assert_eq!(config.optimizer, OptimizerSection::default());
    let text = config.to_toml().unwrap();
    assert!(text.contains("accumulation = 1"), "{text}");
    assert_eq!(parse(&text, &[]).unwrap(), config);
}

#[test]
fn masking_defaults_are_the_published_ones() {
    let text = SMALL
        .replace("kind = \"clm\"\ncontext = 16", "kind = \"mlm\"")
        .replace("gpt2", "bert");
    let Objective::Mlm(mlm) = parse(&text, &[]).unwrap().objective else {
        panic!("mlm")
    };
    assert_eq!(
        (mlm.probability, mlm.mask, mlm.random, mlm.keep),
        (0.15, 0.8, 0.1, 0.1)
    );
    assert!(!mlm.whole_word && !mlm.next_sentence);
}

#[test]
fn unknown_keys_are_refused_by_name() {
    for (found, key) in [
        ("[train]\nsteps = 10", "stepz"),
        ("[model]\n", "hidden_size"),
        ("[data]\n", "path"),
        ("[objective]\n", "mask_rate"),
    ] {
        let text = SMALL.replace(found, &format!("{found}\n{key} = 5\n"));
        let said = message(&text, &[]);
        assert!(said.contains(key) && said.contains("test.toml"), "{said}");
    }
    let said = message(&format!("{SMALL}\n[trane]\n"), &[]);
    assert!(said.contains("trane"), "{said}");
}

#[test]
fn values_out_of_range_name_key_expectation_and_fix() {
    for (set, key, words) in [
        ("train.batch_size=0", "train.batch_size", "at least 1"),
        ("optimizer.lr=-1.0", "optimizer.lr", "above 0"),
        ("optimizer.betas=[0.9, 1.0]", "optimizer.beta2", "below 1"),
        ("train.dropout=1.0", "train.dropout", "below 1"),
        ("train.precision=\"fp8\"", "train.precision", "bf16"),
        ("train.epochs=1.0", "train", "exactly one of"),
        ("schedule.min_lr=1.0", "schedule.min_lr", "optimizer.lr"),
        (
            "schedule.decay_steps=5",
            "schedule.decay_steps",
            "trapezoid",
        ),
        ("model.preset=\"gpt2\"", "model.architecture", "preset"),
        ("log.every=0", "log.every", "at least 1"),
        ("tokenizer.path=\"x\"", "tokenizer", "exactly one of"),
        ("evaluate.batches=0", "evaluate.batches", "at least 1"),
    ] {
        let Err(TrainError::Config(problem)) = parse(SMALL, &[set]) else {
            panic!("{set} was accepted")
        };
        assert_eq!(problem.key, key, "{set}");
        assert!(problem.to_string().contains(words), "{problem}");
    }
}

#[test]
fn a_sum_of_masking_shares_other_than_one_is_refused() {
    let text = SMALL
        .replace("kind = \"clm\"\ncontext = 16", "kind = \"mlm\"")
        .replace("gpt2", "bert");
    assert!(message(&text, &["objective.keep=0.2"]).contains("mask + random + keep = 1"));
    assert!(parse(&text, &["objective.keep=0.2", "objective.mask=0.7"]).is_ok());
    assert!(
        message(&text, &["objective.subword_dropout=2.0"]).contains("objective.subword_dropout")
    );
    assert!(message(&text, &["objective.max_len=2"]).contains("special tokens"));
}

#[test]
fn overrides_reach_nested_and_absent_keys() {
    let sets = [
        "train.steps=7",
        "optimizer.lr=0.5",
        "data.dir=some/where",
        "objective.sampling=random-window",
        "seed=9",
    ];
    let config = parse(SMALL, &sets).unwrap();
    assert_eq!(config.train.steps, Some(7));
    assert_eq!(config.optimizer.lr, 0.5);
    assert_eq!(config.seed, 9);
    assert_eq!(
        config.data.dir.as_deref(),
        Some(std::path::Path::new("some/where"))
    );
    let Objective::Clm(clm) = &config.objective else {
        panic!("clm")
    };
    assert_eq!(clm.sampling, ClmSampling::RandomWindow);
}

#[test]
fn overrides_that_cannot_be_applied_say_why() {
    assert!(message(SMALL, &["train.steps"]).contains("KEY=VALUE"));
    assert!(message(SMALL, &["train..steps=1"]).contains("empty part"));
    assert!(message(SMALL, &["train.steps.x=1"]).contains("not a section"));
    assert!(message(SMALL, &["train.stepz=1"]).contains("stepz"));
}

#[test]
fn changes_name_the_keys_that_decide_the_computation() {
    let before = parse(SMALL, &[]).unwrap();
    let now = parse(
        SMALL,
        &[
            "optimizer.lr=0.5",
            "log.every=3",
            "data.dir=\"elsewhere\"",
            "checkpoint.keep=9",
        ],
    )
    .unwrap();
    assert_eq!(before.changes(&now), ["optimizer.lr: was 0.0001, now 0.5"]);
    let longer = parse(SMALL, &["train.early_stop=3"]).unwrap();
    assert_eq!(
        before.changes(&longer),
        ["train.early_stop: was absent, now 3"]
    );
    assert!(before.changes(&before).is_empty());
}

#[test]
fn text_that_is_not_toml_points_at_the_line() {
    let said = message("[model\n", &[]);
    assert!(said.contains("test.toml") && said.contains('1'), "{said}");
}

#[test]
fn every_rule_is_known_by_name_and_survives_the_file() {
    let rules = [
        "adamw",
        "adam",
        "sgd",
        "adagrad",
        "rmsprop",
        "adamax",
        "radam",
        "nadam",
        "adafactor",
        "lamb",
    ];
    let mut seen = Vec::new();
    for kind in rules {
        let config = parse(SMALL, &[&format!("optimizer.kind={kind}")]).unwrap();
        let again = parse(&config.to_toml().unwrap(), &[]).unwrap();
        assert_eq!(again, config);
        assert!(!seen.contains(&config.optimizer.rule), "{kind}");
        seen.push(config.optimizer.rule);
    }
    let with = |sets: &[&str]| parse(SMALL, sets).unwrap().optimizer.rule;
    let crate::optim::Rule::Adafactor(rule) = with(&[
        "optimizer.kind=adafactor",
        "optimizer.relative_step=true",
        "optimizer.beta1=0.9",
    ]) else {
        panic!("adafactor")
    };
    assert!(rule.relative_step && rule.beta1 == Some(0.9));
}

#[test]
fn settings_of_another_rule_are_refused_by_name() {
    let said = message(SMALL, &["optimizer.kind=sgd", "optimizer.eps=1e-8"]);
    assert!(said.contains("sgd") && said.contains("eps"), "{said}");
    let said = message(SMALL, &["optimizer.kind=adamq"]);
    assert!(
        said.contains("adamq") && said.contains("adafactor"),
        "{said}"
    );
    let said = message(SMALL, &["optimizer.betas=0.9"]);
    assert!(said.contains("two numbers"), "{said}");
    let said = message(
        SMALL,
        &["optimizer.betas=[0.9, 0.99]", "optimizer.beta1=0.8"],
    );
    assert!(said.contains("one of them"), "{said}");
}

#[test]
fn schedules_take_their_own_settings_only() {
    for (sets, key) in [
        (&["schedule.power=2.0"][..], "schedule.power"),
        (&["schedule.cycles=2"], "schedule.cycles"),
        (&["schedule.warmup_ratio=1.5"], "schedule.warmup_ratio"),
        (
            &["schedule.warmup_ratio=0.1", "schedule.warmup_steps=3"],
            "schedule.warmup_ratio",
        ),
        (
            &["schedule.kind=noam", "schedule.min_lr=1e-5"],
            "schedule.min_lr",
        ),
    ] {
        let Err(TrainError::Config(problem)) = parse(SMALL, sets) else {
            panic!("{sets:?} was accepted")
        };
        assert_eq!(problem.key, key);
    }
    let rate = |sets: &[&str]| {
        let config = parse(SMALL, sets).unwrap();
        config.schedule.over(100, config.optimizer.lr, 64)
    };
    let polynomial = rate(&["schedule.kind=polynomial", "schedule.power=2.0"]);
    assert!((polynomial.factor(50) - 0.25).abs() < 1e-12);
    let restarts = rate(&["schedule.kind=cosine-restarts", "schedule.cycles=2"]);
    assert!((restarts.factor(50) - 1.0).abs() < 1e-12);
    let noam = rate(&["schedule.kind=noam", "schedule.warmup_ratio=0.1"]);
    // Vaswani et al. 2017, equation 3, at the end of the warm-up: 64^-½ · 10^-½.
    assert!((noam.factor(9) - 0.125 / 10.0_f64.sqrt()).abs() < 1e-12);
}

#[test]
fn every_objective_is_read_with_its_published_defaults() {
    let with = |objective: &str| {
        let text = SMALL.replace("kind = \"clm\"\ncontext = 16", objective);
        parse(&text, &[])
    };
    let Objective::SpanCorruption(spans) = with("kind = \"span-corruption\"").unwrap().objective
    else {
        panic!("span corruption")
    };
    assert_eq!((spans.density, spans.mean_span), (0.15, 3.0));
    let Objective::Tlm(tlm) = with("kind = \"tlm\"\ncolumns = [\"ko\", \"en\"]")
        .unwrap()
        .objective
    else {
        panic!("tlm")
    };
    assert_eq!(
        (tlm.languages, tlm.pairs, tlm.probability),
        ([0, 1], 1.0, 0.15)
    );
    for (objective, words) in [
        ("kind = \"tlm\"", "columns"),
        (
            "kind = \"tlm\"\ncolumns = [\"a\", \"b\"]\npairs = 1.5",
            "objective.pairs",
        ),
        ("kind = \"span-corruption\"\ndensity = 1.0", "density"),
        ("kind = \"span-corruption\"\nmean_span = 0.5", "mean"),
        (
            "kind = \"span-corruption\"\ntemperature = 0.0",
            "objective.temperature",
        ),
        (
            "kind = \"span-corruption\"\ntasks = [{ trane = \"x\" }]",
            "trane",
        ),
        (
            "kind = \"text2text\"\nmax_target_len = 1",
            "objective.max_target_len",
        ),
        ("kind = \"mlm\"\nmax_ngram = 0", "objective.max_ngram"),
        (
            "kind = \"mlm\"\nnext_sentence = true\nsentence_order = true",
            "objective.sentence_order",
        ),
    ] {
        let said = with(objective).expect_err("refused").to_string();
        assert!(said.contains(words), "{objective}: {said}");
    }
}
