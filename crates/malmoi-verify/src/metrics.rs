//! Fixtures of metrics: inputs and expected values, compared within the tolerance that the file states.

use std::path::Path;

use malmoi_tasks::metrics::bleu::{BleuOptions, Smoothing, Tokenization};
use malmoi_tasks::metrics::classification::Confusion;
use malmoi_tasks::metrics::entities::{Entity, Scheme};
use malmoi_tasks::metrics::{
    answers, bleu, chrf, classification, correlation, edit, entities, language, multilabel,
    ranking, rouge, ter,
};
use serde_json::{Map, Value, json};

use crate::fixture::{name_of, read_json};
use crate::report::{CaseOutcome, Comparison};
use crate::values::{Fields, compare_values};
use crate::{FixtureError, FixtureReport};

/// The tolerance where the file states none.
const TOLERANCE: f64 = 1e-9;

/// Values computed from one case, by the key of the reference.
type Computed = Result<Map<String, Value>, FixtureError>;
/// A metric: computes the values of one case.
type Metric = fn(&Fields<'_>) -> Computed;

/// The groups of `metrics.json`: how a case is computed, and which of its keys are inputs.
const METRICS: &[(&str, Metric, &[&str])] = &[
    (
        "classification",
        classification_values,
        &["y_true", "y_pred", "scores", "note"],
    ),
    ("multilabel", multilabel_values, &["y_true", "y_pred"]),
    ("correlation", correlation_values, &["x", "y"]),
    ("squad", squad_values, &["prediction", "answers"]),
    ("korquad", korquad_values, &["prediction", "answers"]),
    ("entities", entity_values, &["y_true", "y_pred"]),
    (
        "bleu",
        bleu_values,
        &["name", "hypotheses", "references", "options", "smoothing"],
    ),
    ("chrf", chrf_values, &["hypotheses", "references"]),
    ("ter", ter_values, &["hypotheses", "references"]),
    ("rouge", rouge_values, &["prediction", "reference"]),
    (
        "language_modelling",
        language_values,
        &["token_nll_nats", "characters", "bytes", "words"],
    ),
    (
        "error_rates",
        error_rate_values,
        &["hypotheses", "references"],
    ),
    ("ranking", ranking_values, &["relevance_in_rank_order"]),
];

/// Checks `metrics.json`.
pub fn check(dir: &Path) -> Result<FixtureReport, FixtureError> {
    let json = read_json(&dir.join("metrics.json"))?;
    let tolerance = json["_meta"]["tolerance"].as_f64().unwrap_or(TOLERANCE);
    let mut report = FixtureReport::new(name_of(dir));
    let groups = json
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !name.starts_with('_'));
    for (name, group) in groups {
        let outcome = match METRICS.iter().find(|(known, _, _)| known == name) {
            None => CaseOutcome::Unsupported("no such metric".into()),
            Some((_, metric, inputs)) => match check_group(name, group, *metric, inputs, tolerance)
            {
                Ok(comparisons) => CaseOutcome::from_comparisons(name, comparisons),
                Err(error) => CaseOutcome::Fail(vec![Comparison::failed(name, error.to_string())]),
            },
        };
        report.record(name, outcome);
    }
    Ok(report)
}

fn check_group(
    name: &str,
    group: &Value,
    metric: Metric,
    inputs: &[&str],
    tolerance: f64,
) -> Result<Vec<Comparison>, FixtureError> {
    let mut comparisons = Vec::new();
    let cases = group
        .get("cases")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    for (i, case) in cases.iter().enumerate() {
        let path = format!("{name}.{i}");
        let computed = metric(&Fields::new(&path, case))?;
        comparisons.extend(against(&path, &computed, case, inputs, tolerance));
    }
    // Values of the whole group, beside its cases.
    if let Some(computed) = corpus_values(name, group, cases)? {
        comparisons.extend(against(
            name,
            &computed,
            group,
            &["cases", "note", "rule"],
            tolerance,
        ));
    }
    Ok(comparisons)
}

