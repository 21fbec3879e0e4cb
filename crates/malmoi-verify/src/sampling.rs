//! Fixtures of sampling rules: given logits and histories, the probabilities after filters in a stated order.

use malmoi_infer::sampling::{Filter, History, filtered};
use serde_json::Value;

use crate::report::{CaseOutcome, Comparison};
use crate::values::Fields;
use crate::{Fixture, FixtureError, FixtureReport};

/// The rules of one case, or the name of one that is not known.
struct Rules {
    filters: Vec<Filter>,
    prompt_len: usize,
}

/// Checks a fixture of sampling rules.
pub fn check(fixture: &Fixture) -> FixtureReport {
    let mut report = FixtureReport::new(&fixture.name);
    // `note` is a sentence, not a case.
    for (case, value) in fixture.cases.iter().filter(|(_, value)| value.is_object()) {
        let outcome = match rules(case, value, fixture) {
            Err(error) => CaseOutcome::Fail(vec![Comparison::failed(case, error.to_string())]),
            Ok(Err(unknown)) => CaseOutcome::Unsupported(unknown),
            Ok(Ok(rules)) => match probabilities(fixture, &rules) {
                Err(message) => CaseOutcome::Fail(vec![Comparison::failed(case, message)]),
                Ok(probs) => CaseOutcome::from_comparisons(
                    case,
                    vec![fixture.compare(&format!("out.{case}.probs"), &probs, None)],
                ),
            },
        };
        report.record(case, outcome);
    }
    report
}

/// Reads the rules of a case; the inner error says what is not supported.
fn rules(
    case: &str,
    value: &Value,
    fixture: &Fixture,
) -> Result<Result<Rules, String>, FixtureError> {
    let fields = Fields::new(format!("cases.{case}"), value);
    let mut prompt_len = fixture
        .shape("in.previous_ids")?
        .last()
        .copied()
        .unwrap_or(0);
    let mut filters = Vec::new();
    for (key, member) in value.as_object().into_iter().flatten() {
        match key.as_str() {
            "applied_in_order" => {
                for (name, number) in fields.read::<Vec<(String, f64)>>(key)? {
                    match filter(&name, number) {
                        Some(filter) => filters.push(filter),
                        None => return Ok(Err(format!("the rule `{name}`"))),
                    }
                }
            }
            "min_new_tokens" => filters.push(Filter::MinNewTokens {
                count: fields.read(key)?,
                end_ids: fields.read("eos_token_ids")?,
            }),
            "prompt_length" => prompt_len = fields.read(key)?,
            "bad_words_ids" => filters.push(Filter::BadWords(fields.read(key)?)),
            "eos_token_ids" | "note" => {}
            other => return Ok(Err(format!("the option `{other}` ({member})"))),
        }
    }
    Ok(Ok(Rules {
        filters,
        prompt_len,
    }))
}

fn filter(name: &str, number: f64) -> Option<Filter> {
    Some(match name {
        "temperature" => Filter::Temperature(number),
        "top_k" => Filter::TopK(number as usize),
        "top_p" => Filter::TopP(number),
        "min_p" => Filter::MinP(number),
        "typical_p" => Filter::TypicalP(number),
        "epsilon_cutoff" => Filter::EpsilonCutoff(number),
        "eta_cutoff" => Filter::EtaCutoff(number),
        "repetition_penalty" => Filter::RepetitionPenalty(number),
        "no_repeat_ngram_size" => Filter::NoRepeatNgram(number as usize),
        _ => return None,
    })
}

/// Probabilities of every row, `[B, V]`.
fn probabilities(fixture: &Fixture, rules: &Rules) -> Result<Vec<f64>, String> {
    let text = |error: FixtureError| error.to_string();
    let logits = fixture.f32s("in.logits").map_err(text)?;
    let previous = fixture.i64s("in.previous_ids").map_err(text)?;
    let &[rows, vocab] = fixture.shape("in.logits").map_err(text)? else {
        return Err("in.logits: expected two dimensions".into());
    };
    let length = previous.len() / rows.max(1);
    let ids: Vec<u32> = previous
        .iter()
        .map(|&id| {
            u32::try_from(id).map_err(|_| format!("in.previous_ids: {id} is not a token id"))
        })
        .collect::<Result<_, _>>()?;
    let mut probs = vec![0.0; logits.len()];
    for row in 0..rows {
        let history = History {
            ids: &ids[row * length..(row + 1) * length],
            prompt_len: rules.prompt_len,
        };
        let of_row = row * vocab..(row + 1) * vocab;
        let left = filtered(&logits[of_row.clone()], &rules.filters, &history)
            .map_err(|error| error.to_string())?;
        let probs = &mut probs[of_row];
        for (place, probability) in left.probabilities().into_iter().enumerate() {
            probs[left.id(place) as usize] = probability;
        }
    }
    Ok(probs)
}
