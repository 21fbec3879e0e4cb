//! Values in and out of tensors, as plain vectors.

use burn::tensor::{AllocationProperty, Bytes, DType, Device, Tensor, TensorData};
use malmoi_kernels::mixed::{Values, bf16};

/// A tensor of the given shape on the CPU device, without copying.
///
/// # Panics
/// When `data` does not fill `shape`.
pub fn tensor<const D: usize>(data: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(data, shape), &Device::flex())
}

/// A tensor of the given shape on the CPU device over f32 bytes that others may hold as well. Whoever changes it gets a copy.
///
/// # Panics
/// When `bytes` does not fill `shape` or is not aligned.
pub fn shared_tensor<const D: usize>(bytes: bytes::Bytes, shape: [usize; D]) -> Tensor<D> {
    assert!(bytes.as_ptr().cast::<f32>().is_aligned(), "aligned values");
    let shared = Bytes::from_shared(bytes, AllocationProperty::File);
    Tensor::from_data(
        TensorData::from_bytes(shared, shape, DType::F32),
        &Device::flex(),
    )
}

/// The values of a tensor in row-major order; not copied when nothing else holds the tensor.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.inner().into_data();
    if data.dtype() == DType::BF16 {
        let narrow: Vec<bf16> = data.try_into_vec().expect("a bf16 tensor");
        return Values::Bf16(&narrow).to_f32().into_owned();
    }
    data.try_into_vec().expect("an f32 tensor")
}

/// The same values without a graph behind them, without copying.
pub fn plain<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.inner()
}
