//! Replaced token detection (Clark et al. 2020): a small generator fills masked places, a discriminator finds them.

use super::{ObjectiveError, same_length};

/// Inputs of generator and discriminator for one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The sequence with the mask token at the masked positions.
    pub generator_input: Vec<u32>,
    /// The sequence with the sampled tokens at the masked positions.
    pub discriminator_input: Vec<u32>,
    /// 1 where the discriminator's token differs from the original.
    pub labels: Vec<u32>,
}

/// Builds both inputs. `sampled[i]` is the generator's token for `positions[i]`; one that happens to be the original counts as
/// original.
///
/// # Errors
/// Lists of different lengths, a position outside the sequence.
pub fn replace(
    original: &[u32],
    positions: &[usize],
    sampled: &[u32],
    mask_id: u32,
) -> Result<Replaced, ObjectiveError> {
    same_length("the list of sampled tokens", sampled.len(), positions.len())?;
    let mut generator_input = original.to_vec();
    let mut discriminator_input = original.to_vec();
    for (&position, &token) in positions.iter().zip(sampled) {
        if position >= original.len() {
            return Err(ObjectiveError::Outside {
                what: "masked position",
                position,
                length: original.len(),
            });
        }
        generator_input[position] = mask_id;
        discriminator_input[position] = token;
    }
    let labels = original
        .iter()
        .zip(&discriminator_input)
        .map(|(a, b)| u32::from(a != b))
        .collect();
    Ok(Replaced {
        generator_input,
        discriminator_input,
        labels,
    })
}
