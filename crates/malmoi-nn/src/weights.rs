//! Weights of dense layers in the order that products read them in, kept while a model is used and not changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use malmoi_kernels::linear::PackedWeights;
use malmoi_kernels::loss::Products;
use malmoi_kernels::mixed::{Matrix, PackedRight, Values};

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

/// What was packed, and of what.
#[derive(Debug)]
struct Entry {
    /// Nothing while the weights have been used once alone.
    packed: Option<Packed>,
    /// Where the weights were and how many changes there had been: the same place without a change holds the same values.
    place: (usize, u64),
}

/// Remembers a layer's packed weights. Clones of a layer share it.
#[derive(Clone, Debug, Default)]
pub struct WeightCache(Arc<Mutex<Option<Entry>>>);

impl WeightCache {
    /// `weight` `[d_out, d_in]`, packed now or before for products in this arithmetic.
    pub fn get(&self, weight: &[f32], d_out: usize, d_in: usize, products: Products) -> Packed {
        let place = place(weight);
        let mut entry = self.lock();
        if let Some(Entry {
            packed: Some(packed),
            place: before,
        }) = &*entry
            && *before == place
            && products == packed.products()
        {
            return packed.clone();
        }
        let packed = pack(weight, d_out, d_in, products);
        *entry = Some(Entry {
            packed: Some(packed.clone()),
            place,
        });
        packed
    }

    /// The same for f32, but nothing at the first use: packing costs more than one product of a few rows.
    pub fn get_when_used_again(&self, weight: &[f32], d_out: usize, d_in: usize) -> Option<Packed> {
        let place = place(weight);
        {
            let mut entry = self.lock();
            if entry.as_ref().is_none_or(|entry| entry.place != place) {
                *entry = Some(Entry {
                    packed: None,
                    place,
                });
                return None;
            }
        }
        Some(self.get(weight, d_out, d_in, Products::F32))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(weight: &[f32]) -> (usize, u64) {
    (weight.as_ptr() as usize, CHANGES.load(Ordering::Relaxed))
}

fn pack(weight: &[f32], d_out: usize, d_in: usize, products: Products) -> Packed {
    match products {
        Products::F32 => Packed::F32(Arc::new(PackedWeights::new(weight, d_in, d_out))),
        Products::Bf16 => {
            let weight = Matrix::row_major(Values::F32(weight), d_out, d_in);
            Packed::Bf16(Arc::new(PackedRight::new(weight.t())))
        }
    }
}
