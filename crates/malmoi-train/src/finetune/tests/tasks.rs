//! Every task learns something small, end to end, and says what is wrong with bad rows.

use serde_json::Value;

use super::*;
use crate::training::Evaluation;

/// Lines of a file.
fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Trains a small model of `shape` on `train`, measured on the same rows, and gives what the best checkpoint says about them.
fn learn(
    dir: &Path,
    shape: &Value,
    texts: &[String],
    train: &Path,
    sets: &[&str],
) -> (Evaluation, PathBuf) {
    let model = start(dir, shape, Head::None, texts);
    let config = configured(&model, train, train, sets).unwrap();
    let out = dir.join("run");
    run(&config, &options(out.clone()), &mut Silent).unwrap();
    (measured(&out.join("best"), train), out.join("best"))
}

/// What a fine-tuned folder says about rows.
fn measured(best: &Path, rows: &Path) -> Evaluation {
    let saved = SavedTask::load(best).unwrap().unwrap();
    let model = Model::open(best, &OpenOptions::default()).unwrap();
    let tokenizer = malmoi_text::Tokenizer::load(best).unwrap();
    let tokens = task_tokens(&tokenizer).filter(|_| saved.task_tokens);
    let encoder = encoder(model.config(), &tokenizer, saved.max_len, tokens);
    let labels = Some(model.config().labels());
    let cases = read_cases(rows, saved.task.task(), labels, &encoder, "utf-8").unwrap();
    let found = evaluate(&model, &tokenizer, &saved.task, &cases, &mut |_| ()).unwrap();
    // Scores do not depend on what goes through the model together.
    for tokens_per_batch in [1, 77] {
        let options = malmoi_infer::predict::PredictOptions {
            tokens_per_batch,
            ..Default::default()
        };
        let task = saved.task.task();
        let said =
            malmoi_infer::predict::predict(&model, &tokenizer, task, &cases, &options, &mut |_| ());
        let again = score(&model, &saved.task, &cases, &said.unwrap()).unwrap();
        assert_eq!(again.metrics.len(), found.metrics.len());
        for (a, b) in again.all().zip(found.all()) {
            // Products of other heights sum in another order.
            assert!((a.1 - b.1).abs() < 1e-4 * (1.0 + b.1.abs()), "{a:?} {b:?}");
        }
    }
    found
}

const FAST: [&str; 3] = [
    "optimizer.lr=3e-3",
    "train.epochs=12",
    "train.batch_size=16",
];

fn with<'a>(task: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut sets = FAST.to_vec();
    sets.push(task);
    sets.extend(more);
    sets
}

const NAMES: [&str; 6] = ["mina", "jun", "sora", "tom", "ana", "lee"];
const TOWNS: [&str; 4] = ["seoul", "busan", "paris", "rome"];

/// Sentences with a name and a town, a word and its tag a line.
fn sentences(n: usize) -> String {
    let mut text = String::new();
    for i in 0..n {
        let (name, town) = (NAMES[i % 6], TOWNS[(i / 2) % 4]);
        write!(
            text,
            "{name}\tB-PER\nyoung\tI-PER\nlives\tO\nin\tO\n{town}\tB-LOC\n\n"
        )
        .unwrap();
    }
    text
}

