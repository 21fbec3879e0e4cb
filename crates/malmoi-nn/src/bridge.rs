//! The bridge between slices and Burn tensors: one place where a kernel becomes a differentiable operation.
//!
//! An operation is a value that implements [`FusedOp`]: a forward pass and a hand-written backward pass, both on plain
//! `f32` slices. [`apply`] runs it on tensors of the CPU device, with or without autodiff, and does all the graph
//! keeping. No operation needs more glue than its two functions.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Bytes, DType, Shape, Tensor};
use malmoi_kernels::profile::{Cost, Direction};

use crate::profile;

use crate::buffers;

/// One input of an operation as the kernels see it: contiguous row-major values and their shape.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Values in row-major order.
    pub data: &'a [f32],
    /// Shape, outermost dimension first.
    pub shape: &'a [usize],
}

/// What a forward pass returns.
#[derive(Debug)]
pub struct Forward {
    /// Values of the output, row-major.
    pub data: Vec<f32>,
    /// Shape of the output.
    pub shape: Vec<usize>,
    /// Host values that the backward pass needs beside inputs and output; left empty when nothing is tracked.
    pub saved: Vec<Vec<f32>>,
}

impl Forward {
    /// An output with nothing saved beside it.
    pub fn new(data: Vec<f32>, shape: impl Into<Vec<usize>>) -> Self {
        Self {
            data,
            shape: shape.into(),
            saved: Vec::new(),
        }
    }
}

/// What a backward pass gets.
#[derive(Debug)]
pub struct BackwardPass<'a> {
    /// Values of the inputs that [`FusedOp::keep`] asked for; the others are empty. Shapes are always there.
    pub inputs: Vec<Operand<'a>>,
    /// The output's values, if asked for.
    pub output: &'a [f32],
    /// What the forward pass saved, to be consumed.
    pub saved: Vec<Vec<f32>>,
    /// Gradient of the loss with respect to the output.
    pub grad: &'a [f32],
    /// Which inputs need a gradient.
    pub needs: Vec<bool>,
}

/// Which values must live until the backward pass.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Indices of the inputs.
    pub inputs: &'static [usize],
    /// Whether the output is needed.
    pub output: bool,
}

/// Which gradient an input gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// What [`FusedOp::backward`] returns for it.
    Own,
    /// The output's.
    Output,
    /// That of an earlier input.
    Input(usize),
}

/// A fused operation with a hand-written backward pass.
pub trait FusedOp: Debug + Send + Sync + 'static {
    /// Computes the output. `track` says whether a backward pass may follow, so that nothing is saved in vain.
    fn forward(&self, inputs: &[Operand<'_>], track: bool) -> Forward;

    /// Which values [`FusedOp::backward`] reads.
    fn keep(&self) -> Keep;

    /// Gradients of the inputs, in order; `None` where not needed or shared.
    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>>;

    /// Name in profiles.
    fn name(&self) -> &'static str {
        let path = std::any::type_name::<Self>();
        path.rsplit("::").next().unwrap_or(path)
    }

    /// Arithmetic and least traffic of one pass over inputs of these shapes; asked for only while a profile is recorded. `track`
    /// is that of [`FusedOp::forward`], and true for a backward pass.
    fn cost(&self, shapes: &[&[usize]], direction: Direction, _track: bool) -> Cost {
        profile::elementwise(shapes, direction)
    }

    /// Whether the gradient of input `i` is another one as it is, so that it need not be copied.
    fn shares(&self, i: usize) -> Share {
        let _ = i;
        Share::Own
    }
}

/// The CPU primitive of an autodiff device.
type Tracked = FloatTensor<Autodiff<Flex>>;

/// A tensor of any rank on the CPU device, taken out of Burn's front end.
#[derive(Clone, Debug)]
pub enum Primitive {
    /// Not part of a graph.
    Plain(FlexTensor),
    /// On an autodiff device (tracked or not).
    Autodiff(Tracked),
}

/// Takes the CPU primitive out of a tensor.
///
/// # Panics
/// When the tensor lives on another device: operations for other devices are composed from stock ones.
pub fn primitive<const D: usize>(tensor: Tensor<D>) -> Primitive {
    let wrong = "fused operations run on the CPU device";
    if tensor.is_autodiff() {
        Primitive::Autodiff(tensor.try_into_primitive::<Autodiff<Flex>>().expect(wrong))
    } else {
        Primitive::Plain(tensor.try_into_primitive::<Flex>().expect(wrong))
    }
}

