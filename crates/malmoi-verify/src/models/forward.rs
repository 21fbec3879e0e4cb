//! Forward cases: hidden states, attention, logits, losses and caches.

use malmoi_models::{Head, PackedBatch};

use super::layout::Padded;
use super::{CaseError, Subject};
use crate::report::Comparison;
use crate::values::Fields;

/// Compares every output of a case, in network order.
pub(crate) fn check(
    subject: &Subject<'_>,
    case: &str,
    fields: &Fields<'_>,
) -> Result<Vec<Comparison>, CaseError> {
    let padded = Padded::read(subject, case)?;
    let mut outputs: Vec<String> = fields.read("outputs")?;
    outputs.sort_by_key(|output| rank(output));
    let mut run = Run {
        subject,
        padded: &padded,
        case,
        hidden: None,
        attention: None,
    };
    outputs.iter().map(|output| run.compare(output)).collect()
}

/// Network order: what is computed first comes first.
fn rank(output: &str) -> (u8, usize) {
    let index = output
        .split('.')
        .find_map(|part| part.parse().ok())
        .unwrap_or(0);
    let stage = match output.split('.').next().unwrap_or_default() {
        "hidden_states" => 0,
        "past" => 1,
        "attentions" => 2,
        name if name.ends_with("loss") => 4,
        _ => 3,
    };
    (stage, index)
}

struct Run<'a> {
    subject: &'a Subject<'a>,
    padded: &'a Padded,
    case: &'a str,
    hidden: Option<Vec<Vec<f32>>>,
    attention: Option<Vec<Vec<f32>>>,
}

