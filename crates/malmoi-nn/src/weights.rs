//! Weights of dense layers in the order that products read them in, kept while a model is used and not changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::{Param, ParamId};
use burn::tensor::Tensor;
use malmoi_kernels::linear::PackedWeights;
use malmoi_kernels::loss::Products;
use malmoi_kernels::mixed::{Matrix, PackedRight, Values};

use crate::host;
use crate::parameters::later;

/// Counts changes of any parameter in place; what was packed before the last one may be stale.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// To be called before parameters change in place.
pub(crate) fn parameters_change() {
    CHANGES.fetch_add(1, Ordering::Relaxed);
}

/// A weight matrix `[d_out, d_in]`, packed.
#[derive(Clone, Debug)]
pub enum Packed {
    /// For products in f32.
    F32(Arc<PackedWeights>),
    /// For products in bf16.
    Bf16(Arc<PackedRight>),
}

impl Packed {
    fn products(&self) -> Products {
        match self {
            Packed::F32(_) => Products::F32,
            Packed::Bf16(_) => Products::Bf16,
        }
    }
}

/// Of which values something was packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Where they were and how many changes there had been: the same place without a change holds the same values.
    Place(usize, u64),
    /// Those of a parameter that is read when somebody asks. As long as nobody holds its values, nobody changes them.
    Unread(ParamId),
}

impl Origin {
    fn of(values: &[f32]) -> Origin {
        Origin::Place(values.as_ptr() as usize, CHANGES.load(Ordering::Relaxed))
    }
}

/// What was packed, and of what.
#[derive(Debug)]
struct Entry {
    /// Nothing while the weights have been used once alone.
    packed: Option<Packed>,
    origin: Origin,
}

/// Remembers a layer's packed weights. Clones of a layer share it.
#[derive(Clone, Debug, Default)]
pub struct WeightCache {
    entry: Arc<Mutex<Option<Entry>>>,
    always: bool,
}

impl WeightCache {
    /// A cache of weights that are used in packed form whatever they meet, so that every row of a product gets the same bits alone and
    /// among any number of others.
    pub fn always() -> Self {
        Self {
            always: true,
            ..Self::default()
        }
    }

    /// Whether it is one of [`Self::always`].
    pub fn is_always(&self) -> bool {
        self.always
    }

    /// `weight` `[d_out, d_in]`, packed now or before for products in this arithmetic.
    pub fn get(&self, weight: &[f32], d_out: usize, d_in: usize, products: Products) -> Packed {
        self.get_or_pack(Origin::of(weight), products, || {
            let weight = Matrix::row_major(Values::F32(weight), d_out, d_in);
            pack(weight, products)
        })
    }

    /// The same of a parameter whose values nobody holds; nor does anybody afterwards.
    pub fn get_unread(&self, weight: &Param<Tensor<2>>, products: Products) -> Packed {
        self.get_or_pack(Origin::Unread(weight.id), products, || {
            host::with_matrix(later::read(weight), |weight| pack(weight, products))
        })
    }

    fn get_or_pack(
        &self,
        origin: Origin,
        products: Products,
        pack: impl FnOnce() -> Packed,
    ) -> Packed {
        let mut entry = self.lock();
        if let Some(Entry {
            packed: Some(packed),
            origin: before,
        }) = &*entry
            && *before == origin
            && products == packed.products()
        {
            return packed.clone();
        }
        let packed = pack();
        *entry = Some(Entry {
            packed: Some(packed.clone()),
            origin,
        });
        packed
    }

