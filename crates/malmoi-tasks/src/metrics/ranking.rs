//! Ranked results; relevance is listed in rank order, best first.

use super::mean;

/// Mean reciprocal rank of the first relevant result; a query without one counts 0.
pub fn mean_reciprocal_rank(queries: &[Vec<bool>]) -> f64 {
    mean(queries.iter().map(|query| {
        query
            .iter()
            .position(|&r| r)
            .map_or(0.0, |rank| 1.0 / (rank + 1) as f64)
    }))
}

/// Share of the queries with a relevant result among the first `k` (recall at k where each query has one relevant result).
pub fn hits_at(queries: &[Vec<bool>], k: usize) -> f64 {
    mean(
        queries
            .iter()
            .map(|query| f64::from(query.iter().take(k).any(|&r| r))),
    )
}

/// Normalised discounted cumulative gain of the first `k` results with a gain of 1 for a relevant one (Järvelin and Kekäläinen
/// 2002): the gain at rank r counts 1 / log2(r + 1), as a share of what the best order would give. A query with nothing relevant counts 0.
pub fn ndcg_at(queries: &[Vec<bool>], k: usize) -> f64 {
    let discount = |rank: usize| 1.0 / ((rank + 2) as f64).log2();
    mean(queries.iter().map(|query| {
        let gain: f64 = query
            .iter()
            .take(k)
            .enumerate()
            .filter(|(_, r)| **r)
            .map(|(rank, _)| discount(rank))
            .sum();
        let relevant = query.iter().filter(|&&r| r).count();
        super::ratio(gain, (0..relevant.min(k)).map(discount).sum())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gain_falls_with_the_rank() {
        assert_eq!(ndcg_at(&[vec![true, true, false]], 10), 1.0);
        let second = 1.0 / 3f64.log2();
        assert!(
            (ndcg_at(&[vec![false, true], vec![false, false]], 10) - second / 2.0).abs() < 1e-12
        );
    }
}
