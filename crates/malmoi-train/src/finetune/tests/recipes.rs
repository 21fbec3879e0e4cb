//! The recipes of the repository load, and those whose data is at hand make some steps.

use super::*;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn recipes(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join("configs").join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    paths.sort();
    paths
}

/// A tiny BERT with a published vocabulary.
fn tiny(dir: &Path, vocabulary: &str) -> PathBuf {
    let tokenizer =
        malmoi_text::Tokenizer::load(repository().join("data/vocab").join(vocabulary)).unwrap();
    let config = json!({
        "model_type": "bert", "vocab_size": tokenizer.vocab_size(), "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 384,
    });
    let config = ModelConfig::from_json(&config, false).unwrap();
    let path = dir.join(vocabulary);
    Model::initialise(config, Head::None, 1, Mode::Inference)
        .save(&path, &SaveOptions::default())
        .unwrap();
    tokenizer.save(&path, None).unwrap();
    path
}

#[test]
fn every_recipe_makes_steps_on_the_rows_of_the_repository() {
    let dir = tempfile::tempdir().unwrap();
    let (korean, english) = (
        tiny(dir.path(), "koelectra"),
        tiny(dir.path(), "bert-base-uncased"),
    );
    let all = recipes("recipes");
    assert!(all.len() >= 14, "{all:?}");
    for path in all {
        let text = std::fs::read_to_string(&path).unwrap();
        let model = if text.contains("malmoi-bert-korean\"") {
            &korean
        } else {
            &english
        };
        let given: toml::Table = toml::from_str(&text).unwrap();
        let data = repository().join(given["data"]["dir"].as_str().unwrap());
        let mut sets = vec![
            format!("model.path={model:?}"),
            format!("data.dir={data:?}"),
            "train.steps=2".into(),
            "train.batch_size=4".into(),
            "evaluate.rows=6".into(),
        ];
        if text.contains("KorQuAD_v1.0") {
            // Its licence allows no part of it here: questions of another set in the same layout.
            sets.push("data.train=\"en_qa_xquad/train.json#0-0\"".into());
            sets.push("data.valid=\"en_qa_xquad/valid.json\"".into());
        }
        let config = FinetuneConfig::load(&path, &sets)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let out = dir.path().join(path.file_stem().unwrap());
        let summary = run(&config, &options(out), &mut Silent)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(summary.step, 2, "{}", path.display());
        assert!(summary.evaluation.unwrap().loss.is_finite());
    }
}

#[test]
fn published_recipes_load_and_say_that_they_were_not_run() {
    let all = recipes("recipes/published");
    assert!(all.len() >= 16, "{all:?}");
    for path in all {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("Not run here. Published: "),
            "{}",
            path.display()
        );
        FinetuneConfig::load(&path, &[])
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
