//! Generation cases: greedy and beam search, token by token.
//!
//! Of a model in bf16 a token may be another one than the reference's where the two are equally good within the tolerance of
//! the logits. From there on a row goes its own way, and nothing more of it is compared. The best hypothesis
//! of a beam search may be another one if its score is the reference's within what the tolerance of the logits allows; the others depend on
//! what was dropped on the way, so that no bound holds for them.

use malmoi_infer::beam::{BeamOptions, beam_search};
use malmoi_infer::generate::{Flow, GenerateOptions, Step, generate};
use malmoi_infer::sampling::{Filter, History, SamplingSettings, filtered};
use serde_json::Value;

use super::forward::prompts;
use super::layout::Padded;
use super::{CaseError, Subject};
use crate::compare::{Tolerance, compare};
use crate::report::Comparison;
use crate::values::Fields;

/// Options that are read below; any other makes the case unsupported.
const KNOWN: &[&str] = &[
    "eos_token_id",
    "do_sample",
    "num_beams",
    "max_new_tokens",
    "pad_token_id",
    "length_penalty",
    "early_stopping",
    "num_return_sequences",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "min_new_tokens",
];

/// Compares sequences, scores and step logits.
pub(crate) fn check(
    subject: &Subject<'_>,
    case: &str,
    fields: &Fields<'_>,
) -> Result<Vec<Comparison>, CaseError> {
    let given = fields.get("options")?;
    let unknown = given
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .find(|key| !KNOWN.contains(key));
    if let Some(key) = unknown {
        return Err(CaseError::Unsupported(format!("generation option {key}")));
    }
    let options = Fields::new("options", given);
    if options.has("do_sample") && options.read::<bool>("do_sample")? {
        return Err(CaseError::Unsupported(
            "sampling with another generator".into(),
        ));
    }
    if given
        .get("early_stopping")
        .is_some_and(|value| !value.is_boolean())
    {
        return Err(CaseError::Unsupported(
            "early_stopping that is neither true nor false".into(),
        ));
    }
    let run = Run {
        subject,
        case,
        padded: Padded::read(subject, case)?,
        beams: optional(&options, "num_beams")?.unwrap_or(1),
        max_new_tokens: options.read("max_new_tokens")?,
        end_ids: optional(&options, "eos_token_id")?.into_iter().collect(),
        pad: optional::<i64>(&options, "pad_token_id")?.unwrap_or(0),
        sampling: SamplingSettings {
            do_sample: false,
            repetition_penalty: optional(&options, "repetition_penalty")?,
            no_repeat_ngram_size: optional(&options, "no_repeat_ngram_size")?,
            min_new_tokens: optional(&options, "min_new_tokens")?,
            ..SamplingSettings::default()
        },
    };
    if run.beams > 1 {
        run.beam(&options)
    } else {
        run.greedy()
    }
}

struct Run<'a> {
    subject: &'a Subject<'a>,
    case: &'a str,
    padded: Padded,
    beams: usize,
    max_new_tokens: usize,
    end_ids: Vec<u32>,
    pad: i64,
    sampling: SamplingSettings,
}

