//! Fixtures of training objectives: rules with all random draws given as data.

use std::path::Path;

use malmoi_kernels::random::{Key, Purpose};
use malmoi_tasks::inputs::TaskTokens;
use malmoi_tasks::qa;
use malmoi_train::objectives::span_corruption::SpanRates;
use malmoi_train::objectives::{
    IGNORED, causal, infilling, masked, pairs, patterns, permutation, replaced, span_corruption,
    translation, words,
};
use serde_json::{Value, json};

use crate::fixture::{name_of, read_json};
use crate::report::{CaseOutcome, Comparison};
use crate::values::Fields;
use crate::{FixtureError, FixtureReport};

type Checked = Result<Vec<Comparison>, FixtureError>;
/// Checks one group; the second argument is the whole group.
type Check = fn(&Fields<'_>, &Value) -> Checked;

/// The groups of `objectives.json` and their checks, run once for each entry of `cases`.
const CHECKS: &[(&str, Check)] = &[
    ("t5_span_corruption", span_corruption),
    ("t5_span_lengths", span_lengths),
    ("t5_noise_mask_counts", noise_mask_counts),
    ("bert_mlm", masked_lm),
    ("electra_replaced_tokens", replaced_tokens),
    ("sentence_pair_packing", pair_packing),
    ("causal_lm_shift", causal_shift),
    ("whole_word_groups", whole_words),
    ("sentence_order", sentence_order),
    ("translation_lm", translation_lm),
    ("attention_patterns", attention_patterns),
    ("bart_text_infilling", text_infilling),
    ("bart_document_rotation", document_rotation),
    ("qa_sliding_windows", qa_windows),
    ("qa_best_span", qa_best_span),
    ("lm_chunking", chunking),
    ("strided_perplexity", strided_perplexity),
    ("gpt_task_inputs", gpt_task_inputs),
    ("permutation_lm", permutation_lm),
];

/// Checks `objectives.json`.
pub fn check(dir: &Path) -> Result<FixtureReport, FixtureError> {
    let json = read_json(&dir.join("objectives.json"))?;
    let mut report = FixtureReport::new(name_of(dir));
    let groups = json
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !name.starts_with('_'));
    for (name, group) in groups {
        let outcome = match CHECKS.iter().find(|(known, _)| known == name) {
            None => CaseOutcome::Unsupported("no such objective".into()),
            Some((_, check)) => match check_group(name, group, *check) {
                Ok(comparisons) => CaseOutcome::from_comparisons(name, comparisons),
                Err(error) => CaseOutcome::Fail(vec![Comparison::failed(name, error.to_string())]),
            },
        };
        report.record(name, outcome);
    }
    Ok(report)
}

fn check_group(name: &str, group: &Value, check: Check) -> Checked {
    let mut comparisons = Vec::new();
    match group.get("cases").and_then(Value::as_array) {
        Some(cases) => {
            for (i, case) in cases.iter().enumerate() {
                comparisons.extend(check(&Fields::new(format!("{name}.{i}"), case), group)?);
            }
        }
        None => comparisons.extend(check(&Fields::new(name, group), group)?),
    }
    if let Some(proportions) = group.get("proportions") {
        comparisons.extend(masking_proportions(&Fields::new(
            format!("{name}.proportions"),
            proportions,
        ))?);
    }
    Ok(comparisons)
}

/// A rule of ours refused the data of a reference.
fn refused(fields: &Fields<'_>, error: impl std::fmt::Display) -> FixtureError {
    FixtureError::Value {
        key: fields.path(""),
        expected: "data that the rule accepts".into(),
        found: error.to_string(),
    }
}

fn flags_to_numbers(rows: Vec<Vec<bool>>) -> Vec<Vec<u8>> {
    rows.into_iter()
        .map(|row| row.into_iter().map(u8::from).collect())
        .collect()
}

fn span_corruption(case: &Fields<'_>, _: &Value) -> Checked {
    let tokens: Vec<u32> = case.read("tokens")?;
    let noise = case.flags("noise_mask")?;
    let corrupted = span_corruption::corrupt(
        &tokens,
        &noise,
        case.read("first_sentinel")?,
        case.read("eos")?,
    )
    .map_err(|error| refused(case, error))?;
    Ok(vec![
        case.compare("inputs", corrupted.inputs, 0.0),
        case.compare("targets", corrupted.targets, 0.0),
    ])
}

fn span_rates(case: &Fields<'_>) -> Result<SpanRates, FixtureError> {
    Ok(SpanRates {
        density: case.read("noise_density")?,
        mean_span: case.read("mean_span")?,
    })
}

