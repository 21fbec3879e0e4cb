//! Classes of texts that an encoder-decoder reads on both sides (BART, section 3.1; T5 as published code classifies with it).

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_nn::ops;
use malmoi_nn::{Activation, Linear, PackedBatch, Pass};

use crate::common::Common;
use crate::head::Head;

/// Two dense layers on the decoder's state at the end of the text, a tanh between them and dropout before each.
#[derive(Module, Debug)]
pub(crate) struct SequenceHead {
    dense: Linear,
    output: Linear,
    #[module(skip)]
    dropout: f32,
    #[module(skip)]
    start: Option<u32>,
    #[module(skip)]
    end: Option<u32>,
}

impl SequenceHead {
    /// The classifier, where `head` asks for it, with weights yet to be filled.
    pub(crate) fn of(common: &Common, head: Head, dropout: f32) -> Option<Self> {
        let d = common.sizes.d_model;
        (head == Head::SequenceClassification).then(|| Self {
            dense: Linear::new(d, d, true),
            output: Linear::new(d, common.labels.n_labels, true),
            dropout,
            start: common.source.map(|source| source.decoder_start_token_id),
            end: common.tokens.eos,
        })
    }

    /// A batch of texts as the source of themselves: the decoder reads each one token later. `None` where a source is given.
    pub(crate) fn paired(&self, batch: &PackedBatch) -> Option<PackedBatch> {
        if batch.source.is_some() {
            return None;
        }
        let mut ids = Vec::with_capacity(batch.n_tokens());
        for rows in batch.sequences().filter(|rows| !rows.is_empty()) {
            ids.extend(self.start);
            ids.extend(&batch.ids[rows.start..rows.end - 1]);
        }
        let shifted = PackedBatch {
            ids: ids.into(),
            ..batch.clone()
        };
        Some(shifted.with_source(batch.clone()))
    }

    /// Logits `[B, K]` of decoder states `[N, D]`, read where each text ends: at its last end token, or last token where it has none.
    pub(crate) fn outputs(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        pass: &Pass,
    ) -> Option<Tensor<2>> {
        let source = batch.source.as_ref()?;
        let ends = source.sequences().map(|mut rows| {
            let last = rows.end.saturating_sub(1);
            let end = rows.rfind(|row| Some(source.ids[*row]) == self.end);
            end.unwrap_or(last) as u32
        });
        let rows = ops::gather_rows(hidden, ends.collect());
        let dropped = |x| ops::dropout(x, pass.dropout(self.dropout));
        let dense = ops::activation(self.dense.forward(dropped(rows)), Activation::Tanh);
        Some(self.output.forward(dropped(dense)))
    }
}