impl Run<'_> {
    fn greedy(self) -> Result<Vec<Comparison>, CaseError> {
        let model = &self.subject.model;
        let (rows, vocab_size) = (
            self.padded.batch.n_sequences(),
            self.subject.config.vocab_size(),
        );
        let mut logits = vec![vec![0.0_f32; self.max_new_tokens * vocab_size]; rows];
        let mut steps = vec![0; rows];
        let mut way = self.way()?;
        let options = GenerateOptions {
            max_new_tokens: self.max_new_tokens,
            end_ids: self.end_ids.clone(),
            sampling: self.sampling.clone(),
            ..GenerateOptions::default()
        };
        let generated = generate(model, &prompts(&self.padded.batch), &options, &mut |step| {
            let at = step.step * vocab_size;
            logits[step.row][at..at + vocab_size].copy_from_slice(step.logits);
            if way.as_mut().is_none_or(|way| way.follows(step)) {
                steps[step.row] = step.step + 1;
            }
            Flow::Continue
        })?;
        let mut comparisons = Vec::new();
        let name = format!("{}.out.step_logits", self.case);
        if self.subject.fixture.has(&name) {
            // Steps after a row's end are not computed.
            let mask: Vec<bool> = steps
                .iter()
                .flat_map(|n| (0..self.max_new_tokens).map(move |step| step < *n))
                .collect();
            comparisons.push(
                self.subject
                    .fixture
                    .compare(&name, &logits.concat(), Some(&mask)),
            );
        }
        let rows: Vec<Vec<u32>> = generated.into_iter().map(|row| row.ids).collect();
        let shared: Option<Vec<usize>> = way.map(|way| way.rows.iter().map(|r| r.shared).collect());
        comparisons.push(self.compare_sequences(&rows, 1, shared.as_deref())?);
        Ok(comparisons)
    }

    fn beam(self, options: &Fields<'_>) -> Result<Vec<Comparison>, CaseError> {
        let returned = optional(options, "num_return_sequences")?.unwrap_or(1);
        let beam = BeamOptions {
            num_beams: self.beams,
            num_return_sequences: returned,
            max_new_tokens: self.max_new_tokens,
            length_penalty: optional(options, "length_penalty")?.unwrap_or(1.0),
            early_stopping: optional(options, "early_stopping")?.unwrap_or(false),
            end_ids: self.end_ids.clone(),
            sampling: self.sampling.clone(),
        };
        let found = beam_search(&self.subject.model, &prompts(&self.padded.batch), &beam)?;
        let hypotheses: Vec<_> = found.into_iter().flatten().collect();
        let rows: Vec<Vec<u32>> = hypotheses
            .iter()
            .map(|hypothesis| hypothesis.ids.clone())
            .collect();
        let fixture = self.subject.fixture;
        let name = format!("{}.out.sequences_scores", self.case);
        if !fixture.has(&name) {
            return Ok(vec![self.compare_sequences(&rows, returned, None)?]);
        }
        let scores: Vec<f64> = hypotheses
            .iter()
            .map(|hypothesis| hypothesis.score)
            .collect();
        let Some(rounding) = fixture.rounding() else {
            let sequences = self.compare_sequences(&rows, returned, None)?;
            return Ok(vec![sequences, fixture.compare(&name, &scores, None)]);
        };
        // The logarithm of a probability is off by as much as a logit and the logarithm of the sum together.
        let a_token = 2.0 * rounding.of_logits(fixture);
        let expected = fixture.f32s(&name)?;
        let mut bound = 0.0_f64;
        for hypothesis in &hypotheses {
            let tokens = hypothesis.ids.len() as f64;
            bound = bound.max(tokens * a_token / tokens.powf(beam.length_penalty));
        }
        let tolerance = Tolerance {
            atol: bound,
            rtol: 0.0,
            atol_90_percent: None,
        };
        let shape = fixture.shape(&name)?;
        let best: Vec<bool> = (0..scores.len()).map(|i| i % returned == 0).collect();
        Ok(vec![compare(
            &name,
            &scores,
            expected,
            shape,
            tolerance,
            Some(&best),
        )])
    }

    /// The way that the reference took, for a model that may leave it at a tie.
    fn way(&self) -> Result<Option<Way>, CaseError> {
        let fixture = self.subject.fixture;
        let Some(rounding) = fixture.rounding() else {
            return Ok(None);
        };
        let name = format!("{}.out.sequences", self.case);
        let width = fixture.shape(&name)?.last().copied().unwrap_or(0);
        let (expected, start) = (fixture.i64s(&name)?, self.subject.config.decoder_start());
        let rows = prompts(&self.padded.batch)
            .into_iter()
            .enumerate()
            .map(|(i, prompt)| {
                let given = if start.is_some() { 1 } else { self.padded.t };
                let ids = start.map_or(prompt, |start| vec![start]);
                Row {
                    expected: expected[i * width + given..(i + 1) * width].to_vec(),
                    prompt_len: ids.len(),
                    ids,
                    shared: 0,
                    left: false,
                }
            });
        Ok(Some(Way {
            rows: rows.collect(),
            rules: self.sampling.constraints(&self.end_ids),
            tie: 2.0 * rounding.of_logits(fixture),
        }))
    }

    /// The prompt as given (padding included; behind an encoder, the start token) and the new tokens, filled with the padding token up
    /// to the expected width. Of rows that left the reference's way at a tie only the `shared` new tokens before count.
    fn compare_sequences(
        &self,
        rows: &[Vec<u32>],
        per_prompt: usize,
        shared: Option<&[usize]>,
    ) -> Result<Comparison, CaseError> {
        let fixture = self.subject.fixture;
        let name = format!("{}.out.sequences", self.case);
        let prompt = fixture.i64s(&format!("{}.in.input_ids", self.case))?;
        let (t, width) = (
            self.padded.t,
            fixture.shape(&name)?.last().copied().unwrap_or(0),
        );
        let (mut got, mut counted) = (Vec::new(), Vec::new());
        for (i, row) in rows.iter().enumerate() {
            let start = (i / per_prompt) * t;
            let mut sequence = match self.subject.config.decoder_start() {
                Some(start) => vec![i64::from(start)],
                None => prompt[start..start + t].to_vec(),
            };
            let common = shared.map_or(width, |shared| sequence.len() + shared[i]);
            counted.extend((0..width).map(|at| at < common));
            sequence.extend(row.iter().map(|id| i64::from(*id)));
            if sequence.len() < width {
                sequence.resize(width, self.pad);
            }
            got.extend(sequence);
        }
        let counted = shared.map(|_| counted);
        Ok(fixture.compare_integers(&name, &got, counted.as_deref()))
    }
}

