//! The bridge between slices and Burn tensors: one place where a kernel becomes a differentiable operation.
//!
//! An operation is a value that implements [`FusedOp`]: a forward pass and a hand-written backward pass, both on plain
//! `f32` slices. [`apply`] runs it on tensors of the CPU device, with or without autodiff, and does all the graph
//! keeping. No operation needs more glue than its two functions. `recomputed` does the same for a whole part of a network whose
//! activations are not kept.

mod recompute;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
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
use malmoi_kernels::mixed::{self, Values, bf16, to_bf16, to_f32};
use malmoi_kernels::profile::{Cost, Direction};

use crate::profile;

use crate::{buffers, host};

pub(crate) use recompute::{handed_on, recomputed};

/// One input of an operation as the kernels see it: contiguous row-major values and their shape.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Values in row-major order.
    pub data: &'a [f32],
    /// Shape, outermost dimension first.
    pub shape: &'a [usize],
}

/// One input of an operation in mixed precision: activations in bf16, parameters in f32.
#[derive(Clone, Copy, Debug)]
pub struct MixedOperand<'a> {
    /// Values in row-major order.
    pub values: Values<'a>,
    /// Shape, outermost dimension first.
    pub shape: &'a [usize],
}

impl<'a> MixedOperand<'a> {
    /// A parameter, whose values are in f32.
    ///
    /// # Panics
    /// When they are in bf16.
    pub fn parameter(&self) -> Operand<'a> {
        Operand {
            data: self.f32(),
            shape: self.shape,
        }
    }

    /// The values of a parameter.
    ///
    /// # Panics
    /// When they are in bf16.
    pub fn f32(&self) -> &'a [f32] {
        match self.values {
            Values::F32(values) => values,
            Values::Bf16(_) => panic!("parameters are kept in f32"),
        }
    }
}

/// Values of either format.
#[derive(Debug)]
pub enum Data {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// bf16.
    Bf16(Vec<bf16>),
}

impl Data {
    /// For a kernel to read.
    pub fn values(&self) -> Values<'_> {
        match self {
            Data::F32(values) => Values::F32(values),
            Data::Bf16(values) => Values::Bf16(values),
        }
    }
}

/// What a forward pass in mixed precision returns.
#[derive(Debug)]
pub struct MixedForward {
    /// The output, row-major.
    pub data: Data,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What the backward pass needs beside inputs and output; left empty when nothing is tracked.
    pub saved: Vec<Data>,
}

/// What a backward pass in mixed precision gets; compare [`BackwardPass`].
#[derive(Debug)]
pub struct MixedBackward<'a> {
    /// Inputs that were kept; the others are empty.
    pub inputs: Vec<MixedOperand<'a>>,
    /// The output's values, if asked for.
    pub output: Values<'a>,
    /// What the forward pass saved, to be consumed.
    pub saved: Vec<Data>,
    /// Gradient of the loss with respect to the output, in the output's format.
    pub grad: Values<'a>,
    /// Which inputs need a gradient.
    pub needs: Vec<bool>,
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

