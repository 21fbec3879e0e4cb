//! The small layers: dense, norm, embedding. Weights start as zeros (ones for scales) that are not even allocated
//! until they are read; loading or initialisation fills them.

use std::sync::Arc;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Shape, Tensor};

use crate::ops;
use crate::pass::Pass;
use crate::weights::WeightCache;

/// A parameter of a given shape filled with `value` on first use.
pub fn parameter<const D: usize>(shape: [usize; D], value: f32) -> Param<Tensor<D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device: &Device, require_grad| {
            let tensor = Tensor::full(shape, value, device);
            if require_grad {
                tensor.require_grad()
            } else {
                tensor
            }
        },
        Device::flex(),
        true,
        Shape::from(shape),
    )
}

/// `y = x Wᵀ + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_out, d_in]`.
    pub weight: Param<Tensor<2>>,
    /// `[d_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    cache: WeightCache,
}

impl Linear {
    /// A layer from `d_in` to `d_out` columns.
    pub fn new(d_in: usize, d_out: usize, bias: bool) -> Self {
        Self {
            weight: parameter([d_out, d_in], 0.0),
            bias: bias.then(|| parameter([d_out], 0.0)),
            cache: WeightCache::default(),
        }
    }

    /// `x [N, d_in]` → `[N, d_out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        ops::dense(x, self.parameters())
    }

    /// What an operation needs of the layer.
    pub fn parameters(&self) -> ops::Dense {
        ops::Dense {
            weight: self.weight.clone(),
            bias: self.bias.as_ref().map(Param::val),
            cache: Some(self.cache.clone()),
        }
    }

    /// Multiply-adds a row.
    pub(crate) fn products(&self) -> u64 {
        self.weight.lazy_shape().num_elements() as u64
    }
}

/// Which normalisation a norm computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Mean 0 and variance 1, then a scale and a shift (Ba et al., 2016).
    Layer,
    /// The same without the shift (ModernBERT).
    LayerWithoutShift,
    /// Mean square 1, then a scale (Zhang and Sennrich, 2019).
    Rms,
}

/// Everything about a norm but its width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormConfig {
    /// What it computes.
    pub kind: NormKind,
    /// Added to the variance or the mean square.
    pub eps: f32,
}

/// Normalisation of rows with a learned scale and, for some kinds, a learned shift.
#[derive(Module, Debug)]
pub struct Norm {
    /// Scale, `[D]`.
    pub gamma: Param<Tensor<1>>,
    /// Shift, `[D]`.
    pub beta: Option<Param<Tensor<1>>>,
    #[module(skip)]
    config: NormConfig,
}

impl Norm {
    /// A norm over `d` columns.
    pub fn new(d: usize, config: NormConfig) -> Self {
        Self {
            gamma: parameter([d], 1.0),
            beta: (config.kind == NormKind::Layer).then(|| parameter([d], 0.0)),
            config,
        }
    }

    /// A layer norm with scale and shift over `d` columns; `eps` is added to the variance.
    pub fn layer(d: usize, eps: f32) -> Self {
        Self::new(
            d,
            NormConfig {
                kind: NormKind::Layer,
                eps,
            },
        )
    }

    /// `x [N, D]` → `[N, D]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let beta = self.beta.as_ref().map(Param::val);
        ops::norm(x, self.gamma.val(), beta, self.config)
    }

    /// `norm(dropout(branch) + residual)`, all `[N, D]`.
    pub fn forward_residual(
        &self,
        branch: Tensor<2>,
        residual: Tensor<2>,
        dropout: f32,
        pass: &Pass,
    ) -> Tensor<2> {
        match pass.dropout(dropout) {
            None => {
                let beta = self.beta.as_ref().map(Param::val);
                ops::residual_norm(branch, residual, self.gamma.val(), beta, self.config)
            }
            dropout => self.forward(ops::add_dropout(branch, residual, dropout)),
        }
    }
}

/// A table of vectors.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[V, D]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// A table of `n` vectors of width `d`.
    pub fn new(n: usize, d: usize) -> Self {
        Self {
            weight: parameter([n, d], 0.0),
        }
    }

    /// This table with the ids to look up in it, for [`ops::sum_of_embeddings`].
    pub fn at(&self, ids: &Arc<[u32]>) -> (Tensor<2>, Arc<[u32]>) {
        (self.weight.val(), Arc::clone(ids))
    }
}