/// The tokens of the reference, row by row, and how far they have been followed.
struct Way {
    rows: Vec<Row>,
    /// What changes logits before a token is chosen.
    rules: Vec<Filter>,
    /// Logits that are no further apart are equally good.
    tie: f64,
}

struct Row {
    /// New tokens of the reference, then padding.
    expected: Vec<i64>,
    prompt_len: usize,
    /// The prompt and the new tokens so far.
    ids: Vec<u32>,
    /// New tokens that must agree: all those followed, and one that differs without a tie.
    shared: usize,
    left: bool,
}

impl Way {
    /// Whether what came before this step is the reference's, so that its logits are.
    fn follows(&mut self, step: &Step<'_>) -> bool {
        let row = &mut self.rows[step.row];
        if row.left {
            return false;
        }
        let history = History {
            ids: &row.ids,
            prompt_len: row.prompt_len,
        };
        let expected = row.expected.get(step.step).copied().unwrap_or(-1);
        if expected == i64::from(step.token) {
            row.shared += 1;
        } else {
            row.left = true;
            let behind = match (
                filtered(step.logits, &self.rules, &history),
                u32::try_from(expected),
            ) {
                (Ok(logits), Ok(expected)) => logits.logit(step.token) - logits.logit(expected),
                _ => f64::INFINITY,
            };
            // A token that is not a number behind is no tie.
            let is_tie = behind <= self.tie;
            row.shared += usize::from(!is_tie);
        }
        row.ids.push(step.token);
        true
    }
}

/// An option that may be absent or null.
fn optional<T: serde::de::DeserializeOwned>(
    options: &Fields<'_>,
    key: &str,
) -> Result<Option<T>, CaseError> {
    let given = options
        .get(key)
        .ok()
        .filter(|value| !matches!(value, Value::Null));
    Ok(if given.is_some() {
        Some(options.read(key)?)
    } else {
        None
    })
}