fn span_lengths(case: &Fields<'_>, _: &Value) -> Checked {
    let (raw, targets) = span_rates(case)?
        .raw_length(case.read("inputs_length")?)
        .map_err(|error| refused(case, error))?;
    Ok(vec![
        case.compare("raw_length", raw, 0.0),
        case.compare("targets_length", targets, 0.0),
    ])
}

fn noise_mask_counts(case: &Fields<'_>, _: &Value) -> Checked {
    let (tokens, spans) = span_rates(case)?.counts(case.read("length")?);
    Ok(vec![
        case.compare("noise_tokens", tokens, 0.0),
        case.compare("noise_spans", spans, 0.0),
    ])
}

fn masked_lm(case: &Fields<'_>, _: &Value) -> Checked {
    let ids: Vec<u32> = case.read("input_ids")?;
    let special_ids: Vec<u32> = case.read("special_ids")?;
    let special: Vec<bool> = ids.iter().map(|id| special_ids.contains(id)).collect();
    let (select, action): (Vec<f64>, Vec<f64>) =
        (case.read("draw_select")?, case.read("draw_action")?);
    let random_ids: Vec<u32> = case.read("random_ids")?;
    let rates = masked::MaskingRates {
        chosen: case.read("probability")?,
        ..Default::default()
    };
    let draws = masked::MaskingDraws {
        select: &select,
        action: &action,
        random_ids: &random_ids,
    };
    let got = masked::mask_tokens(&ids, &special, case.read("mask_id")?, rates, draws, None)
        .map_err(|error| refused(case, error))?;
    Ok(vec![
        case.compare("masked_ids", got.ids, 0.0),
        case.compare("labels", got.labels, 0.0),
    ])
}

/// The shares that our own sampler produces, each within four standard deviations as the reference asks.
fn masking_proportions(fields: &Fields<'_>) -> Checked {
    const TOKENS: usize = 50_000;
    const ORIGINAL: u32 = 1;
    const MASK: u32 = 2;
    let of_selected = Fields::new(fields.path("of_selected"), fields.get("of_selected")?);
    let rates = masked::MaskingRates {
        chosen: fields.read("selected")?,
        mask: of_selected.read("mask")?,
        random: of_selected.read("random")?,
    };
    // A vocabulary so large that a random token is hardly ever the original or the mask.
    let masker = masked::Masker {
        rates,
        mask_id: MASK,
        vocab_size: u32::MAX,
    };
    let key = Key::new(0, Purpose::Masking, 0);
    let got = masker
        .mask(&[ORIGINAL; TOKENS], &[false; TOKENS], None, key)
        .map_err(|error| refused(fields, error))?;
    let chosen: Vec<u32> = got
        .ids
        .iter()
        .zip(&got.labels)
        .filter(|(_, label)| **label != IGNORED)
        .map(|(&id, _)| id)
        .collect();
    let share = |count: usize| count as f64 / chosen.len().max(1) as f64;
    let masks = chosen.iter().filter(|&&id| id == MASK).count();
    let kept = chosen.iter().filter(|&&id| id == ORIGINAL).count();
    let bound = |p: f64, n: usize| 4.0 * (p * (1.0 - p) / n as f64).sqrt();
    let n = chosen.len().max(1);
    let unchanged: f64 = of_selected.read("unchanged")?;
    Ok(vec![
        fields.compare(
            "selected",
            chosen.len() as f64 / TOKENS as f64,
            bound(rates.chosen, TOKENS),
        ),
        of_selected.compare("mask", share(masks), bound(rates.mask, n)),
        of_selected.compare(
            "random",
            share(chosen.len() - masks - kept),
            bound(rates.random, n),
        ),
        of_selected.compare("unchanged", share(kept), bound(unchanged, n)),
    ])
}

fn replaced_tokens(case: &Fields<'_>, _: &Value) -> Checked {
    let original: Vec<u32> = case.read("original")?;
    let positions: Vec<usize> = case.read("masked_positions")?;
    let sampled: Vec<u32> = case.read("sampled")?;
    let got = replaced::replace(&original, &positions, &sampled, case.read("mask_id")?)
        .map_err(|error| refused(case, error))?;
    Ok(vec![
        case.compare("generator_input", got.generator_input, 0.0),
        case.compare("discriminator_input", got.discriminator_input, 0.0),
        case.compare("labels", got.labels, 0.0),
    ])
}

