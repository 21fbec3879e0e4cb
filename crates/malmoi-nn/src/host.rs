//! Values in and out of tensors, as plain vectors.

use burn::tensor::{Device, Tensor, TensorData};

/// A tensor of the given shape on the CPU device, without copying.
///
/// # Panics
/// When `data` does not fill `shape`.
pub fn tensor<const D: usize>(data: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(data, shape), &Device::flex())
}

/// The values of a tensor in row-major order; not copied when nothing else holds the tensor.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .inner()
        .into_data()
        .try_into_vec()
        .expect("an f32 tensor")
}

/// The same values without a graph behind them, without copying.
pub fn plain<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.inner()
}
