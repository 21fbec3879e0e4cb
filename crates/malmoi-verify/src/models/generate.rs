//! Generation cases: greedy and beam search, token by token.

use malmoi_infer::beam::{BeamOptions, beam_search};
use malmoi_infer::generate::{Flow, GenerateOptions, generate};
use malmoi_infer::sampling::SamplingSettings;
use serde_json::Value;

use super::forward::prompts;
use super::layout::Padded;
use super::{CaseError, Subject};
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
        let options = GenerateOptions {
            max_new_tokens: self.max_new_tokens,
            end_ids: self.end_ids.clone(),
            sampling: self.sampling.clone(),
            ..GenerateOptions::default()
        };
        let generated = generate(model, &prompts(&self.padded.batch), &options, &mut |step| {
            let at = step.step * vocab_size;
            logits[step.row][at..at + vocab_size].copy_from_slice(step.logits);
            steps[step.row] = step.step + 1;
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
        comparisons.push(self.compare_sequences(&rows, 1)?);
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
        let mut comparisons = vec![self.compare_sequences(&rows, returned)?];
        let name = format!("{}.out.sequences_scores", self.case);
        if self.subject.fixture.has(&name) {
            let scores: Vec<f64> = hypotheses
                .iter()
                .map(|hypothesis| hypothesis.score)
                .collect();
            comparisons.push(self.subject.fixture.compare(&name, &scores, None));
        }
        Ok(comparisons)
    }

    /// The prompt as given (padding included; behind an encoder, the start token) and the new tokens, filled with the padding token up
    /// to the expected width.
    fn compare_sequences(
        &self,
        rows: &[Vec<u32>],
        per_prompt: usize,
    ) -> Result<Comparison, CaseError> {
        let fixture = self.subject.fixture;
        let name = format!("{}.out.sequences", self.case);
        let prompt = fixture.i64s(&format!("{}.in.input_ids", self.case))?;
        let (t, width) = (
            self.padded.t,
            fixture.shape(&name)?.last().copied().unwrap_or(0),
        );
        let mut got = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let start = (i / per_prompt) * t;
            let mut sequence = match self.subject.config.decoder_start() {
                Some(start) => vec![i64::from(start)],
                None => prompt[start..start + t].to_vec(),
            };
            sequence.extend(row.iter().map(|id| i64::from(*id)));
            if sequence.len() < width {
                sequence.resize(width, self.pad);
            }
            got.extend(sequence);
        }
        Ok(fixture.compare_integers(&name, &got, None))
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