/// See [`FusedOp::output_format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// That of the first input.
    LikeFirstInput,
    /// f32 always.
    F32,
    /// bf16 always.
    Bf16,
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

    /// Which values the backward pass reads, in either precision.
    fn keep(&self) -> Keep;

    /// Gradients of the inputs, in order; `None` where not needed or shared.
    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>>;

    /// Computes the output where an input is in bf16; `None` when there is no such kernel: then the inputs are widened,
    /// [`FusedOp::forward`] and [`FusedOp::backward`] run in f32, and what stands in for bf16 is rounded.
    fn forward_mixed(&self, inputs: &[MixedOperand<'_>], track: bool) -> Option<MixedForward> {
        let _ = (inputs, track);
        None
    }

    /// The backward pass of [`FusedOp::forward_mixed`]: gradients in the format of their inputs.
    fn backward_mixed(&self, pass: MixedBackward<'_>) -> Vec<Option<Data>> {
        let _ = pass;
        unreachable!(
            "an operation with a forward pass in mixed precision has the backward pass as well"
        )
    }

    /// In which format the output is when the first input is in bf16: losses stay in f32.
    fn output_format(&self) -> OutputFormat {
        OutputFormat::LikeFirstInput
    }

    /// Whether [`FusedOp::accumulate`] serves input `i`.
    fn accumulates(&self, i: usize) -> bool {
        let _ = i;
        false
    }

    /// Adds the gradient of input `i`, of this shape, to what `into` holds already: for tables of which a batch touches few rows.
    fn accumulate(&self, i: usize, shape: &[usize], grad: &[f32], into: &mut [f32]) {
        let _ = (i, shape, grad, into);
        unreachable!("asked for only when the operation says so")
    }

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

/// Whether a gradient of this tensor will be asked for.
pub(crate) fn is_tracked<const D: usize>(tensor: &Tensor<D>) -> bool {
    matches!(primitive(tensor.clone()), Primitive::Autodiff(tensor) if tensor.is_tracked())
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
        let (output, saved) = run(&op, &inputs, recompute::is_rehearsal());
        saved.give();
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
                narrow: tensors.iter().map(is_bf16).collect(),
                inputs: tensors
                    .into_iter()
                    .enumerate()
                    .map(|(i, tensor)| keep_or_recycle(tensor, keep.inputs.contains(&i)))
                    .collect(),
                output: keep.output.then(|| output.clone()),
                saved: Arc::new(Mutex::new(Some(saved))),
                op: Arc::new(op),
            };
            prepared.finish(state, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(run(&op, &tensors, false).0),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

/// What a forward pass left for the backward pass.
#[derive(Debug)]
enum Saved {
    /// By [`FusedOp::forward`].
    Plain(Vec<Vec<f32>>),
    /// By [`FusedOp::forward_mixed`].
    Mixed(Vec<Data>),
}

impl Saved {
    /// Hands the memory back.
    fn give(self) {
        match self {
            Saved::Plain(saved) => saved.into_iter().for_each(buffers::give),
            Saved::Mixed(saved) => saved.into_iter().for_each(|data| match data {
                Data::F32(values) => buffers::give(values),
                Data::Bf16(values) => buffers::give(values),
            }),
        }
    }
}

fn run(op: &dyn FusedOp, inputs: &[FlexTensor], track: bool) -> (FlexTensor, Saved) {
    let shapes: Vec<Vec<usize>> = inputs
        .iter()
        .map(|tensor| tensor.layout().shape().to_vec())
        .collect();
    let span = profile::span(
        op,
        || shapes.iter().map(Vec::as_slice).collect(),
        Direction::Forward,
        track,
        inputs[0].dtype().size() as u64,
    );
    if inputs.iter().any(is_bf16) {
        let operands: Vec<MixedOperand<'_>> = inputs
            .iter()
            .zip(&shapes)
            .map(|(tensor, shape)| MixedOperand {
                values: values(tensor),
                shape,
            })
            .collect();
        if let Some(MixedForward { data, shape, saved }) = op.forward_mixed(&operands, track) {
            drop(span);
            return (tensor(data, &shape), Saved::Mixed(saved));
        }
    }
    let widened: Vec<Cow<'_, [f32]>> = inputs.iter().map(widen).collect();
    let operands: Vec<Operand<'_>> = (widened.iter().zip(&shapes))
        .map(|(data, shape)| Operand { data, shape })
        .collect();
    let Forward { data, shape, saved } = op.forward(&operands, track);
    let narrow = match op.output_format() {
        OutputFormat::LikeFirstInput => is_bf16(&inputs[0]),
        OutputFormat::F32 => false,
        OutputFormat::Bf16 => true,
    };
    widened.into_iter().for_each(give_widened);
    let output = tensor(in_format(data, narrow), &shape);
    drop(span);
    (output, Saved::Plain(saved))
}

fn is_bf16(tensor: &FlexTensor) -> bool {
    tensor.dtype() == DType::BF16
}

/// Values of a contiguous tensor.
fn values(tensor: &FlexTensor) -> Values<'_> {
    if is_bf16(tensor) {
        Values::Bf16(tensor.as_slice().expect("a contiguous bf16 tensor"))
    } else {
        Values::F32(tensor.as_slice().expect("a contiguous f32 tensor"))
    }
}

/// The same values in f32.
fn widen(tensor: &FlexTensor) -> Cow<'_, [f32]> {
    match values(tensor) {
        Values::F32(values) => Cow::Borrowed(values),
        Values::Bf16(values) => {
            let mut wide = buffers::take(values.len());
            to_f32(values, &mut wide);
            Cow::Owned(wide)
        }
    }
}

