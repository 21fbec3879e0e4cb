//! Mixing data sets of different sizes (Raffel et al. 2020, section 3.5.2; the temperature after Devlin 2018).

use malmoi_kernels::random::Key;

/// Share of each data set: `min(size, limit)^(1/temperature)`, normalised. A temperature of 1 mixes in proportion to the sizes, a
/// large one equally.
pub fn rates(sizes: &[u64], limit: Option<u64>, temperature: f64) -> Vec<f64> {
    let weights: Vec<f64> = sizes
        .iter()
        .map(|&size| (size.min(limit.unwrap_or(u64::MAX)) as f64).powf(1.0 / temperature))
        .collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// Examples of a block, in which every data set has its share to the nearest whole example.
const BLOCK: u64 = 1024;

/// Which data set the examples of a run come from: blocks of 1,024 examples hold exactly the rates (rounded so that a data set
/// with any weight is met), in an order drawn for each block. Where example `n` comes from is a function of (seed, n).
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// Examples of each data set in a block.
    quotas: Vec<u64>,
}

impl Mixture {
    /// A mixture with these rates, which add up to 1.
    ///
    /// # Panics
    /// Without a data set.
    pub fn new(rates: &[f64]) -> Self {
        assert!(!rates.is_empty(), "a mixture has at least one data set");
        let mut quotas: Vec<u64> = rates
            .iter()
            .map(|rate| ((rate * BLOCK as f64).floor() as u64).max(1))
            .collect();
        // What rounding left over goes to, or comes from, the largest: there it changes least.
        let largest = (0..quotas.len())
            .max_by_key(|&i| (quotas[i], usize::MAX - i))
            .unwrap_or(0);
        let others: u64 = quotas.iter().sum::<u64>() - quotas[largest];
        quotas[largest] = BLOCK.saturating_sub(others).max(1);
        Self { quotas }
    }

    /// Examples of one block.
    fn block(&self) -> u64 {
        self.quotas.iter().sum()
    }

    /// The data set of example `n` and which of its examples that is, counted from 0 through the run. `key` names the run.
    pub fn place(&self, n: u64, key: Key) -> (usize, u64) {
        let (block, at) = (n / self.block(), n % self.block());
        let order = key.fold(block).permutation(self.block() as usize);
        let of = |slot: u32| -> usize {
            let mut slot = u64::from(slot);
            for (set, &quota) in self.quotas.iter().enumerate() {
                if slot < quota {
                    return set;
                }
                slot -= quota;
            }
            unreachable!("the quotas add up to the block")
        };
        let set = of(order[at as usize]);
        let before = order[..at as usize]
            .iter()
            .filter(|&&slot| of(slot) == set)
            .count() as u64;
        (set, block * self.quotas[set] + before)
    }
}

#[cfg(test)]
mod tests {
    use malmoi_kernels::random::Purpose;

    use super::*;

    #[test]
    fn rates_level_with_the_temperature_and_the_limit() {
        assert_eq!(rates(&[100, 300], None, 1.0), [0.25, 0.75]);
        let even = rates(&[1, 1_000_000], None, 1e9);
        assert!((even[0] - 0.5).abs() < 1e-6);
        assert_eq!(rates(&[100, 1_000_000], Some(100), 1.0), [0.5, 0.5]);
        // √100 : √900.
        assert_eq!(rates(&[100, 900], None, 2.0), [0.25, 0.75]);
    }

    #[test]
    fn every_block_has_its_quotas_and_numbers_run_on_without_gaps() {
        let mixture = Mixture::new(&rates(&[10, 700, 300, 1], None, 1.0));
        let key = Key::new(4, Purpose::Shuffle, 0);
        let mut next = [0_u64; 4];
        for n in 0..3 * BLOCK {
            let (set, number) = mixture.place(n, key);
            assert_eq!(number, next[set], "example {n}");
            next[set] += 1;
        }
        assert_eq!(next.iter().sum::<u64>(), 3 * BLOCK);
        let share = next[1] as f64 / (3 * BLOCK) as f64;
        assert!((share - 700.0 / 1011.0).abs() < 3.0 / BLOCK as f64);
        assert!(next.iter().all(|&count| count >= 3));
        // The first example is not always from the same data set.
        let firsts: Vec<usize> = (0..40).map(|b| mixture.place(b * BLOCK, key).0).collect();
        assert!(firsts.contains(&1) && firsts.contains(&2));
    }
}
