//! Parts of a network whose activations are computed again in the backward pass instead of being kept (Chen et al., 2016).
//!
//! The forward pass runs the part outside of the graph, by the same kernels as inside of it, and keeps its inputs alone. When
//! the backward pass comes to the part, it runs once more, now with a graph of its own, which is walked backwards at once. Dropout
//! masks are functions of keys, so the second run repeats the first, and gradients are the same to the bit.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::{LEAVES, Primitive, Tracked, consume, contiguous, primitive, register};
use crate::pass::Pass;
use crate::{buffers, host};

thread_local! {
    /// Set while a part runs outside of the graph, though it will run inside of one later.
    static REHEARSAL: Cell<bool> = const { Cell::new(false) };
}

/// Whether operations are to compute as they do in a graph: kernels that fuse more, or read packed weights, sum in another order.
pub(super) fn is_rehearsal() -> bool {
    REHEARSAL.get()
}

/// What a part computes of its parameters and inputs.
type Body<M> = dyn Fn(&M, Vec<Tensor<2>>, &Pass) -> Tensor<2> + Send;

/// Runs `body` on `inputs` without keeping its activations. Gradients reach the parameters of `module` and every input that needs one.
///
/// # Panics
/// When no input is part of a graph: then no backward pass would come, and parameters would stay without gradients.
pub(crate) fn recomputed<M: Module + 'static>(
    module: &M,
    inputs: Vec<Tensor<2>>,
    pass: &Pass,
    body: impl Fn(&M, Vec<Tensor<2>>, &Pass) -> Tensor<2> + Send + 'static,
) -> Tensor<2> {
    let leaves = leaves_of(module);
    let module = module.clone().valid();
    let again = pass.fork();
    let (mut tensors, mut nodes) = (Vec::new(), Vec::new());
    for input in inputs {
        let tracked = match primitive(input) {
            Primitive::Autodiff(tensor) => tensor,
            Primitive::Plain(tensor) => Tracked::new(tensor),
        };
        let (tensor, node) = tracked.into_parts();
        tensors.push(contiguous(tensor));
        nodes.push(node);
    }
    let plain = tensors.iter().cloned().map(Tensor::from_primitive::<Flex>);
    let before = REHEARSAL.replace(true);
    let output = body(&module, plain.collect(), pass);
    REHEARSAL.set(before);
    let Primitive::Plain(output) = primitive(output) else {
        unreachable!("parameters and inputs are outside of any graph")
    };
    let state = Kept(Arc::new(Mutex::new(Some(Part {
        module,
        leaves,
        inputs: tensors,
        pass: again,
        body: Box::new(body),
    }))));
    let output = match nodes.len() {
        1 => finish::<M, 1>(nodes, state, output),
        2 => finish::<M, 2>(nodes, state, output),
        3 => finish::<M, 3>(nodes, state, output),
        n => panic!("a part has one to three inputs, not {n}"),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

/// Puts the output into the graph.
fn finish<M: Module + 'static, const N: usize>(
    nodes: Vec<burn::backend::autodiff::ops::NodeGuard>,
    state: Kept<M>,
    output: FlexTensor,
) -> Tracked {
    let nodes = <[_; N]>::try_from(nodes).expect("one node an input");
    let walk = Walk(std::marker::PhantomData::<fn() -> M>);
    match walk
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prepared) => prepared.finish(state, output),
        OpsKind::UnTracked(_) => panic!("a part is recomputed in a graph only"),
    }
}

/// A part between its forward and its backward pass.
struct Part<M> {
    /// The parameters, outside of any graph.
    module: M,
    /// The nodes of the parameters.
    leaves: Vec<u64>,
    inputs: Vec<FlexTensor>,
    /// As it was before the part ran.
    pass: Pass,
    body: Box<Body<M>>,
}

/// The state of the node; taken once.
struct Kept<M>(Arc<Mutex<Option<Part<M>>>>);

impl<M> Clone for Kept<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> fmt::Debug for Kept<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

struct Walk<M>(std::marker::PhantomData<fn() -> M>);

impl<M> fmt::Debug for Walk<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recompute")
    }
}

