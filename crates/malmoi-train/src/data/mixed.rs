//! Examples of several sources in one run.

use malmoi_kernels::random::Purpose;

use super::{Draws, Example, Examples};
use crate::error::TrainError;
use crate::objectives::mixing::{Mixture, rates};

/// Examples of several sources, mixed by their sizes.
pub struct Mixed {
    sources: Vec<Box<dyn Examples>>,
    rates: Vec<f64>,
    mixture: Mixture,
}

impl Mixed {
    /// Mixes sources, of which there is at least one: in proportion to their sizes, each counted as at most `limit` examples, to the
    /// power of `1 / temperature`.
    pub fn new(sources: Vec<Box<dyn Examples>>, limit: Option<u64>, temperature: f64) -> Self {
        let sizes: Vec<u64> = sources.iter().map(|source| source.per_epoch()).collect();
        let rates = rates(&sizes, limit, temperature);
        Self {
            mixture: Mixture::new(&rates),
            rates,
            sources,
        }
    }
}

impl Examples for Mixed {
    fn per_epoch(&self) -> u64 {
        self.sources.iter().map(|source| source.per_epoch()).sum()
    }

    fn mean_tokens(&self) -> f64 {
        let means = self.sources.iter().map(|source| source.mean_tokens());
        means.zip(&self.rates).map(|(mean, rate)| mean * rate).sum()
    }

    fn training(&self, seed: u64, n: u64) -> Result<Example, TrainError> {
        let key = Draws::Training(seed).key(Purpose::Other(3), 0);
        let (source, number) = self.mixture.place(n, key);
        self.sources[source].training(seed, number)
    }

    fn evaluation_count(&self) -> u64 {
        let counts = self.sources.iter().map(|source| source.evaluation_count());
        counts.sum()
    }

    fn evaluation(&self, mut n: u64) -> Result<Example, TrainError> {
        for source in &self.sources {
            let count = source.evaluation_count();
            if n < count {
                return source.evaluation(n);
            }
            n -= count;
        }
        unreachable!("asked for an example below the count")
    }
}
