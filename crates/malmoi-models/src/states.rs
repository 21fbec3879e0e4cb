//! Running an encoder-decoder on embeddings given as values, for comparing blocks alone with a reference.

use malmoi_nn::{BatchError, Memory, PackedBatch, Pass, bridge, host};

use crate::config::Direction;
use crate::error::ModelError;
use crate::loss::NamedGradient;
use crate::model::Model;

/// What comes of [`Model::run_states`].
#[derive(Clone, Debug)]
pub struct StatesRun {
    /// The encoder's output, `[M, D]`.
    pub memory: Vec<f32>,
    /// The decoder's output, `[N, D]`.
    pub output: Vec<f32>,
    /// Gradients of `Σ output · weights`, in module order; nothing for what stands outside the blocks.
    pub gradients: Vec<NamedGradient>,
}

impl Model {
    /// Runs both stacks on embedding outputs: `source [M, D]` and `target [N, D]`, packed as `batch` and its source say (their ids
    /// count for nothing), without dropout; and differentiates `Σ output · weights`, `weights [N, D]`.
    ///
    /// # Errors
    /// A model without an encoder in front, or a batch without a source.
    ///
    /// # Panics
    /// When the model was opened for inference, or values do not fill their shapes.
    pub fn run_states(
        &self,
        batch: &PackedBatch,
        source: Vec<f32>,
        target: Vec<f32>,
        weights: Vec<f32>,
    ) -> Result<StatesRun, ModelError> {
        let wrong = || self.wrong_head("running both stacks", "an encoder in front (T5)");
        let (Some(sources), Direction::EncoderDecoder) = (&batch.source, self.direction()) else {
            return Err(wrong());
        };
        let missing = BatchError::Source("a source that does not fill its rows");
        let d = self.config.d_model();
        if source.len() != sources.n_tokens() * d || target.len() != batch.n_tokens() * d {
            return Err(missing.into());
        }
        let pass = Pass::inference();
        let source = host::tensor(source, [sources.n_tokens(), d]).autodiff();
        let target = host::tensor(target, [batch.n_tokens(), d]).autodiff();
        let weights = host::tensor(weights, [batch.n_tokens(), d]).autodiff();
        let stack = self.net.source_stack().ok_or_else(wrong)?;
        let states = stack.forward(source, sources, None, &pass, &mut |_| ());
        let states = self.net.finish_source(states, &pass);
        let memory = Memory {
            states: states.clone(),
            cu_seqlens: std::sync::Arc::clone(&sources.cu_seqlens),
        };
        let stack = self.net.stack();
        let output = stack.forward(target, batch, Some(memory), &pass, &mut |_| ());
        let output = self.net.finish(output, &pass);
        let loss = (output.clone() * weights).sum_dim(0).sum_dim(1);
        let mut gradients = bridge::backward(&loss);
        Ok(StatesRun {
            memory: host::values(states),
            output: host::values(output),
            gradients: self.net.gradients(&mut gradients),
        })
    }
}