#[test]
fn tags_are_learned_from_words_and_from_characters() {
    let texts: Vec<String> = NAMES
        .iter()
        .chain(&TOWNS)
        .map(|w| format!("{w} young lives in"))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let rows = file(dir.path(), "train.conll", &sentences(96));
    let (found, best) = learn(
        dir.path(),
        &bert(),
        &texts,
        &rows,
        &with("task.kind=tag", &[]),
    );
    assert_eq!(
        (found.get("f1"), found.get("f1_strict")),
        (Some(1.0), Some(1.0)),
        "{found:?}"
    );
    let model = Model::open(&best, &OpenOptions::default()).unwrap();
    assert_eq!(model.config().labels(), ["B-LOC", "B-PER", "I-PER", "O"]);

    let dir = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for i in 0..96 {
        let town = ["서울", "부산", "대전"][i % 3];
        writeln!(text, "## id-{i}\t<{town}:LC>에 산다").unwrap();
        for (place, c) in town.chars().enumerate() {
            writeln!(text, "{c}\t{}", if place == 0 { "B-LC" } else { "I-LC" }).unwrap();
        }
        text.push_str("에\tO\n \tO\n산\tO\n다\tO\n\n");
    }
    let rows = file(dir.path(), "train.tsv", &text);
    // Once each with its particle: both are pieces, the two together are none.
    let words = ["서울", "부산", "대전", "산다"].repeat(4);
    let sentences = ["서울에 산다", "부산에 산다", "대전에 산다"];
    let texts: Vec<String> = words
        .into_iter()
        .chain(sentences)
        .map(str::to_owned)
        .collect();
    let (found, best) = learn(
        dir.path(),
        &bert(),
        &texts,
        &rows,
        &with("task.kind=tag", &[]),
    );
    assert!(found.get("f1_char").unwrap() > 0.99, "{found:?}");
    let saved = SavedTask::load(&best).unwrap().unwrap();
    assert_eq!(
        serde_json::to_value(saved.task).unwrap()["units"],
        "characters"
    );
}

#[test]
fn answers_are_found_in_long_contexts() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = String::new();
    let texts: Vec<String> = [
        "the house is red and big , 1 2 3 4 5 6 7 8 9 rooms",
        "how many rooms ?",
    ]
    .map(str::to_owned)
    .into();
    for i in 0..80 {
        let number = (i % 9 + 1).to_string();
        let before = "the house is red and big , ".repeat(1 + i % 3);
        let context = format!("{before}{number} rooms , the house is big");
        let answers = json!([{"text": number, "answer_start": before.chars().count()}]);
        writeln!(
            rows,
            "{}",
            json!({"context": context, "question": "how many rooms ?", "answers": answers})
        )
        .unwrap();
    }
    let rows = file(dir.path(), "train.jsonl", &rows);
    let task = "task={kind=\"qa\", stride=8}";
    let (found, _) = learn(
        dir.path(),
        &bert(),
        &texts,
        &rows,
        &with(task, &["data.max_len=24"]),
    );
    assert!(
        found.get("exact_match").unwrap() > 95.0 && found.loss.is_finite(),
        "{found:?}"
    );
}

#[test]
fn choices_pairs_and_label_sets_are_learned() {
    let words = ["good", "bad", "red", "blue", "the", "day", "was"];
    let texts: Vec<String> = vec![words.join(" "); 4];
    let dir = tempfile::tempdir().unwrap();
    let (mut choices, mut pairs, mut sets) = (
        String::new(),
        String::from("sentence1\tsentence2\tlabel\n"),
        String::from("text\tlabel\n"),
    );
    for i in 0..96 {
        let right = i % 3;
        let list: Vec<String> = (0..3)
            .map(|c| format!("the day was {}", if c == right { "good" } else { "bad" }))
            .collect();
        writeln!(
            choices,
            "{}",
            json!({"text": "the day", "choices": list, "label": right})
        )
        .unwrap();
        let second = ["good", "bad"][i % 2];
        writeln!(
            pairs,
            "the day was {}\twas {second}\t{}",
            words[i % 4],
            ["yes", "no"][i % 2]
        )
        .unwrap();
        let said = [
            ("red", "warm"),
            ("blue", "cold"),
            ("red blue", "warm,cold"),
            ("day", ""),
        ][i % 4];
        writeln!(sets, "the {}\t{}", said.0, said.1).unwrap();
    }
    for (name, text, task, metric) in [
        ("choice.jsonl", &choices, "task.kind=choice", "accuracy"),
        ("pair.tsv", &pairs, "task.kind=pair", "accuracy"),
        ("sets.tsv", &sets, "task.kind=multilabel", "f1_macro"),
    ] {
        let dir = dir.path().join(name.split('.').next().unwrap());
        std::fs::create_dir(&dir).unwrap();
        let rows = file(&dir, name, text);
        let (found, _) = learn(&dir, &bert(), &texts, &rows, &with(task, &[]));
        assert!(found.get(metric).unwrap() > 0.98, "{name}: {found:?}");
    }
}