fn pair_packing(case: &Fields<'_>, _: &Value) -> Checked {
    let (a, b): (Vec<u32>, Vec<u32>) = (case.read("a")?, case.read("b")?);
    let max_len: usize = case.read("max_length")?;
    let packed = pairs::pack_pair(&a, &b, max_len, case.read("cls")?, case.read("sep")?)
        .map_err(|error| refused(case, error))?;
    let (ids, segments, mask) = packed.padded(max_len, case.read("pad")?);
    Ok(vec![
        case.compare("input_ids", ids, 0.0),
        case.compare("token_type_ids", segments, 0.0),
        case.compare("attention_mask", mask, 0.0),
    ])
}

fn causal_shift(case: &Fields<'_>, _: &Value) -> Checked {
    let ids: Vec<u32> = case.read("input_ids")?;
    let labels = causal::labels(&ids, &case.flags("attention_mask")?);
    let targets = causal::shifted_targets(&labels);
    Ok(vec![
        case.compare("labels", &labels, 0.0),
        case.compare("logits_position_predicts", &targets, 0.0),
        case.compare("counted_targets", causal::counted(&targets), 0.0),
    ])
}

/// Names of the special tokens of the published vocabularies that belong to no word.
const SPECIAL_NAMES: &[&str] = &[
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[MASK]",
    "<s>",
    "</s>",
    "<pad>",
    "<mask>",
    "<cls>",
    "<sep>",
    "<|endoftext|>",
];

fn whole_words(case: &Fields<'_>, _: &Value) -> Checked {
    let scheme = match case.read::<String>("scheme")?.as_str() {
        "wordpiece" => words::WordScheme::WordPiece,
        "byte_level" => words::WordScheme::ByteLevel,
        "sentencepiece" => words::WordScheme::SentencePiece,
        other => return Err(refused(case, format!("the scheme `{other}`"))),
    };
    let tokens: Vec<String> = case.read("tokens")?;
    let special: Vec<bool> = tokens
        .iter()
        .map(|token| SPECIAL_NAMES.contains(&token.as_str()))
        .collect();
    Ok(vec![case.compare(
        "groups",
        words::whole_word_groups(scheme, &tokens, &special),
        0.0,
    )])
}

fn sentence_order(case: &Fields<'_>, _: &Value) -> Checked {
    let (a, b): (Vec<u32>, Vec<u32>) = (case.read("a")?, case.read("b")?);
    let expected: Vec<u32> = case.read("input_ids")?;
    // The ids of the two special tokens are given by the expected sequence only.
    let (Some(&cls), Some(&sep)) = (expected.first(), expected.last()) else {
        return Err(refused(case, "an empty input_ids"));
    };
    let (first, second, label) = pairs::sentence_order(&a, &b, case.read("swap")?);
    let packed = pairs::pack_pair(first, second, a.len() + b.len() + 3, cls, sep)
        .map_err(|error| refused(case, error))?;
    Ok(vec![
        case.compare("input_ids", packed.ids, 0.0),
        case.compare("label", label, 0.0),
    ])
}

fn translation_lm(case: &Fields<'_>, group: &Value) -> Checked {
    let (source, target): (Vec<u32>, Vec<u32>) = (case.read("src")?, case.read("tgt")?);
    let end_id = Fields::new("translation_lm", group).read("eos")?;
    let pair = translation::pack(
        (&source, case.read("lang_src")?),
        (&target, case.read("lang_tgt")?),
        end_id,
    );
    Ok(vec![
        case.compare("input_ids", pair.ids, 0.0),
        case.compare("position_ids", pair.positions, 0.0),
        case.compare("langs", pair.languages, 0.0),
    ])
}

fn attention_patterns(fields: &Fields<'_>, group: &Value) -> Checked {
    let mut comparisons = Vec::new();
    for (name, value) in group
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "rule")
    {
        let member = Fields::new(fields.path(name), value);
        let (pattern, key) = match name.as_str() {
            "causal" => (patterns::Pattern::Causal, None),
            "prefix_lm" => (
                patterns::Pattern::Prefix(member.read("prefix")?),
                Some("mask"),
            ),
            "seq2seq_unilm" => (
                patterns::Pattern::Prefix(member.read("source")?),
                Some("mask"),
            ),
            "sliding_window" => (
                patterns::Pattern::SlidingWindow {
                    window: member.read("window")?,
                    causal: member.read("causal")?,
                },
                Some("mask"),
            ),
            other => return Err(refused(fields, format!("the pattern `{other}`"))),
        };
        let (at, key) = if let Some(key) = key {
            (&member, key)
        } else {
            (fields, name.as_str())
        };
        let length = at.get(key)?.as_array().map_or(0, Vec::len);
        comparisons.push(at.compare(key, flags_to_numbers(pattern.mask(length)), 0.0));
    }
    Ok(comparisons)
}

