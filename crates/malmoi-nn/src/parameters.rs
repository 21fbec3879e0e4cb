//! The parameters of a module as named host values: listing, filling, reading, gradients and in-place updates.
//!
//! The name of a parameter is its path in the module, such as `layers.0.attention.query.weight`.

use burn::backend::Flex;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use bytes::Bytes;

use crate::bridge::LeafGradients;
use crate::{host, weights};

pub(crate) mod later;

pub use later::Later;

/// Name and shape of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Path in the module, parts separated by dots.
    pub name: String,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
}

impl ParameterInfo {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The values of a parameter, row-major.
#[derive(Clone, Debug)]
pub enum ParameterValues {
    /// Values of its own.
    Owned(Vec<f32>),
    /// Values in the machine's byte order that others may hold as well, such as a part of a mapped file: nothing is copied until the
    /// parameter changes. Aligned to four bytes.
    Shared(Bytes),
    /// A matrix within such bytes: element (i, j) is value `start + i * strides[0] + j * strides[1]` of them.
    Part {
        /// Bytes as above, aligned to their format.
        bytes: Bytes,
        /// F32 or BF16.
        format: DType,
        /// The first element's place among their values.
        start: usize,
        /// Values from one row to the next and from one column to the next.
        strides: [usize; 2],
    },
    /// Values that a module for inference reads when it needs them, and that a dense layer holds in the order of its products alone.
    Later(Later),
}

impl ParameterValues {
    /// A tensor of these values in f32, without copying them where that is how they lie.
    ///
    /// # Panics
    /// When they do not fill `shape`.
    fn tensor<const D: usize>(self, shape: [usize; D]) -> Tensor<D> {
        let tensor = self.in_its_format(shape);
        match tensor.dtype() {
            DType::F32 => tensor,
            _ => host::tensor(host::values(tensor), shape),
        }
    }

    /// The same in the format of the values, never copied.
    fn in_its_format<const D: usize>(self, shape: [usize; D]) -> Tensor<D> {
        match self {
            Self::Owned(values) => host::tensor(values, shape),
            Self::Shared(bytes) => host::shared_tensor(bytes, shape),
            Self::Part {
                bytes,
                format,
                start,
                strides,
            } => host::shared_part(bytes, format, shape, start, strides),
            Self::Later(later) => later.read().in_its_format(shape),
        }
    }
}

impl From<Vec<f32>> for ParameterValues {
    fn from(values: Vec<f32>) -> Self {
        Self::Owned(values)
    }
}

impl From<Later> for ParameterValues {
    fn from(later: Later) -> Self {
        Self::Later(later)
    }
}

/// What a module is for: training keeps a graph, inference does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Plain tensors; operations cost least.
    Inference,
    /// Every parameter is tracked.
    Training,
}

/// Names and shapes in module order, without allocating any values.
pub fn list<M: Module>(module: &M) -> Vec<ParameterInfo> {
    let mut list = Vec::new();
    visit(module, |info, _| list.push(info));
    list
}

/// Fills every parameter with what `source` gives for it.
///
/// # Errors
/// The first error of `source`.
///
/// # Panics
/// When `source` returns another number of values than the shape has (of values for later, when they are read).
pub fn fill<M: Module, V: Into<ParameterValues>, E>(
    module: M,
    mode: Mode,
    mut source: impl FnMut(&ParameterInfo) -> Result<V, E>,
) -> Result<M, E> {
    weights::parameters_change();
    let mut mapper = Fill {
        path: Vec::new(),
        mode,
        source: |info: &ParameterInfo| source(info).map(Into::into),
        error: None,
    };
    let module = module.map(&mut mapper);
    match mapper.error {
        Some(error) => Err(error),
        None => Ok(module),
    }
}

/// Hands the values of every parameter to `f`, in module order.
pub fn read<M: Module>(module: &M, mut f: impl FnMut(&ParameterInfo, &[f32])) {
    visit(module, |info, value| f(&info, &value()));
}