/// Runs `op` on `inputs` and wraps the result as a tensor of rank `D`.
pub fn apply<const N: usize, const D: usize>(
    op: impl FusedOp,
    inputs: [Primitive; N],
) -> Tensor<D> {
    if inputs
        .iter()
        .all(|input| matches!(input, Primitive::Plain(_)))
    {
        let inputs = inputs.map(|input| match input {
            Primitive::Plain(tensor) => contiguous(tensor),
            Primitive::Autodiff(_) => unreachable!("checked above"),
        });
        let (output, _) = run(&op, &inputs, false);
        inputs.into_iter().for_each(recycle);
        return Tensor::from_primitive::<Flex>(output);
    }
    let parts = inputs.map(|input| {
        let (tensor, node) = match input {
            Primitive::Autodiff(tensor) => tensor,
            Primitive::Plain(tensor) => Tracked::new(tensor),
        }
        .into_parts();
        (contiguous(tensor), node)
    });
    let mut nodes = Vec::with_capacity(N);
    let tensors = parts.map(|(tensor, node)| {
        nodes.push(node);
        tensor
    });
    let nodes = <[_; N]>::try_from(nodes).expect("one node an input");
    let output = match FusedBackward
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prepared) => {
            let (output, saved) = run(&op, &tensors, true);
            let keep = op.keep();
            let state = State {
                shapes: tensors
                    .iter()
                    .map(|tensor| tensor.layout().shape().to_vec())
                    .collect(),
                inputs: tensors
                    .into_iter()
                    .enumerate()
                    .map(|(i, tensor)| keep_or_recycle(tensor, keep.inputs.contains(&i)))
                    .collect(),
                output: keep.output.then(|| output.clone()),
                saved: Arc::new(Mutex::new(saved)),
                op: Arc::new(op),
            };
            prepared.finish(state, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(run(&op, &tensors, false).0),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

fn run(op: &dyn FusedOp, inputs: &[FlexTensor], track: bool) -> (FlexTensor, Vec<Vec<f32>>) {
    let shapes: Vec<Vec<usize>> = inputs
        .iter()
        .map(|tensor| tensor.layout().shape().to_vec())
        .collect();
    let operands: Vec<Operand<'_>> = inputs
        .iter()
        .zip(&shapes)
        .map(|(tensor, shape)| Operand {
            data: values(tensor),
            shape,
        })
        .collect();
    let span = profile::span(
        op,
        || operands.iter().map(|o| o.shape).collect(),
        Direction::Forward,
        track,
    );
    let Forward { data, shape, saved } = op.forward(&operands, track);
    drop(span);
    (tensor(data, &shape), saved)
}

/// Values of a contiguous tensor.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("a contiguous f32 tensor")
}

fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

fn tensor(data: Vec<f32>, shape: &[usize]) -> FlexTensor {
    debug_assert_eq!(
        data.len(),
        shape.iter().product::<usize>(),
        "values fill the shape {shape:?}"
    );
    FlexTensor::new(
        Bytes::from_elems(data),
        Layout::contiguous(Shape::from(shape.to_vec())),
        DType::F32,
    )
}

/// Keeps the memory of a tensor that nobody else holds for the next output.
fn recycle(tensor: FlexTensor) {
    if tensor.is_unique()
        && tensor.dtype() == DType::F32
        && let Ok(values) = tensor.into_data().try_into_vec()
    {
        buffers::give(values);
    }
}

fn keep_or_recycle(tensor: FlexTensor, keep: bool) -> Option<FlexTensor> {
    if keep {
        return Some(tensor);
    }
    recycle(tensor);
    None
}

/// What lives between a forward and its backward pass. `saved` is shared because Burn clones states; it is consumed once.
#[derive(Clone, Debug)]
struct State {
    op: Arc<dyn FusedOp>,
    shapes: Vec<Vec<usize>>,
    inputs: Vec<Option<FlexTensor>>,
    output: Option<FlexTensor>,
    saved: Arc<Mutex<Vec<Vec<f32>>>>,
}

#[derive(Debug)]
struct FusedBackward;

impl<const N: usize> Backward<Flex, N> for FusedBackward {
    type State = State;

    fn backward(self, ops: Ops<State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let state = ops.state;
        let saved = std::mem::take(
            &mut *state
                .saved
                .lock()
                .expect("no thread panicked while it held the lock"),
        );
        let pass = BackwardPass {
            inputs: (state.inputs.iter().zip(&state.shapes))
                .map(|(tensor, shape)| Operand {
                    data: tensor.as_ref().map_or(&[], values),
                    shape,
                })
                .collect(),
            output: state.output.as_ref().map_or(&[], values),
            saved,
            grad: values(&grad),
            needs: ops.parents.iter().map(Option::is_some).collect(),
        };
        let shapes = || state.shapes.iter().map(Vec::as_slice).collect();
        let span = profile::span(&*state.op, shapes, Direction::Backward, true);
        let gradients = state.op.backward(pass);
        drop(span);
        let mut tensors: Vec<Option<FlexTensor>> = Vec::with_capacity(N);
        for (i, (gradient, shape)) in gradients.into_iter().zip(&state.shapes).enumerate() {
            let gradient = match state.op.shares(i) {
                Share::Own => gradient.map(|gradient| tensor(gradient, shape)),
                Share::Output => Some(grad.clone()),
                Share::Input(earlier) => tensors[earlier].clone(),
            };
            tensors.push(gradient);
        }
        recycle(grad);
        state.inputs.into_iter().flatten().for_each(recycle);
        state.output.into_iter().for_each(recycle);
        for (parent, gradient) in ops.parents.into_iter().zip(tensors) {
            if let Some(node) = parent {
                let gradient = gradient.expect("a gradient for every input that needs one");
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}