/// Compares every value of the reference that is not an input; one that was not computed is a failure.
fn against(
    path: &str,
    computed: &Map<String, Value>,
    expected: &Value,
    inputs: &[&str],
    tolerance: f64,
) -> Vec<Comparison> {
    let members = expected.as_object().into_iter().flatten();
    members
        .filter(|(key, _)| !inputs.contains(&key.as_str()))
        .map(|(key, value)| {
            let name = format!("{path}.{key}");
            match computed.get(key) {
                Some(got) => compare_values(&name, got, value, tolerance),
                None => Comparison::failed(name, "this value is not computed"),
            }
        })
        .collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn corpus_values(
    name: &str,
    group: &Value,
    cases: &[Value],
) -> Result<Option<Map<String, Value>>, FixtureError> {
    Ok(match name {
        "squad" => {
            let mut scores = Vec::new();
            for (i, case) in cases.iter().enumerate() {
                scores.push(squad_score(&Fields::new(format!("{name}.{i}"), case))?);
            }
            let (exact_match, f1) = answers::corpus(&scores);
            Some(object(json!({"exact_match": exact_match, "f1": f1})))
        }
        "bleu" => Some(bleu_corpus_values(group, cases)?),
        "rouge" => match group.get("rougeLsum") {
            Some(case) => {
                let fields = Fields::new("rouge.rougeLsum", case);
                let (prediction, reference): (String, String) =
                    (fields.read("prediction")?, fields.read("reference")?);
                let mut got = object(json!(rouge::rouge_l_sum(&prediction, &reference)));
                got.extend(object(
                    json!({"prediction": prediction, "reference": reference}),
                ));
                Some(object(json!({"rougeLsum": got})))
            }
            None => None,
        },
        _ => None,
    })
}

fn classification_values(case: &Fields<'_>) -> Computed {
    let (y_true, y_pred): (Vec<i64>, Vec<i64>) = (case.read("y_true")?, case.read("y_pred")?);
    let confusion = Confusion::new(&y_true, &y_pred);
    let mut values = object(json!({
        "accuracy": confusion.accuracy(),
        "balanced_accuracy": confusion.balanced_accuracy(),
        "mcc": confusion.matthews(),
        "kappa": confusion.kappa(),
        "confusion": confusion.counts,
        "micro": confusion.micro(),
        "macro": confusion.macro_average(),
        "weighted": confusion.weighted_average(),
        "per_class": confusion.per_class(),
        "binary_f1": classification::binary_f1(&y_true, &y_pred),
    }));
    if case.has("scores") {
        let scores: Vec<f64> = case.read("scores")?;
        let positive: Vec<bool> = y_true.iter().map(|&label| label == 1).collect();
        values.extend(object(json!({
            "roc_auc": classification::roc_auc(&positive, &scores),
            "average_precision": classification::average_precision(&positive, &scores),
            "log_loss": classification::log_loss(&positive, &scores),
        })));
    }
    Ok(values)
}

fn rows_of_flags(case: &Fields<'_>, key: &str) -> Result<Vec<Vec<bool>>, FixtureError> {
    let rows: Vec<Vec<i64>> = case.read(key)?;
    Ok(rows
        .into_iter()
        .map(|row| row.into_iter().map(|flag| flag != 0).collect())
        .collect())
}

fn multilabel_values(case: &Fields<'_>) -> Computed {
    let (y_true, y_pred) = (
        rows_of_flags(case, "y_true")?,
        rows_of_flags(case, "y_pred")?,
    );
    Ok(object(json!({
        "subset_accuracy": multilabel::subset_accuracy(&y_true, &y_pred),
        "hamming_loss": multilabel::hamming_loss(&y_true, &y_pred),
        "micro_f1": multilabel::micro_f1(&y_true, &y_pred),
        "macro_f1": multilabel::macro_f1(&y_true, &y_pred),
        "samples_f1": multilabel::samples_f1(&y_true, &y_pred),
    })))
}

fn correlation_values(case: &Fields<'_>) -> Computed {
    let (x, y): (Vec<f64>, Vec<f64>) = (case.read("x")?, case.read("y")?);
    Ok(object(json!({
        "pearson": correlation::pearson(&x, &y),
        "spearman": correlation::spearman(&x, &y),
        "kendall_tau_b": correlation::kendall_tau_b(&x, &y),
        "mse": correlation::mse(&x, &y),
        "mae": correlation::mae(&x, &y),
        "r2": correlation::r2(&x, &y),
    })))
}

fn squad_score(case: &Fields<'_>) -> Result<answers::AnswerScore, FixtureError> {
    let accepted: Vec<String> = case.read("answers")?;
    Ok(answers::squad(
        &case.read::<String>("prediction")?,
        &accepted,
    ))
}

fn squad_values(case: &Fields<'_>) -> Computed {
    let score = squad_score(case)?;
    let normalized = answers::squad_normalize(&case.read::<String>("prediction")?);
    Ok(object(
        json!({"exact_match": score.exact_match, "f1": score.f1, "normalized": normalized}),
    ))
}

fn korquad_values(case: &Fields<'_>) -> Computed {
    let accepted: Vec<String> = case.read("answers")?;
    let prediction: String = case.read("prediction")?;
    let score = answers::korquad(&prediction, &accepted);
    let normalized = answers::korquad_normalize(&prediction);
    Ok(object(
        json!({"exact_match": score.exact_match, "f1": score.f1, "normalized": normalized}),
    ))
}

fn entity_values(case: &Fields<'_>) -> Computed {
    let (y_true, y_pred): (Vec<Vec<String>>, Vec<Vec<String>>) =
        (case.read("y_true")?, case.read("y_pred")?);
    let found = |tags: &[Vec<String>]| -> Vec<Vec<Entity>> {
        tags.iter()
            .map(|tags| entities::entities(tags, Scheme::Lenient))
            .collect()
    };
    Ok(object(json!({
        "true_entities": found(&y_true),
        "pred_entities_lenient": found(&y_pred),
        "lenient": entities::micro(&y_true, &y_pred, Scheme::Lenient),
        "strict_iob2": entities::micro(&y_true, &y_pred, Scheme::Strict),
        "macro_lenient_f1": entities::macro_f1(&y_true, &y_pred, Scheme::Lenient),
    })))
}

fn bleu_options(case: &Fields<'_>) -> Result<BleuOptions, FixtureError> {
    let unknown = |key: &str, found: String| FixtureError::Value {
        key: case.path(key),
        expected: "an option that is implemented".into(),
        found,
    };
    let mut options = BleuOptions::default();
    if case.has("smoothing") {
        options.smoothing = match case.read::<String>("smoothing")?.as_str() {
            "exp" => Smoothing::Exponential,
            "none" => Smoothing::None,
            other => return Err(unknown("smoothing", other.to_owned())),
        };
    }
    for (key, value) in case.read::<Map<String, Value>>("options")? {
        match (key.as_str(), &value) {
            ("lowercase", Value::Bool(lowercase)) => options.lowercase = *lowercase,
            ("tokenize", Value::String(name)) => {
                options.tokenization = match name.as_str() {
                    "13a" => Tokenization::Mteval13a,
                    "char" => Tokenization::Characters,
                    "none" => Tokenization::Whitespace,
                    other => return Err(unknown("options.tokenize", other.to_owned())),
                };
            }
            (other, value) => return Err(unknown("options", format!("{other} = {value}"))),
        }
    }
    Ok(options)
}

/// Hypotheses, and references by reference number.
type Corpus = (Vec<String>, Vec<Vec<String>>);

fn corpus_of(case: &Fields<'_>) -> Result<Corpus, FixtureError> {
    Ok((case.read("hypotheses")?, case.read("references")?))
}

fn bleu_values(case: &Fields<'_>) -> Computed {
    let (hypotheses, references) = corpus_of(case)?;
    let got = bleu::corpus_bleu(&hypotheses, &references, bleu_options(case)?);
    Ok(object(json!({
        "bleu": got.score,
        "precisions": got.precisions,
        "brevity_penalty": got.brevity_penalty,
        "sys_len": got.hypothesis_len,
        "ref_len": got.reference_len,
    })))
}

fn bleu_corpus_values(group: &Value, cases: &[Value]) -> Computed {
    let mut values = Map::new();
    if let Some(first) = cases.first() {
        let fields = Fields::new("bleu.0", first);
        let (hypotheses, references) = corpus_of(&fields)?;
        let options = BleuOptions {
            smoothing: Smoothing::None,
            ..bleu_options(&fields)?
        };
        values.insert(
            "unsmoothed_first".into(),
            json!(bleu::corpus_bleu(&hypotheses, &references, options).score),
        );
    }
    let sentences = group.get("sentence_level").and_then(Value::as_array);
    let mut scored = Vec::new();
    for (i, sentence) in sentences.into_iter().flatten().enumerate() {
        let fields = Fields::new(format!("bleu.sentence_level.{i}"), sentence);
        let (hypothesis, reference): (String, String) =
            (fields.read("hypothesis")?, fields.read("reference")?);
        let score = bleu::sentence_bleu(&hypothesis, &[&reference], BleuOptions::default()).score;
        scored.push(json!({"hypothesis": hypothesis, "reference": reference, "bleu": score}));
    }
    values.insert("sentence_level".into(), Value::Array(scored));
    Ok(values)
}

fn chrf_values(case: &Fields<'_>) -> Computed {
    let (hypotheses, references) = corpus_of(case)?;
    Ok(object(json!({
        "chrf": chrf::corpus_chrf(&hypotheses, &references, 0),
        "chrf_plus_plus": chrf::corpus_chrf(&hypotheses, &references, 2),
    })))
}

fn ter_values(case: &Fields<'_>) -> Computed {
    let (hypotheses, references) = corpus_of(case)?;
    Ok(object(
        json!({"ter": ter::corpus_ter(&hypotheses, &references)}),
    ))
}

fn rouge_values(case: &Fields<'_>) -> Computed {
    let (prediction, reference): (String, String) =
        (case.read("prediction")?, case.read("reference")?);
    Ok(object(json!({
        "rouge1": rouge::rouge_n(&prediction, &reference, 1),
        "rouge2": rouge::rouge_n(&prediction, &reference, 2),
        "rougeL": rouge::rouge_l(&prediction, &reference),
    })))
}

fn language_values(case: &Fields<'_>) -> Computed {
    let nll: Vec<f64> = case.read("token_nll_nats")?;
    let sum: f64 = nll.iter().sum();
    let tokens = nll.len() as f64;
    Ok(object(json!({
        "perplexity": language::perplexity(sum, tokens),
        "bits_per_token": language::bits_per(sum, tokens),
        "bits_per_character": language::bits_per(sum, case.read("characters")?),
        "bits_per_byte": language::bits_per(sum, case.read("bytes")?),
        "word_perplexity": language::perplexity(sum, case.read("words")?),
    })))
}

fn error_rate_values(case: &Fields<'_>) -> Computed {
    let (hypotheses, references): (Vec<String>, Vec<String>) =
        (case.read("hypotheses")?, case.read("references")?);
    Ok(object(json!({
        "wer": edit::word_error_rate(&hypotheses, &references),
        "cer": edit::character_error_rate(&hypotheses, &references),
    })))
}

fn ranking_values(case: &Fields<'_>) -> Computed {
    let queries = rows_of_flags(case, "relevance_in_rank_order")?;
    let mut values = object(json!({"mrr": ranking::mean_reciprocal_rank(&queries)}));
    let longest = queries.iter().map(Vec::len).max().unwrap_or(0).max(10);
    for k in 1..=longest {
        let hits = ranking::hits_at(&queries, k);
        values.insert(format!("hits_at_{k}"), json!(hits));
        values.insert(format!("recall_at_{k}"), json!(hits));
    }
    Ok(values)
}