#[test]
fn a_decoder_reads_its_tasks_between_start_and_extract_tokens() {
    let words = "good bad red blue the day was";
    let texts = vec![words.to_owned(); 4];
    let shape = json!({
        "model_type": "openai-gpt", "vocab_size": 8, "n_embd": 64, "n_layer": 1, "n_head": 2, "n_positions": 48,
    });
    let dir = tempfile::tempdir().unwrap();
    let (mut classes, mut similar, mut choices) = (
        String::from("text\tlabel\n"),
        String::from("a\tb\tlabel\n"),
        String::new(),
    );
    for i in 0..96 {
        let word = ["good", "bad"][i % 2];
        writeln!(classes, "the day was {word}\t{word}").unwrap();
        writeln!(
            similar,
            "{word}\t{}\t{}",
            ["good", "bad", "bad", "good"][i % 4],
            [1.0, 1.0, -1.0, -1.0][i % 4]
        )
        .unwrap();
        let list = [["good", "bad"], ["bad", "good"]][i % 2];
        writeln!(
            choices,
            "{}",
            json!({"text": "the day was", "choices": list, "label": i % 2})
        )
        .unwrap();
    }
    let gpt = ["tune.task_tokens=true", "tune.lm_weight=0.5"];
    let rows = [
        ("a.tsv", &classes, "task.kind=classify", "accuracy", 0.99),
        (
            "b.tsv",
            &similar,
            "task={kind=\"regress\", text_column=\"a\", pair_column=\"b\", both_orders=true}",
            "pearson",
            0.9,
        ),
        ("c.jsonl", &choices, "task.kind=choice", "accuracy", 0.99),
    ];
    for (name, text, task, metric, least) in rows {
        let dir = dir.path().join(&name[..1]);
        std::fs::create_dir(&dir).unwrap();
        let rows = file(&dir, name, text);
        let (found, best) = learn(&dir, &shape, &texts, &rows, &with(task, &gpt));
        assert!(found.get(metric).unwrap() > least, "{name}: {found:?}");
        let tokenizer = malmoi_text::Tokenizer::load(&best).unwrap();
        let model = Model::open(&best, &OpenOptions::default()).unwrap();
        let tokens = task_tokens(&tokenizer).unwrap();
        assert_eq!(tokens.extract as usize + 1, tokenizer.vocab_size());
        assert_eq!(model.config().vocab_size(), tokenizer.vocab_size());
    }
    // Without a decoder the settings mean nothing.
    let dir = tempfile::tempdir().unwrap();
    let rows = file(dir.path(), "a.tsv", &classes);
    let model = start(dir.path(), &bert(), Head::None, &texts);
    let config = configured(&model, &rows, &rows, &gpt).unwrap();
    let error = run(&config, &options(dir.path().join("run")), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("tune.task_tokens"), "{error}");
}

#[test]
fn the_auxiliary_loss_is_that_of_the_next_tokens() {
    let case = malmoi_tasks::Case {
        inputs: vec![
            malmoi_tasks::Sequence {
                ids: vec![1, 4, 5, 2],
                segments: vec![0; 4],
            },
            malmoi_tasks::Sequence {
                ids: vec![1, 6, 2],
                segments: vec![0; 3],
            },
        ],
        truth: Some(malmoi_tasks::Truth::Class(1)),
        ..Default::default()
    };
    let options = ExampleOptions {
        lm_weight: 0.5,
        ..ExampleOptions::default()
    };
    let example = examples(&case, &options).remove(0);
    assert_eq!(example.starts, [0, 4]);
    assert_eq!(example.positions, [0, 1, 2, 3, 0, 1, 2]);
    // The last token of a sequence predicts nothing, least of all the first of the next one.
    assert_eq!(example.targets, [(0, 4), (1, 5), (2, 2), (4, 6), (5, 2)]);
    let config = json!({
        "model_type": "openai-gpt", "vocab_size": 9, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8,
        "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "id2label": {"0": "x"}, "label2id": {"x": 0},
    });
    let config = ModelConfig::from_json(&config, false).unwrap();
    let model = Model::initialise(config, Head::SequenceClassification, 3, Mode::Inference);
    let micro = MicroBatch::pack(std::slice::from_ref(&example));
    let labels = micro.labels(Counts::of(std::slice::from_ref(&micro)));
    let report = model.loss(&micro.batch, &labels).unwrap();
    let part = |name: &str| {
        report
            .parts
            .iter()
            .find(|part| part.name == name)
            .unwrap()
            .loss
    };
    // Two choices of an untrained model, and tokens of a vocabulary of nine at half weight.
    assert!((part("class") - 2.0_f64.ln()).abs() < 0.1, "{report:?}");
    assert!((part("lm") - 0.5 * 9.0_f64.ln()).abs() < 0.1, "{report:?}");
    assert!((report.loss - part("class") - part("lm")).abs() < 1e-5);
}