/// Takes the gradient of every parameter out of `gradients`, in module order; `None` where the loss does not depend on it.
pub fn gradients<M: Module>(
    module: &M,
    gradients: &mut LeafGradients,
) -> Vec<(ParameterInfo, Option<Vec<f32>>)> {
    struct Take<'a> {
        path: Vec<String>,
        gradients: &'a mut LeafGradients,
        out: Vec<(ParameterInfo, Option<Vec<f32>>)>,
    }
    impl ModuleVisitor for Take<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let info = ParameterInfo {
                name: self.path.join("."),
                shape: param.lazy_shape().to_vec(),
            };
            let gradient = self.gradients.take(param.val());
            self.out.push((info, gradient));
        }
    }
    let mut take = Take {
        path: Vec::new(),
        gradients,
        out: Vec::new(),
    };
    module.visit(&mut take);
    take.out
}

/// Changes the values of every parameter in place, in module order.
pub fn update<M: Module>(module: M, f: impl FnMut(&ParameterInfo, &mut [f32])) -> M {
    weights::parameters_change();
    module.map(&mut Update {
        path: Vec::new(),
        f,
    })
}

/// Of a module that trains, leaves the parameters that `frozen` names out of the graph: no gradient is computed for them, nor for what
/// lies before all others. The rest is trained.
pub fn freeze<M: Module>(module: M, frozen: impl FnMut(&ParameterInfo) -> bool) -> M {
    module.map(&mut Freeze {
        path: Vec::new(),
        frozen,
    })
}

fn visit<M: Module>(module: &M, f: impl FnMut(ParameterInfo, &dyn Fn() -> Vec<f32>)) {
    struct Visit<F> {
        path: Vec<String>,
        f: F,
    }
    impl<F: FnMut(ParameterInfo, &dyn Fn() -> Vec<f32>)> ModuleVisitor for Visit<F> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let info = ParameterInfo {
                name: self.path.join("."),
                shape: param.lazy_shape().to_vec(),
            };
            (self.f)(info, &|| host::values(later::read(param)));
        }
    }
    module.visit(&mut Visit {
        path: Vec::new(),
        f,
    });
}

struct Fill<F, E> {
    path: Vec<String>,
    mode: Mode,
    source: F,
    error: Option<E>,
}

impl<F: FnMut(&ParameterInfo) -> Result<ParameterValues, E>, E> ModuleMapper for Fill<F, E> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let shape: [usize; D] = param
            .lazy_shape()
            .to_vec()
            .try_into()
            .expect("the rank of the parameter");
        let info = ParameterInfo {
            name: self.path.join("."),
            shape: shape.to_vec(),
        };
        match (self.source)(&info) {
            Ok(values) => {
                let tensor = match values {
                    ParameterValues::Later(later) if self.mode == Mode::Inference => {
                        return later.parameter(shape);
                    }
                    values => values.tensor(shape),
                };
                let tensor = match self.mode {
                    Mode::Inference => tensor,
                    Mode::Training => tensor.autodiff().require_grad(),
                };
                Param::initialized(param.id, tensor)
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

struct Update<F> {
    path: Vec<String>,
    f: F,
}

impl<F: FnMut(&ParameterInfo, &mut [f32])> ModuleMapper for Update<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let info = ParameterInfo {
            name: self.path.join("."),
            shape: param.lazy_shape().to_vec(),
        };
        let (id, tensor, _) = param.consume();
        let (tracked, trained) = (tensor.is_autodiff(), tensor.is_require_grad());
        let mut inner = host::flex(tensor);
        if inner.as_slice::<f32>().is_none() {
            inner = inner.to_contiguous();
        }
        // In place when nothing else holds the values, which is the case between steps; a copy otherwise.
        (self.f)(&info, inner.storage_mut::<f32>());
        let tensor = Tensor::from_primitive::<Flex>(inner);
        Param::initialized(
            id,
            match (tracked, trained) {
                (true, true) => tensor.autodiff().require_grad(),
                (true, false) => tensor.autodiff(),
                (false, _) => tensor,
            },
        )
    }
}

struct Freeze<F> {
    path: Vec<String>,
    frozen: F,
}

impl<F: FnMut(&ParameterInfo) -> bool> ModuleMapper for Freeze<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let info = ParameterInfo {
            name: self.path.join("."),
            shape: param.lazy_shape().to_vec(),
        };
        let (id, tensor, _) = param.consume();
        if !tensor.is_autodiff() {
            return Param::initialized(id, tensor);
        }
        let tensor = Tensor::from_primitive::<Flex>(host::flex(tensor)).autodiff();
        Param::initialized(
            id,
            match (self.frozen)(&info) {
                true => tensor,
                false => tensor.require_grad(),
            },
        )
    }
}