fn give_widened(values: Cow<'_, [f32]>) {
    if let Cow::Owned(values) = values {
        buffers::give(values);
    }
}

/// `data`, rounded to bf16 when asked.
fn in_format(data: Vec<f32>, narrow: bool) -> Data {
    if narrow {
        narrowed_data(data)
    } else {
        Data::F32(data)
    }
}

/// `data` in bf16.
pub(crate) fn narrowed_data(data: Vec<f32>) -> Data {
    let mut rounded = buffers::take(data.len());
    to_bf16(&data, &mut rounded);
    buffers::give(data);
    Data::Bf16(rounded)
}

fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() || tensor.as_slice::<bf16>().is_some() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

fn tensor(data: Data, shape: &[usize]) -> FlexTensor {
    debug_assert_eq!(
        data.values().len(),
        shape.iter().product::<usize>(),
        "values fill the shape {shape:?}"
    );
    let layout = Layout::contiguous(Shape::from(shape.to_vec()));
    match data {
        Data::F32(values) => FlexTensor::new(Bytes::from_elems(values), layout, DType::F32),
        Data::Bf16(values) => FlexTensor::new(Bytes::from_elems(values), layout, DType::BF16),
    }
}

/// Keeps the memory of a tensor that nobody else holds for the next output.
fn recycle(tensor: FlexTensor) {
    if !tensor.is_unique() {
        return;
    }
    match tensor.dtype() {
        DType::F32 => {
            if let Ok(values) = tensor.into_data().try_into_vec::<f32>() {
                buffers::give(values);
            }
        }
        DType::BF16 => {
            if let Ok(values) = tensor.into_data().try_into_vec::<bf16>() {
                buffers::give(values);
            }
        }
        _ => {}
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
    /// Which inputs are in bf16, and so will their gradients be.
    narrow: Vec<bool>,
    inputs: Vec<Option<FlexTensor>>,
    output: Option<FlexTensor>,
    saved: Arc<Mutex<Option<Saved>>>,
}

impl State {
    /// Gradients of the inputs, before sharing.
    fn gradients(&self, grad: &FlexTensor, needs: Vec<bool>) -> Vec<Option<Data>> {
        let saved = self
            .saved
            .lock()
            .expect("no thread panicked while it held the lock")
            .take()
            .expect("a graph is walked backwards once");
        let shapes = || self.shapes.iter().map(Vec::as_slice).collect();
        let width = if matches!(saved, Saved::Mixed(_)) {
            2
        } else {
            4
        };
        let _span = profile::span(&*self.op, shapes, Direction::Backward, true, width);
        match saved {
            Saved::Plain(saved) => self.in_f32(grad, needs, saved),
            Saved::Mixed(saved) => self.op.backward_mixed(MixedBackward {
                inputs: (self.inputs.iter().zip(&self.shapes))
                    .map(|(tensor, shape)| MixedOperand {
                        values: tensor.as_ref().map_or(Values::F32(&[]), values),
                        shape,
                    })
                    .collect(),
                output: self.output.as_ref().map_or(Values::F32(&[]), values),
                saved,
                grad: values(grad),
                needs,
            }),
        }
    }

    fn in_f32(
        &self,
        grad: &FlexTensor,
        needs: Vec<bool>,
        saved: Vec<Vec<f32>>,
    ) -> Vec<Option<Data>> {
        let inputs: Vec<Cow<'_, [f32]>> = (self.inputs.iter())
            .map(|tensor| tensor.as_ref().map_or(Cow::Borrowed(&[][..]), widen))
            .collect();
        let output = self.output.as_ref().map_or(Cow::Borrowed(&[][..]), widen);
        let grad = widen(grad);
        let gradients = self.op.backward(BackwardPass {
            inputs: (inputs.iter().zip(&self.shapes))
                .map(|(data, shape)| Operand { data, shape })
                .collect(),
            output: &output,
            saved,
            grad: &grad,
            needs,
        });
        inputs
            .into_iter()
            .chain([output, grad])
            .for_each(give_widened);
        (gradients.into_iter().zip(&self.narrow))
            .map(|(gradient, &narrow)| gradient.map(|gradient| in_format(gradient, narrow)))
            .collect()
    }
}

thread_local! {
    /// Nodes inside of the graph that have a gradient which their own backward pass has not taken yet. Burn would add a second
    /// one without vectors in bf16, and into new memory.
    static REGISTERED: RefCell<HashSet<u64>> = RefCell::new(HashSet::new());
}

thread_local! {
    /// Gradients of leaves by node while [`backward`] runs on this thread.
    static LEAVES: RefCell<Option<HashMap<u64, Vec<f32>>>> = const { RefCell::new(None) };
}

/// Gradients of a loss.
#[allow(
    missing_debug_implementations,
    reason = "the engine's gradients cannot be shown"
)]
pub struct LeafGradients {
    /// By node: what came from operations of the bridge.
    own: HashMap<u64, Vec<f32>>,
    /// What came from the engine's own operations.
    others: burn::tensor::Gradients,
}

