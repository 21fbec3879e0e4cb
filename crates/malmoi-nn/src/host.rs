//! Values in and out of tensors, as plain vectors.

use burn::backend::Flex;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{AllocationProperty, Bytes, DType, Device, Shape, Tensor, TensorData};
use malmoi_kernels::mixed::{Matrix, Values, bf16};

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
    shared(bytes, DType::F32, shape)
}

fn shared<const D: usize>(bytes: bytes::Bytes, format: DType, shape: [usize; D]) -> Tensor<D> {
    let place = bytes.as_ptr() as usize;
    assert!(place.is_multiple_of(format.size()), "aligned values");
    let shared = Bytes::from_shared(bytes, AllocationProperty::File);
    let data = TensorData::from_bytes(shared, shape, format);
    // Not `Tensor::from_data`, which makes f32 of bf16.
    Tensor::from_primitive::<Flex>(FlexTensor::from_data(data))
}

/// A matrix over a part of such bytes of f32 or bf16: element (i, j) is value `start + i * strides[0] + j * strides[1]` of them.
///
/// # Panics
/// When `shape` is no matrix or reaches behind the end, or `bytes` is not aligned.
pub(crate) fn shared_part<const D: usize>(
    bytes: bytes::Bytes,
    format: DType,
    shape: [usize; D],
    start: usize,
    strides: [usize; 2],
) -> Tensor<D> {
    assert_eq!(D, 2, "part of a matrix");
    let width = format.size();
    let len = bytes.len() / width;
    let last: usize = (shape.iter().zip(strides))
        .map(|(n, stride)| n.saturating_sub(1) * stride)
        .sum();
    assert!(start + last < len, "a part within {len} values");
    if strides == [shape[1], 1] {
        let part = start * width..(start + last + 1) * width;
        return shared(bytes.slice(part), format, shape);
    }
    let whole = flex(shared(bytes, format, [len]));
    let strides = strides.map(usize::cast_signed).to_vec();
    let layout = Layout::new(Shape::from(shape), strides, start);
    Tensor::from_primitive::<Flex>(whole.with_layout(layout))
}

/// Hands `f` a matrix as it lies, in its own format.
pub(crate) fn with_matrix<T>(matrix: Tensor<2>, f: impl FnOnce(Matrix<'_>) -> T) -> T {
    let shape = matrix.dims();
    let matrix = flex(matrix);
    let layout = matrix.layout();
    let strides = [0, 1].map(|i| layout.strides()[i].unsigned_abs());
    let start = layout.start_offset();
    let values = match matrix.dtype() {
        DType::BF16 => Values::Bf16(&matrix.storage()[start..]),
        _ => Values::F32(&matrix.storage()[start..]),
    };
    f(Matrix::strided(values, shape, strides))
}

/// A tensor as it lies, outside of any graph.
pub(crate) fn flex<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    let primitive = tensor.inner().try_into_primitive::<Flex>();
    primitive.expect("values live on the CPU device")
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