fn text_infilling(case: &Fields<'_>, group: &Value) -> Checked {
    let tokens: Vec<u32> = case.read("tokens")?;
    let spans: Vec<(usize, usize)> = case.read("spans")?;
    let mask_id = Fields::new("bart_text_infilling", group).read("mask_id")?;
    let inputs =
        infilling::infill(&tokens, &spans, mask_id).map_err(|error| refused(case, error))?;
    Ok(vec![
        case.compare("inputs", inputs, 0.0),
        case.compare("labels", &tokens, 0.0),
    ])
}

fn document_rotation(case: &Fields<'_>, _: &Value) -> Checked {
    let tokens: Vec<u32> = case.read("tokens")?;
    let inputs =
        infilling::rotate(&tokens, case.read("start")?).map_err(|error| refused(case, error))?;
    Ok(vec![
        case.compare("inputs", inputs, 0.0),
        case.compare("labels", &tokens, 0.0),
    ])
}

fn qa_windows(case: &Fields<'_>, _: &Value) -> Checked {
    let context: usize = case.read("context_tokens")?;
    let windows = qa::context_windows(
        context,
        case.read("question_tokens")?,
        case.read("max_length")?,
        case.read("stride")?,
    )
    .ok_or_else(|| refused(case, "the question leaves no room"))?;
    let listed: Vec<Value> = windows
        .iter()
        .map(|w| json!({"doc_start": w.start, "doc_length": w.length}))
        .collect();
    Ok(vec![
        case.compare("windows", listed, 0.0),
        case.compare("max_context", qa::max_context(&windows, context), 0.0),
    ])
}

fn qa_best_span(case: &Fields<'_>, _: &Value) -> Checked {
    let (starts, ends): (Vec<f64>, Vec<f64>) =
        (case.read("start_logits")?, case.read("end_logits")?);
    let in_context = case.flags("context_mask")?;
    let count = case.get("top3")?.as_array().map_or(3, Vec::len).max(1);
    let spans = qa::best_spans(
        &starts,
        &ends,
        &in_context,
        case.read("max_answer_length")?,
        count,
    );
    let pairs: Vec<[usize; 2]> = spans.iter().map(|span| [span.start, span.end]).collect();
    // Sums of two logits with three decimals.
    let rounding = 1e-9;
    Ok(vec![
        case.compare("best", pairs.first(), 0.0),
        case.compare("score", spans.first().map(|span| span.score), rounding),
        case.compare("top3", &pairs, 0.0),
        case.compare("null_score", qa::null_score(&starts, &ends), rounding),
    ])
}

fn chunking(case: &Fields<'_>, _: &Value) -> Checked {
    let documents: Vec<Vec<u32>> = case.read("documents")?;
    let blocks = causal::blocks(
        documents.iter().map(Vec::as_slice),
        case.read("eos")?,
        case.read("block_size")?,
    );
    Ok(vec![case.compare("blocks", blocks, 0.0)])
}

fn strided_perplexity(case: &Fields<'_>, _: &Value) -> Checked {
    let windows = causal::strided_windows(
        case.read("length")?,
        case.read("window")?,
        case.read("stride")?,
    );
    let listed: Vec<Value> = windows
        .iter()
        .map(|w| json!({"begin": w.begin, "end": w.end, "scored_targets": w.fresh}))
        .collect();
    Ok(vec![case.compare("windows", listed, 0.0)])
}

fn gpt_task_inputs(case: &Fields<'_>, group: &Value) -> Checked {
    let tokens: TaskTokens =
        serde_json::from_value(group.clone()).map_err(|error| refused(case, error))?;
    let read = |key: &str| case.read::<Vec<u32>>(key);
    Ok(vec![match case.read::<String>("task")?.as_str() {
        "classification" => case.compare("input", tokens.single(&read("text")?), 0.0),
        "entailment" => case.compare(
            "input",
            tokens.pair(&read("premise")?, &read("hypothesis")?),
            0.0,
        ),
        "similarity" => case.compare("inputs", tokens.similarity(&read("a")?, &read("b")?), 0.0),
        "multiple_choice" => {
            let answers: Vec<Vec<u32>> = case.read("answers")?;
            case.compare(
                "inputs",
                tokens.multiple_choice(&read("context")?, &answers),
                0.0,
            )
        }
        other => return Err(refused(case, format!("the task `{other}`"))),
    }])
}

fn permutation_lm(case: &Fields<'_>, _: &Value) -> Checked {
    let order: Vec<usize> = case.read("order")?;
    let masks = permutation::masks(&order).map_err(|error| refused(case, error))?;
    Ok(vec![
        case.compare("content_mask", flags_to_numbers(masks.content), 0.0),
        case.compare("query_mask", flags_to_numbers(masks.query), 0.0),
    ])
}
