//! How well vectors find translations: every text of one side looks for its partner among all texts of the other.

use malmoi_tasks::metrics::ranking::{hits_at, mean_reciprocal_rank};
use serde::Serialize;

/// How the texts of one side found their partners.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Found {
    /// Share of the texts whose partner is the nearest.
    pub accuracy: f64,
    /// Share of the texts whose partner is among the five nearest.
    pub among_five: f64,
    /// Mean of one over the partner's rank.
    pub mean_reciprocal_rank: f64,
}

/// Retrieval in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Retrieval {
    /// From the first side to the second.
    pub forward: Found,
    /// From the second side to the first.
    pub backward: Found,
}

impl Retrieval {
    /// Mean accuracy of the two directions.
    pub fn accuracy(&self) -> f64 {
        (self.forward.accuracy + self.backward.accuracy) / 2.0
    }
}

/// Retrieval by cosine between `first` and `second`, whose vectors `i` belong together. Ties count against the partner, so vectors
/// that are all alike find nothing.
///
/// # Panics
/// When the sides differ in number, or their vectors in length.
pub fn retrieval(first: &[Vec<f32>], second: &[Vec<f32>]) -> Retrieval {
    assert_eq!(first.len(), second.len(), "a partner each");
    let (first, second) = (directions(first), directions(second));
    Retrieval {
        forward: found(&first, &second),
        backward: found(&second, &first),
    }
}

/// Takes the mean vector from each: what all texts of a language have in common hides what sets them apart (Libovický et al., 2020, "On
/// the Language Neutrality of Pre-trained Multilingual Representations").
pub fn centre(vectors: &mut [Vec<f32>]) {
    let Some(d) = vectors.first().map(Vec::len) else {
        return;
    };
    let mut mean = vec![0f64; d];
    for vector in &*vectors {
        for (sum, x) in mean.iter_mut().zip(vector) {
            *sum += f64::from(*x);
        }
    }
    let n = vectors.len() as f64;
    for vector in vectors {
        for (x, sum) in vector.iter_mut().zip(&mean) {
            *x -= (sum / n) as f32;
        }
    }
}

/// Vectors of length one; a vector of zeros stays as it is.
fn directions(vectors: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut vectors = vectors.to_vec();
    for vector in &mut vectors {
        crate::embed::normalize(vector);
    }
    vectors
}

fn found(queries: &[Vec<f32>], texts: &[Vec<f32>]) -> Found {
    let relevance: Vec<Vec<bool>> = (queries.iter().enumerate())
        .map(|(partner, query)| {
            let rank = rank(query, texts, partner);
            (1..=rank).map(|place| place == rank).collect()
        })
        .collect();
    Found {
        accuracy: hits_at(&relevance, 1),
        among_five: hits_at(&relevance, 5),
        mean_reciprocal_rank: mean_reciprocal_rank(&relevance),
    }
}

/// Rank of `texts[partner]` by its product with `query`, from 1.
fn rank(query: &[f32], texts: &[Vec<f32>], partner: usize) -> usize {
    let product = |text: &[f32]| -> f64 {
        assert_eq!(query.len(), text.len(), "vectors of equal length");
        let products = query.iter().zip(text);
        products.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let own = product(&texts[partner]);
    // The partner itself is one of them.
    texts.iter().filter(|text| product(text) >= own).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(degrees: f32, length: f32) -> Vec<f32> {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        vec![cosine * length, sine * length]
    }

    #[test]
    fn partners_are_found_by_angle_and_not_by_length() {
        let first = [at(0.0, 1.0), at(90.0, 5.0), at(200.0, 0.1)];
        let second = [at(10.0, 7.0), at(80.0, 0.2), at(190.0, 1.0)];
        let found = retrieval(&first, &second);
        assert_eq!(found.accuracy(), 1.0);
        assert_eq!(found.backward.mean_reciprocal_rank, 1.0);
    }

    #[test]
    fn directions_differ_and_ranks_are_as_counted_by_hand() {
        // From 0°: partner at 40°, another at 10° is nearer (rank 2). From 5°: partner at 10° (rank 1).
        let first = [at(0.0, 1.0), at(5.0, 1.0)];
        let second = [at(40.0, 1.0), at(10.0, 1.0)];
        let found = retrieval(&first, &second);
        assert_eq!(found.forward.accuracy, 0.5);
        assert_eq!(found.forward.mean_reciprocal_rank, 0.75);
        assert_eq!(found.forward.among_five, 1.0);
        // From 40°: 5° is nearer than 0° (rank 2). From 10°: 5° (rank 1).
        assert_eq!(found.backward.accuracy, 0.5);
        assert_eq!(found.accuracy(), 0.5);
    }

    #[test]
    fn a_common_offset_hides_partners_until_it_is_taken_away() {
        let first = [at(0.0, 1.0), at(120.0, 1.0), at(240.0, 1.0)].to_vec();
        // The same directions far away from the origin, all in about the same direction.
        let far = |v: &Vec<f32>| vec![v[0] + 100.0, v[1]];
        let mut second: Vec<Vec<f32>> = first.iter().map(far).collect();
        assert!(retrieval(&first, &second).accuracy() < 1.0);
        centre(&mut second);
        assert_eq!(retrieval(&first, &second).accuracy(), 1.0);
        centre(&mut []);
    }

    #[test]
    fn vectors_that_are_all_alike_find_nothing() {
        let alike = vec![vec![1.0, 2.0]; 10];
        let found = retrieval(&alike, &alike);
        assert_eq!(found.forward.accuracy, 0.0);
        assert!((found.forward.mean_reciprocal_rank - 0.1).abs() < 1e-12);
    }
}
