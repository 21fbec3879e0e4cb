//! Parameters whose values are read from where they lie, such as a mapped file, each time somebody asks for them.
//!
//! A dense layer that only computes asks once: it keeps what it makes of them in the order that products read, and the values
//! themselves are not held anywhere.

use std::fmt;
use std::sync::Arc;

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Shape, Tensor};

use super::ParameterValues;
use crate::host;

/// Values that can be read as often as they are needed.
#[derive(Clone)]
pub struct Later(Arc<dyn Fn() -> ParameterValues + Send + Sync>);

impl Later {
    /// What `read` returns, the same every time.
    pub fn new(read: impl Fn() -> ParameterValues + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    pub(super) fn read(&self) -> ParameterValues {
        (self.0)()
    }

    /// A parameter with these values, for inference. It has an id of its own, because whoever keeps something made of the values knows
    /// them by it.
    pub(super) fn parameter<const D: usize>(self, shape: [usize; D]) -> Param<Tensor<D>> {
        let again = self.clone();
        let parameter = Param::uninitialized(
            ParamId::new(),
            move |_: &Device, _| self.read().tensor(shape),
            Device::flex(),
            false,
            Shape::from(shape),
        );
        parameter.load_mapper(move |_| again.read().in_its_format(shape))
    }
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Later")
    }
}

/// A parameter's values. Those of a [`Later`] one are read for the caller alone, as they lie; others are held by the parameter from now
/// on.
pub(crate) fn read<const D: usize>(parameter: &Param<Tensor<D>>) -> Tensor<D> {
    if parameter.is_initialized() {
        return parameter.val();
    }
    // What stands for loading reads the values anew and leaves the parameter itself without them. Parameters of another kind hand back
    // what they are given.
    let nothing = host::tensor(Vec::new(), [0; D]);
    let loaded = (parameter.clone()).transform_for_load(nothing, parameter.id);
    match loaded.val().dims() == [0; D] {
        true => parameter.val(),
        false => loaded.into_value(),
    }
}
