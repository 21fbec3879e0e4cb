//! Permutation language modelling (Yang et al. 2019): tokens are predicted in a random order.

use super::ObjectiveError;

/// Attention masks of the two streams, `[T, T]`, rows are queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermutationMasks {
    /// Content stream: sees positions predicted at the same time or earlier.
    pub content: Vec<Vec<bool>>,
    /// Query stream: sees positions predicted strictly earlier.
    pub query: Vec<Vec<bool>>,
}

/// Masks of a factorisation order; `order[k]` is the position that is predicted k-th.
///
/// # Errors
/// An order that is not a permutation of `0..order.len()`.
pub fn masks(order: &[usize]) -> Result<PermutationMasks, ObjectiveError> {
    let mut rank = vec![usize::MAX; order.len()];
    for (k, &position) in order.iter().enumerate() {
        match rank.get_mut(position) {
            Some(slot) if *slot == usize::MAX => *slot = k,
            _ => {
                return Err(ObjectiveError::Outside {
                    what: "repeated or missing place",
                    position,
                    length: order.len(),
                });
            }
        }
    }
    let mask = |sees: fn(usize, usize) -> bool| -> Vec<Vec<bool>> {
        rank.iter()
            .map(|&own| rank.iter().map(|&other| sees(own, other)).collect())
            .collect()
    };
    Ok(PermutationMasks {
        content: mask(|own, other| other <= own),
        query: mask(|own, other| other < own),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_is_no_permutation_is_refused() {
        assert!(masks(&[0, 0]).is_err());
        assert!(masks(&[0, 2]).is_err());
    }
}