/// Walks the graph of `loss` backwards. Gradients of parameters that several operations use (a tied embedding) are summed in
/// place, where the engine would make a new one of the same size for each.
pub fn backward<const D: usize>(loss: &Tensor<D>) -> LeafGradients {
    LEAVES.set(Some(HashMap::new()));
    let others = loss.backward();
    LeafGradients {
        own: LEAVES.take().unwrap_or_default(),
        others,
    }
}

impl LeafGradients {
    /// Takes the gradient of a parameter out; `None` when the loss does not depend on it.
    pub fn take<const D: usize>(&mut self, parameter: Tensor<D>) -> Option<Vec<f32>> {
        let other = parameter.grad_remove(&mut self.others).map(host::values);
        let id = match primitive(parameter) {
            Primitive::Autodiff(tensor) => tensor.id().value,
            Primitive::Plain(_) => return other,
        };
        match (self.own.remove(&id), other) {
            (Some(mut own), Some(other)) => {
                malmoi_kernels::optim::add_in_place(&mut own, &other);
                Some(own)
            }
            (own, other) => own.or(other),
        }
    }
}

/// Adds to the gradient of a leaf; gives it back when nobody collects.
fn collect(id: u64, gradient: FlexTensor) -> Option<FlexTensor> {
    LEAVES.with_borrow_mut(|leaves| {
        let Some(leaves) = leaves else {
            return Some(gradient);
        };
        let values: Vec<f32> = gradient
            .into_data()
            .try_into_vec()
            .expect("gradients of parameters are in f32");
        match leaves.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(values);
            }
            Entry::Occupied(mut entry) => {
                malmoi_kernels::optim::add_in_place(entry.get_mut(), &values);
                buffers::give(values);
            }
        }
        None
    })
}

