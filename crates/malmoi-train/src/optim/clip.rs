//! Clipping by the global norm (Pascanu et al. 2013).

use malmoi_kernels::optim::scale_in_place;
use malmoi_kernels::reduce::sum_of_squares;

/// Added to the norm before dividing, as the common implementations do, so that a norm of zero divides.
const EPSILON: f64 = 1e-6;

/// L2 norm over several gradients, in double precision, in the order given.
pub fn global_norm<'a>(gradients: impl IntoIterator<Item = &'a [f32]>) -> f64 {
    gradients
        .into_iter()
        .map(sum_of_squares)
        .sum::<f64>()
        .sqrt()
}

/// Factor that brings a norm down to `max_norm`: 1 where it is below.
pub fn coefficient(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + EPSILON)).min(1.0)
}

/// Scales gradients to a global norm of at most `max_norm` and returns the norm they had. A norm that is not finite changes
/// nothing: the caller stops there.
pub fn clip(gradients: &mut [&mut [f32]], max_norm: f64) -> f64 {
    let norm = global_norm(gradients.iter().map(|gradient| &**gradient));
    let factor = coefficient(norm, max_norm) as f32;
    if norm.is_finite() && factor < 1.0 {
        for gradient in gradients {
            scale_in_place(gradient, factor);
        }
    }
    norm
}