impl<M: Module + 'static, const N: usize> Backward<Flex, N> for Walk<M> {
    type State = Kept<M>;

    fn backward(
        self,
        ops: Ops<Kept<M>, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = consume(&ops, grads);
        let part = (ops.state.0.lock())
            .expect("no thread panicked while it held the lock")
            .take()
            .expect("a graph is walked backwards once");
        let ops = Ops::new(ops.parents, ops.node, ());
        let module = part.module.map(&mut Track);
        let own = leaves_of(&module);
        let (mut inputs, mut slots) = (Vec::with_capacity(N), Vec::with_capacity(N));
        for (input, parent) in part.inputs.into_iter().zip(&ops.parents) {
            let slot = parent.is_some().then(Slot::default);
            inputs.push(match &slot {
                Some(slot) => capture(input, Arc::clone(slot)),
                None => Tensor::from_primitive::<Autodiff<Flex>>(Tracked::new(input)),
            });
            slots.push(slot);
        }
        let loss = seed((part.body)(&module, inputs, &part.pass), gradient);
        let outside = LEAVES.take();
        let mut leaves = outside.unwrap_or_default();
        let mut inside = HashMap::new();
        for (new, old) in own.iter().zip(&part.leaves) {
            if let Some(gradient) = leaves.remove(old) {
                inside.insert(*new, gradient);
            }
        }
        LEAVES.set(Some(inside));
        drop(buffers::frugally(|| loss.backward()));
        let mut inside = LEAVES.take().unwrap_or_default();
        for (new, old) in own.iter().zip(&part.leaves) {
            if let Some(gradient) = inside.remove(new) {
                leaves.insert(*old, gradient);
            }
        }
        LEAVES.set(Some(leaves));
        for (i, slot) in slots.into_iter().enumerate() {
            let gradient = slot.and_then(|slot| slot.lock().ok()?.take());
            if let Some(gradient) = gradient {
                register(&ops, i, gradient, grads);
            }
        }
    }
}

/// Where the gradient of an input arrives.
type Slot = Arc<Mutex<Option<FlexTensor>>>;

/// An input as the start of a graph of its own.
fn capture(input: FlexTensor, slot: Slot) -> Tensor<2> {
    let root = host::tensor(vec![0.0], [1]).autodiff().require_grad();
    let Primitive::Autodiff(root) = primitive(root) else {
        unreachable!("tracked in the line before")
    };
    let (_, node) = root.into_parts();
    let captured = match Capture
        .prepare::<NoCheckpointing>([node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prepared) => prepared.finish(slot, input),
        OpsKind::UnTracked(_) => unreachable!("the root needs a gradient"),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(captured)
}

#[derive(Debug)]
struct Capture;

impl Backward<Flex, 1> for Capture {
    type State = Slot;

    fn backward(self, ops: Ops<Slot, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = consume(&ops, grads);
        *ops.state
            .lock()
            .expect("no thread panicked while it held the lock") = Some(gradient);
    }
}

/// A number whose backward pass hands `gradient` to `output`.
fn seed(output: Tensor<2>, gradient: FlexTensor) -> Tensor<1> {
    let (Primitive::Autodiff(output), Primitive::Plain(number)) =
        (primitive(output), primitive(host::tensor(vec![0.0], [1])))
    else {
        unreachable!("the part runs in a graph, the number is new")
    };
    let (_, node) = output.into_parts();
    let gradient = Arc::new(Mutex::new(Some(gradient)));
    let seed = match Seed
        .prepare::<NoCheckpointing>([node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prepared) => prepared.finish(gradient, number),
        OpsKind::UnTracked(_) => unreachable!("parameters need gradients"),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(seed)
}

#[derive(Debug)]
struct Seed;

impl Backward<Flex, 1> for Seed {
    type State = Slot;

    fn backward(self, ops: Ops<Slot, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = (ops.state.lock())
            .expect("no thread panicked while it held the lock")
            .take();
        if let Some(gradient) = gradient {
            register(&ops, 0, gradient, grads);
        }
    }
}

/// The same values for the next layer of a decoder. Gradients of an encoder's output come from every layer of the decoder; behind
/// this node they are added up layer by layer from the last one on, with recomputation and without.
pub(crate) fn handed_on(x: Tensor<2>) -> Tensor<2> {
    let tensor = match primitive(x) {
        Primitive::Plain(tensor) => return Tensor::from_primitive::<Flex>(tensor),
        Primitive::Autodiff(tensor) => tensor,
    };
    let (values, node) = tensor.into_parts();
    let next = match HandOn
        .prepare::<NoCheckpointing>([node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prepared) => prepared.finish((), values),
        OpsKind::UnTracked(prepared) => prepared.finish(values),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(next)
}

#[derive(Debug)]
struct HandOn;

impl Backward<Flex, 1> for HandOn {
    type State = ();

    fn backward(self, ops: Ops<(), 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = consume(&ops, grads);
        register(&ops, 0, gradient, grads);
    }
}

/// The nodes of a module's parameters, in module order.
fn leaves_of<M: Module>(module: &M) -> Vec<u64> {
    struct Ids(Vec<u64>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Primitive::Autodiff(tensor) = primitive(param.val()) {
                self.0.push(tensor.id().value);
            }
        }
    }
    let mut ids = Ids(Vec::new());
    module.visit(&mut ids);
    ids.0
}

/// Makes every parameter the start of a graph.
struct Track;

impl ModuleMapper for Track {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, _) = param.consume();
        Param::initialized(id, tensor.autodiff().require_grad())
    }
}
