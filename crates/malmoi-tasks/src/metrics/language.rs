//! Language modelling: what a sum of negative log-likelihoods means for a token, a character, a byte, a word.

use std::f64::consts::LN_2;

use super::ratio;

/// Exponential of the mean negative log-likelihood of a token (nats).
pub fn perplexity(sum_nll: f64, tokens: f64) -> f64 {
    (sum_nll / tokens).exp()
}

/// Bits for each of `units` tokens, characters or bytes.
pub fn bits_per(sum_nll: f64, units: f64) -> f64 {
    ratio(sum_nll / LN_2, units)
}
