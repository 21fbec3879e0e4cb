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
