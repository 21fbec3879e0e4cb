//! The parameters of a module as named host values: listing, filling, reading, gradients and in-place updates.
//!
//! The name of a parameter is its path in the module, such as `layers.0.attention.query.weight`.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use bytes::Bytes;

use crate::bridge::LeafGradients;
use crate::{host, weights};

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
}

impl ParameterValues {
    fn len(&self) -> usize {
        match self {
            Self::Owned(values) => values.len(),
            Self::Shared(bytes) => bytes.len() / size_of::<f32>(),
        }
    }
}

impl From<Vec<f32>> for ParameterValues {
    fn from(values: Vec<f32>) -> Self {
        Self::Owned(values)
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
/// When `source` returns another number of values than the shape has.
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
            (self.f)(info, &|| host::values(param.val()));
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
                assert_eq!(
                    values.len(),
                    info.len(),
                    "values for {} {:?}",
                    info.name,
                    info.shape
                );
                let tensor = match values {
                    ParameterValues::Owned(values) => host::tensor(values, shape),
                    ParameterValues::Shared(bytes) => host::shared_tensor(bytes, shape),
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
        let mut inner = outside(tensor);
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

/// The values of a parameter, outside of any graph.
fn outside<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    tensor
        .inner()
        .try_into_primitive::<Flex>()
        .expect("parameters live on the CPU device")
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
        let tensor = Tensor::from_primitive::<Flex>(outside(tensor)).autodiff();
        Param::initialized(
            id,
            match (self.frozen)(&info) {
                true => tensor,
                false => tensor.require_grad(),
            },
        )
    }
}
