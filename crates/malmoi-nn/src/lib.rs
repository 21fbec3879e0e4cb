//! Transformer blocks and fused differentiable operations.