impl Run<'_> {
    fn compare(&mut self, output: &str) -> Result<Comparison, CaseError> {
        let (model, batch) = (&self.subject.model, &self.padded.batch);
        let fixture = self.subject.fixture;
        let name = format!("{}.out.{output}", self.case);
        let parts: Vec<&str> = output.split('.').collect();
        let positions = Some(self.padded.real.as_slice());
        let layer = parts
            .get(1)
            .and_then(|part| part.parse::<usize>().ok())
            .unwrap_or(0);
        Ok(match (parts[0], parts.get(2).copied()) {
            ("hidden_states", _) => {
                let hidden = match self.hidden.take() {
                    Some(hidden) => hidden,
                    None => model
                        .hidden_states(batch)
                        .map_err(malmoi_models::ModelError::from)?,
                };
                let values = hidden
                    .get(layer)
                    .map(|hidden| self.padded.unpack(hidden))
                    .unwrap_or_default();
                self.hidden = Some(hidden);
                fixture.compare(&name, &values, positions)
            }
            ("last_hidden_state", _) => {
                let hidden = model
                    .last_hidden(batch)
                    .map_err(malmoi_models::ModelError::from)?;
                fixture.compare(&name, &self.padded.unpack(&hidden), positions)
            }
            ("attentions", _) => {
                let heads = self.subject.config.n_heads();
                let attention = match self.attention.take() {
                    Some(attention) => attention,
                    None => model
                        .attention_probabilities(batch)
                        .map_err(malmoi_models::ModelError::from)?,
                };
                let packed = attention.get(layer).map_or(&[][..], Vec::as_slice);
                let values = self.padded.unpack_attention(packed, heads);
                self.attention = Some(attention);
                // One entry a query of each head: rows of padded queries carry no meaning.
                let t = self.padded.t;
                let queries: Vec<bool> = (0..self.padded.real.len() * heads)
                    .map(|i| self.padded.real[(i / (heads * t)) * t + i % t])
                    .collect();
                fixture.compare(&name, &values, Some(&queries))
            }
            ("past", Some(kind)) => {
                let (values, mask) = self.cache(layer, kind)?;
                fixture.compare(&name, &values, Some(&mask))
            }
            ("logits" | "prediction_logits", _) if self.has_vocabulary() => {
                let logits = model.logits(batch, &self.padded.all_rows())?;
                fixture.compare(&name, &self.padded.unpack(&logits), positions)
            }
            ("logits", _)
                if matches!(
                    self.subject.head,
                    Head::TokenClassification | Head::ReplacedTokens
                ) =>
            {
                fixture.compare(
                    &name,
                    &self.padded.unpack(&model.outputs(batch)?),
                    positions,
                )
            }
            ("logits" | "seq_relationship_logits" | "sop_logits", _) => {
                fixture.compare(&name, &model.outputs(batch)?, None)
            }
            ("start_logits" | "end_logits", _) => {
                let column = usize::from(output == "end_logits");
                let outputs = model.outputs(batch)?;
                let values: Vec<f32> = outputs.chunks_exact(2).map(|pair| pair[column]).collect();
                fixture.compare(&name, &self.padded.unpack(&values), positions)
            }
            ("mc_logits", _) => {
                let tokens = fixture.i64s(&format!("{}.in.mc_token_ids", self.case))?;
                let scores = model.choice_logits(batch, &self.padded.choice_rows(tokens)?)?;
                fixture.compare(&name, &scores, None)
            }
            ("loss" | "mc_loss", _) => {
                let labels = self.padded.labels(self.subject, self.case)?;
                let labels =
                    labels.ok_or_else(|| CaseError::Unsupported("a loss without labels".into()))?;
                let report = model.loss(batch, &labels)?;
                let part = |wanted: &str| {
                    report
                        .parts
                        .iter()
                        .find(|part| part.name == wanted)
                        .map(|part| part.loss)
                };
                let value = match (self.subject.head, output) {
                    (Head::DoubleHeads, "loss") => part("lm"),
                    (Head::DoubleHeads, _) => part("choice"),
                    _ => Some(report.loss),
                };
                fixture.compare(&name, &value.into_iter().collect::<Vec<f64>>(), None)
            }
            _ => return Err(CaseError::Unsupported(format!("output {output}"))),
        })
    }

    fn has_vocabulary(&self) -> bool {
        matches!(
            self.subject.head,
            Head::MaskedLm | Head::Pretraining | Head::CausalLm | Head::DoubleHeads
        )
    }

    /// Keys or values of a layer after running the batch through the cache: `[B, heads, T, d_head]` and which runs of
    /// `d_head` elements count.
    fn cache(&self, layer: usize, kind: &str) -> Result<(Vec<f32>, Vec<bool>), CaseError> {
        let (model, batch, t) = (&self.subject.model, &self.padded.batch, self.padded.t);
        let (heads, d_head) = (self.subject.config.n_heads(), self.subject.config.d_head());
        let mut cache = model.new_cache(batch.n_sequences());
        model.advance(batch, &mut cache, &[0])?;
        let sequences = cache
            .layers
            .get(layer)
            .ok_or_else(|| CaseError::Unsupported(format!("layer {layer}")))?;
        let packed: Vec<f32> = sequences
            .iter()
            .flat_map(|s| if kind == "key" { &s.k } else { &s.v })
            .copied()
            .collect();
        // [B, T, heads, d_head] → [B, heads, T, d_head]
        let padded = self.padded.unpack(&packed);
        let mut values = vec![0.0; padded.len()];
        let mut mask = vec![false; padded.len() / d_head];
        for (i, run) in padded.chunks_exact(d_head).enumerate() {
            let (position, head) = (i / heads, i % heads);
            let to = ((position / t) * heads + head) * t + position % t;
            values[to * d_head..(to + 1) * d_head].copy_from_slice(run);
            mask[to] = self.padded.real[position];
        }
        Ok((values, mask))
    }
}

/// The token ids of each sequence.
pub(crate) fn prompts(batch: &PackedBatch) -> Vec<Vec<u32>> {
    batch
        .sequences()
        .map(|rows| batch.ids[rows].to_vec())
        .collect()
}
