//! Forward cases: hidden states, attention, logits, losses and caches.

use std::collections::BTreeMap;

use malmoi_models::{BatchError, Direction, Head, Model, PackedBatch};

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
        layers: Layers::new(),
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
        "encoder_hidden_states" => 0,
        "encoder_attentions" => 1,
        "encoder_last_hidden_state" => 2,
        "hidden_states" | "decoder_hidden_states" => 3,
        "past" => 4,
        "attentions" | "decoder_attentions" => 5,
        "cross_attentions" => 6,
        name if name.ends_with("loss") => 8,
        _ => 7,
    };
    (stage, index)
}

/// Values of every layer, by what they are, so that they are computed once.
type Layers = BTreeMap<&'static str, Vec<Vec<f32>>>;

struct Run<'a> {
    subject: &'a Subject<'a>,
    padded: &'a Padded,
    case: &'a str,
    layers: Layers,
}

impl<'a> Run<'a> {
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
            ("hidden_states" | "decoder_hidden_states", _) => {
                let values = self.layer("hidden", layer, |model| model.hidden_states(batch))?;
                fixture.compare(&name, &self.padded.unpack(&values), positions)
            }
            ("encoder_hidden_states" | "encoder_last_hidden_state", _) => {
                let source = self.source()?;
                let read = |model: &Model| model.source_hidden_states(&source.batch);
                let layer = match parts[0] {
                    "encoder_last_hidden_state" => usize::MAX,
                    _ => layer,
                };
                let values = self.layer("source", layer, read)?;
                fixture.compare(&name, &source.unpack(&values), Some(&source.real))
            }
            ("last_hidden_state", _) => {
                let hidden = model
                    .last_hidden(batch)
                    .map_err(malmoi_models::ModelError::from)?;
                fixture.compare(&name, &self.padded.unpack(&hidden), positions)
            }
            ("attentions" | "decoder_attentions", _) => {
                let read = |model: &Model| model.attention_probabilities(batch);
                let values = self.layer("attention", layer, read)?;
                self.attention(&name, self.padded, self.padded, &values)
            }
            ("cross_attentions", _) => {
                let source = self.source()?;
                let read = |model: &Model| model.cross_attention_probabilities(batch);
                let values = self.layer("cross", layer, read)?;
                self.attention(&name, self.padded, source, &values)
            }
            ("encoder_attentions", _) => {
                let source = self.source()?;
                let read = |model: &Model| model.source_attention_probabilities(&source.batch);
                let values = self.layer("source attention", layer, read)?;
                self.attention(&name, source, source, &values)
            }
            ("past", Some(kind)) => {
                let (values, mask) = self.cache(layer, kind)?;
                fixture.compare(&name, &values, Some(&mask))
            }
            ("logits" | "prediction_logits", _) if self.subject.head.has_vocabulary() => {
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

    /// One layer of what `read` computes for all layers; the last for a number beyond them.
    fn layer(
        &mut self,
        what: &'static str,
        layer: usize,
        read: impl FnOnce(&Model) -> Result<Vec<Vec<f32>>, BatchError>,
    ) -> Result<Vec<f32>, CaseError> {
        if !self.layers.contains_key(what) {
            let all = read(&self.subject.model).map_err(malmoi_models::ModelError::from)?;
            self.layers.insert(what, all);
        }
        let all = &self.layers[what];
        let found = match layer {
            usize::MAX => all.last(),
            layer => all.get(layer),
        };
        found
            .cloned()
            .ok_or_else(|| CaseError::Unsupported(format!("{what} of layer {layer}")))
    }

    /// What the encoder reads; a classifier's text is its own source.
    fn source(&self) -> Result<&'a Padded, CaseError> {
        let reads_twice = self.subject.model.direction() == Direction::EncoderDecoder;
        let own = Some(self.padded).filter(|_| reads_twice);
        let source = self.padded.source.as_deref().or(own);
        source.ok_or_else(|| CaseError::Unsupported("encoder states of a model without one".into()))
    }

    /// Compares probabilities: one entry a query of each head, for rows of padded queries carry no meaning.
    fn attention(&self, name: &str, queries: &Padded, keys: &Padded, packed: &[f32]) -> Comparison {
        let t = queries.t;
        let (values, heads) = queries.unpack_attention(keys, packed);
        let counted: Vec<bool> = (0..queries.real.len() * heads)
            .map(|i| queries.real[(i / (heads * t)) * t + i % t])
            .collect();
        self.subject.fixture.compare(name, &values, Some(&counted))
    }

    /// Keys or values of a layer after running the batch through the cache: `[B, heads, T, d_head]` and which runs of
    /// `d_head` elements count.
    fn cache(&self, layer: usize, kind: &str) -> Result<(Vec<f32>, Vec<bool>), CaseError> {
        let (model, batch, t) = (&self.subject.model, &self.padded.batch, self.padded.t);
        let (heads, d_head) = (
            self.subject.config.n_kv_heads(),
            self.subject.config.d_head(),
        );
        let mut cache = model.new_cache(batch.n_sequences());
        model.advance(batch, &mut cache, &[0])?;
        let sequences = cache
            .layers
            .get(layer)
            .ok_or_else(|| CaseError::Unsupported(format!("layer {layer}")))?;
        let packed: Vec<f32> = sequences
            .iter()
            .map(|s| if kind == "key" { &s.k } else { &s.v })
            .flat_map(|stored| stored.values().to_f32().into_owned())
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