#[test]
fn a_head_for_other_labels_begins_anew_and_one_for_the_same_keeps_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let texts = vec!["young lives in seoul mina good".to_owned(); 4];
    let model = start(dir.path(), &bert(), Head::None, &texts);
    let labelled = |name: &str, labels: &[&str]| {
        let rows: String = labels
            .iter()
            .map(|label| format!("mina\t{label}\n"))
            .collect();
        file(dir.path(), name, &format!("text\tlabel\n{rows}"))
    };
    let classifier = |out: &str| -> Vec<f32> {
        let mut found = Vec::new();
        let best = dir.path().join(out).join("best");
        let model = Model::open(&best, &OpenOptions::default()).unwrap();
        model.read(|info, values| {
            if info.name == "classifier.weight" {
                found = values.to_vec();
            }
        });
        found
    };
    let tuned = |model: &Path, rows: &Path, out: &str, sets: &[&str]| {
        // No step changes anything that can be seen; another seed draws other initial values.
        let sets = [&["train.steps=1", "optimizer.lr=1e-12"][..], sets].concat();
        let config = configured(model, rows, rows, &sets).unwrap();
        warnings(&config, dir.path().join(out))
    };
    let three = labelled("three.tsv", &["yes", "no", "maybe"]);
    assert_eq!(tuned(&model, &three, "three", &[]), "");
    let first = dir.path().join("three/best");
    let labels = |out: &str| {
        let config = malmoi_checkpoint::read_config(&dir.path().join(out).join("best"));
        ModelConfig::from_json(&config.unwrap(), false)
            .unwrap()
            .labels()
            .to_vec()
    };
    assert_eq!(labels("three"), ["maybe", "no", "yes"]);
    // Another number of labels, and as many others.
    for (out, names) in [("two", &["a", "b"][..]), ("others", &["a", "b", "c"])] {
        let rows = labelled("rows.tsv", names);
        let warned = tuned(&first, &rows, out, &["seed=7"]);
        assert!(warned.contains("other labels (maybe, no, yes)"), "{warned}");
        assert_eq!(labels(out), names);
        assert_ne!(classifier(out)[..64], classifier("three")[..64]);
    }
    let rows = labelled("rows.tsv", &["a", "b"]);
    assert_eq!(tuned(&first, &rows, "reset", &["tune.reset_head=true"]), "");
    // The same labels under other numbers, as published models have them.
    let path = first.join("config.json");
    let mut config = malmoi_checkpoint::read_json(&path).unwrap();
    config["id2label"] = json!({"0": "yes", "1": "no", "2": "maybe"});
    config["label2id"] = json!({"yes": 0, "no": 1, "maybe": 2});
    malmoi_checkpoint::write_json(&path, &config).unwrap();
    assert_eq!(tuned(&first, &three, "same", &["seed=7"]), "");
    assert_eq!(labels("same"), ["yes", "no", "maybe"]);
    for (a, b) in classifier("same").iter().zip(classifier("three")) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn odd_rows_are_counted_and_bad_ones_refused_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let texts = vec!["young lives in seoul mina good".to_owned(); 4];
    let model = start(dir.path(), &bert(), Head::None, &texts);
    let broken = format!("{}mina\tO\nyoung\tI-PER\n\n", sentences(8));
    let rows = file(dir.path(), "broken.conll", &broken);
    let config = configured(&model, &rows, &rows, &["task.kind=tag", "train.steps=1"]).unwrap();
    let warned = warnings(&config, dir.path().join("tags"));
    let line = sentences(8).lines().count() + 2;
    assert!(
        warned.contains("1 of 9 training rows have an I- tag")
            && warned.contains(&format!("line {line}")),
        "{warned}"
    );

    let rows = file(
        dir.path(),
        "empty.tsv",
        "text\tlabel\nmina\t0\n\t1\nyoung\t0\n",
    );
    let config = configured(&model, &rows, &rows, &["train.steps=1"]).unwrap();
    let warned = warnings(&config, dir.path().join("empty"));
    assert!(
        warned.contains("1 of 3 training rows have an empty text") && warned.contains("line 3"),
        "{warned}"
    );

    // The model has 48 positions: more of data.max_len would not help.
    let long = format!("text\tlabel\n{}\t1\nyoung\t0\n", "mina ".repeat(60));
    let rows = file(dir.path(), "long.tsv", &long);
    for (max_len, advice) in [
        ("24", "raise --max-len"),
        ("64", "a model with more positions"),
    ] {
        let max_len = format!("data.max_len={max_len}");
        let config = configured(&model, &rows, &rows, &["train.steps=1", &max_len]).unwrap();
        let warned = warnings(&config, dir.path().join(&max_len));
        assert!(
            warned.contains("1 of 2 training rows") && warned.contains(advice),
            "{warned}"
        );
    }

    let choices = "{\"text\": \"a\", \"choices\": [\"b\", \"c\"], \"label\": 0}\n{\"text\": \"a\", \"choices\": [\"b\", \"c\", \"d\"], \"label\": 0}\n";
    let unseen = format!("{}mina\tB-NEW\n\n", sentences(2));
    let cases = [
        ("choices.jsonl", choices.to_owned(), "task.kind=choice", "line 2: 3 choices where the first row has 2"),
        ("number.jsonl", choices.replace("\"label\": 0", "\"label\": 5"), "task.kind=choice", "line 1"),
        ("column.jsonl", choices.to_owned(), "task.kind=pair", "line 1: no column \"sentence1\"; the row has: "),
        ("columns.tsv", "text\tlabel\na\tb\n".into(), "task.kind=pair", "no column \"sentence1\"; the file has: text, label"),
        ("context.jsonl", "{\"context\": \"a b\", \"question\": \"b\", \"answers\": [{\"text\": \"b\", \"answer_start\": 0}]}\n".into(), "task.kind=qa", "line 1"),
    ];
    for (name, text, task, words) in cases {
        let rows = file(dir.path(), name, &text);
        let config = configured(&model, &rows, &rows, &[task]).unwrap();
        let out = dir.path().join("run");
        let error = run(&config, &options(out.clone()), &mut Silent).unwrap_err();
        assert!(
            error.to_string().contains(words) && error.is_bad_input(),
            "{name}: {error}"
        );
        assert!(!out.exists());
    }
    // Settings that a task has no use for.
    let rows = file(dir.path(), "plain.tsv", "text\tlabel\nmina\t0\nyoung\t1\n");
    let choice = [
        "task.kind=choice",
        "task.choice_columns=[\"text\", \"text\"]",
        "tune.class_weights=balanced",
    ];
    for (sets, key) in [
        (&choice[..], "tune.class_weights"),
        (
            &["task.kind=regress", "tune.label_smoothing=0.1"],
            "tune.label_smoothing",
        ),
        (&["task.both_orders=true"], "task.both_orders"),
    ] {
        let config = configured(&model, &rows, &rows, sets).unwrap();
        let error = run(&config, &options(dir.path().join("run")), &mut Silent).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
    let rows = file(dir.path(), "good.conll", &sentences(4));
    let valid = file(dir.path(), "unseen.conll", &unseen);
    let config = configured(&model, &rows, &valid, &["task.kind=tag"]).unwrap();
    let error = run(&config, &options(dir.path().join("run")), &mut Silent).unwrap_err();
    assert!(
        error.to_string().contains("unseen.conll: line 13") && error.to_string().contains("B-NEW"),
        "{error}"
    );
}