    /// [`Self::get`] for f32, but nothing at the first use: packing costs more than one product of a few rows.
    pub fn get_when_used_again(&self, weight: &[f32], d_out: usize, d_in: usize) -> Option<Packed> {
        let origin = Origin::of(weight);
        {
            let mut entry = self.lock();
            if entry.as_ref().is_none_or(|entry| entry.origin != origin) {
                *entry = Some(Entry {
                    packed: None,
                    origin,
                });
                return None;
            }
        }
        Some(self.get(weight, d_out, d_in, Products::F32))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Entry>> {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pack(weight: Matrix, products: Products) -> Packed {
    match products {
        Products::F32 => Packed::F32(Arc::new(PackedWeights::new(weight))),
        Products::Bf16 => Packed::Bf16(Arc::new(PackedRight::new(weight.t()))),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;
    use bytes::Bytes;
    use malmoi_kernels::activation::Activation;
    use malmoi_kernels::mixed::bf16;
    use malmoi_kernels::random::{Key, Purpose};

    use super::*;
    use crate::layers::Linear;
    use crate::parameters::{self, Later, Mode, ParameterValues};
    use crate::{bridge, ops};

    fn normals(seed: u64, len: usize) -> Vec<f32> {
        let mut values = vec![0.0; len];
        Key::new(seed, Purpose::Initialisation, 0).fill_normal(0, &mut values);
        values
    }

    /// Values as bytes that others may hold as well.
    struct Shared<T>(Vec<T>);

    fn rounded(values: &[f32]) -> Vec<bf16> {
        values.iter().copied().map(bf16::from_f32).collect()
    }

    impl<T: bytemuck::Pod> AsRef<[u8]> for Shared<T> {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }

    /// How a matrix lies where it is read from.
    #[derive(Clone, Copy, Debug)]
    enum Lies {
        Alone,
        /// The second of three one below the other.
        Below,
        /// The second of three side by side, turned.
        Turned,
        /// The second of three one below the other, in bf16.
        Narrow,
    }

    /// What is read of `weight` [d_out, d_in]; what lies beside it is not a number.
    fn later(weight: &[f32], d_in: usize, lies: Lies) -> ParameterValues {
        let (weight, d_out) = (weight.to_vec(), weight.len() / d_in);
        let read = move || {
            let mut whole = vec![f32::NAN; 3 * weight.len()];
            let (start, strides) = match lies {
                Lies::Alone => return weight.clone().into(),
                Lies::Below | Lies::Narrow => (weight.len(), [d_in, 1]),
                Lies::Turned => (d_out, [1, 3 * d_out]),
            };
            for (at, &value) in weight.iter().enumerate() {
                whole[start + at / d_in * strides[0] + at % d_in * strides[1]] = value;
            }
            let (format, bytes) = match lies {
                Lies::Narrow => (DType::BF16, Bytes::from_owner(Shared(rounded(&whole)))),
                _ => (DType::F32, Bytes::from_owner(Shared(whole))),
            };
            ParameterValues::Part {
                bytes,
                format,
                start,
                strides,
            }
        };
        Later::new(read).into()
    }

    fn layer(values: ParameterValues, d_in: usize, d_out: usize) -> Linear {
        let mut values = Some(values);
        let fill = |_: &parameters::ParameterInfo| Ok::<_, ()>(values.take().expect("one"));
        parameters::fill(Linear::new(d_in, d_out, false), Mode::Inference, fill).expect("filled")
    }

    #[test]
    fn weights_that_are_read_later_compute_the_same_and_are_not_held() {
        let (d_in, d_out) = (300, 40);
        // Numbers that bf16 holds.
        let weight = rounded(&normals(1, d_in * d_out));
        let weight: Vec<f32> = weight.iter().map(|x| x.to_f32()).collect();
        let x = |rows: usize| host::tensor(normals(2, rows * d_in), [rows, d_in]);
        // More rows than are multiplied one by one go through the same sums.
        let held = layer(weight.clone().into(), d_in, d_out);
        let expected = host::values(held.forward(x(20)));
        for lies in [Lies::Alone, Lies::Below, Lies::Turned, Lies::Narrow] {
            let unread = layer(later(&weight, d_in, lies), d_in, d_out);
            for rows in [1, 2, 5, 20] {
                let y = host::values(unread.forward(x(rows)));
                assert!(y == expected[..rows * d_out], "{rows} rows, {lies:?}");
            }
            let narrow = |layer: &Linear| host::values(layer.forward(bridge::narrowed(x(3))));
            assert_eq!(narrow(&unread), narrow(&held), "{lies:?}");
            let mut read = Vec::new();
            parameters::read(&unread, |_, values| read.extend_from_slice(values));
            assert_eq!(read, weight, "{lies:?}");
            assert!(!unread.weight.is_initialized(), "nobody keeps the values");
            let narrow = later::read(&unread.weight).dtype() == DType::BF16;
            assert_eq!(narrow, matches!(lies, Lies::Narrow), "read as they lie");
            // A change brings the values in, and counts.
            let changed = parameters::update(unread, |_, values| {
                assert_eq!(values, weight);
                values.fill(0.0);
            });
            assert!(
                host::values(changed.forward(x(20)))
                    .iter()
                    .all(|y| *y == 0.0)
            );
        }
    }

    #[test]
    fn new_values_for_later_replace_what_was_packed() {
        let (d_in, d_out) = (8, 4);
        let x = || host::tensor(normals(2, d_in), [1, d_in]);
        let first = layer(
            later(&normals(1, d_in * d_out), d_in, Lies::Alone),
            d_in,
            d_out,
        );
        let before = host::values(first.forward(x()));
        let values = normals(3, d_in * d_out);
        let second = parameters::fill(first, Mode::Inference, |_| {
            Ok::<_, ()>(later(&values, d_in, Lies::Alone))
        });
        let after = host::values(second.expect("filled").forward(x()));
        let expected =
            host::values(layer(later(&values, d_in, Lies::Alone), d_in, d_out).forward(x()));
        assert_ne!(before, after);
        assert_eq!(after, expected);
    }

    #[test]
    fn a_feed_forward_layer_of_unread_weights_computes_the_same() {
        let (d, d_ff) = (12, 30);
        let (up, down) = (normals(1, d_ff * d), normals(2, d * d_ff));
        let x = || host::tensor(normals(3, 20 * d), [20, d]);
        let run = |up: ParameterValues, down: ParameterValues| {
            let (up, down) = (layer(up, d, d_ff), layer(down, d_ff, d));
            let both = (up.parameters(), down.parameters());
            host::values(ops::feed_forward(x(), both.0, both.1, Activation::Gelu))
        };
        let expected = run(up.clone().into(), down.clone().into());
        let unread = (later(&up, d, Lies::Turned), later(&down, d_ff, Lies::Below));
        assert_eq!(run(unread.0, unread.1), expected);
        // One of them alone.
        assert_eq!(run(later(&up, d, Lies::Turned), down.into()), expected);
    }

    #[test]
    fn a_gradient_through_unread_weights_reads_them() {
        let (d_in, d_out) = (6, 5);
        let weight: Vec<f32> = (0..d_in * d_out).map(|x| x as f32 / 4.0 - 3.0).collect();
        let expected: Vec<f32> = (0..d_in)
            .map(|p| weight.iter().skip(p).step_by(d_in).sum())
            .collect();
        for lies in [Lies::Turned, Lies::Narrow] {
            let unread = layer(later(&weight, d_in, lies), d_in, d_out);
            let x = host::tensor(normals(2, d_in), [1, d_in]).autodiff();
            let x = x.require_grad();
            let gradients = unread.forward(x.clone()).backward();
            let found = host::values(x.grad(&gradients).expect("a gradient"));
            assert_eq!(found, expected, "{lies:?}");
        }
    }
}