/// The sum of two gradients, in the memory of one that nobody else holds if there is one.
fn sum(a: FlexTensor, b: FlexTensor) -> FlexTensor {
    let (mut into, other) = if a.is_unique() { (a, b) } else { (b, a) };
    if is_bf16(&into) {
        let other: &[bf16] = other
            .as_slice()
            .expect("gradients of a node have one format");
        mixed::add_in_place(into.storage_mut(), other);
    } else {
        let other: &[f32] = other
            .as_slice()
            .expect("gradients of a node have one format");
        malmoi_kernels::optim::add_in_place(into.storage_mut(), other);
    }
    recycle(other);
    into
}

#[derive(Debug)]
struct FusedBackward;

impl<const N: usize> Backward<Flex, N> for FusedBackward {
    type State = State;

    fn backward(self, ops: Ops<State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = consume(&ops, grads);
        let (state, ops) = (ops.state, Ops::new(ops.parents, ops.node, ()));
        let mut needs: Vec<bool> = ops.parents.iter().map(Option::is_some).collect();
        for (i, parent) in ops.parents.iter().enumerate() {
            let Some(node) = parent else { continue };
            if !state.op.accumulates(i) || !node.parents.is_empty() {
                continue;
            }
            // Added to what another operation left for the same leaf.
            LEAVES.with_borrow_mut(|leaves| {
                let leaf = (leaves.as_mut()).and_then(|leaves| leaves.get_mut(&node.id.value));
                if let Some(into) = leaf {
                    let grad = widen(&grad);
                    state.op.accumulate(i, &state.shapes[i], &grad, into);
                    needs[i] = false;
                    give_widened(grad);
                }
            });
        }
        let still_needs = needs.clone();
        let gradients = state.gradients(&grad, needs);
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
        for (i, (gradient, needed)) in tensors.into_iter().zip(still_needs).enumerate() {
            if needed {
                let gradient = gradient.expect("a gradient for every input that needs one");
                register(&ops, i, gradient, grads);
            }
        }
    }
}

/// Takes the gradient of the node whose backward pass has come.
fn consume<S, const N: usize>(ops: &Ops<S, N>, grads: &mut Gradients) -> FlexTensor {
    REGISTERED.with_borrow_mut(|nodes| nodes.remove(&ops.node.id.value));
    contiguous(grads.consume::<Flex>(&ops.node))
}

/// Adds to the gradient of a parent that needs one.
fn register<S, const N: usize>(
    ops: &Ops<S, N>,
    parent: usize,
    mut gradient: FlexTensor,
    grads: &mut Gradients,
) {
    let Some(node) = &ops.parents[parent] else {
        return;
    };
    let id = node.id.value;
    if node.parents.is_empty() {
        if let Some(gradient) = collect(id, gradient) {
            grads.register::<Flex>(node.id, gradient);
        }
        return;
    }
    if REGISTERED.with_borrow_mut(|nodes| !nodes.insert(id)) {
        gradient = sum(gradient, contiguous(grads.consume::<Flex>(node)));
    }
    grads.register::<Flex>(node.id, gradient);
}

/// `x` in bf16, the format of activations in mixed precision. Its gradient is widened.
pub fn narrowed<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    apply(Narrow, [primitive(x)])
}

#[derive(Debug)]
struct Narrow;

impl FusedOp for Narrow {
    fn forward(&self, inputs: &[Operand<'_>], _track: bool) -> Forward {
        let mut y = buffers::take(inputs[0].data.len());
        y.copy_from_slice(inputs[0].data);
        Forward::new(y, inputs[0].shape)
    }

    fn keep(&self) -> Keep {
        Keep {
            inputs: &[],
            output: false,
        }
    }

    fn backward(&self, pass: BackwardPass<'_>) -> Vec<Option<Vec<f32>>> {
        let mut dx = buffers::take(pass.grad.len());
        dx.copy_from_slice(pass.grad);
        vec![Some(dx)]
    }

    fn output_format(&self) -> OutputFormat {
        OutputFormat::Bf16
    }
}
