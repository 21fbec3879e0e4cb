//! One row of logits on its way to a token.

/// The logits of the tokens that are left: at first of the whole vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    logits: Vec<f64>,
    /// The tokens in rising order, once any was dropped; before, logit `i` is that of token `i`.
    ids: Option<Vec<u32>>,
}

impl Row {
    /// The logits of a whole vocabulary (`[V]`). A token with minus infinity is excluded.
    pub fn new(logits: Vec<f64>) -> Self {
        Self { logits, ids: None }
    }

    /// The logits of the tokens that are left, in the order of their ids.
    pub fn logits(&self) -> &[f64] {
        &self.logits
    }

    /// The token of the logit at `place`.
    pub fn id(&self, place: usize) -> u32 {
        match &self.ids {
            Some(ids) => ids[place],
            None => place as u32,
        }
    }

    /// The logit of a token: minus infinity when it is not left.
    pub fn logit(&self, id: u32) -> f64 {
        self.place(id)
            .map_or(f64::NEG_INFINITY, |place| self.logits[place])
    }

    /// The largest logit; minus infinity when there is none.
    pub fn largest(&self) -> f64 {
        largest(&self.logits)
    }

    /// Probabilities of the tokens that are left, in the order of their ids.
    pub fn probabilities(&self) -> Vec<f64> {
        softmax(&self.logits)
    }

    /// The token at `uniform` (in [0, 1)) of the cumulative distribution; `None` when every token is excluded. The logits are
    /// used up.
    pub fn sample(&mut self, uniform: f64) -> Option<u32> {
        to_weights(&mut self.logits);
        sample(&self.logits, uniform).map(|place| self.id(place))
    }

    /// The memory of the logits, for the next row.
    pub(super) fn into_memory(self) -> Vec<f64> {
        self.logits
    }

    fn place(&self, id: u32) -> Option<usize> {
        match &self.ids {
            Some(ids) => ids.binary_search(&id).ok(),
            None => ((id as usize) < self.logits.len()).then_some(id as usize),
        }
    }

    /// Changes the logit of a token; one that is not left is passed over.
    pub(super) fn change(&mut self, id: u32, change: impl FnOnce(f64) -> f64) {
        if let Some(place) = self.place(id) {
            self.logits[place] = change(self.logits[place]);
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.change(id, |_| f64::NEG_INFINITY);
    }

    pub(super) fn divide(&mut self, divisor: f64) {
        self.logits.iter_mut().for_each(|x| *x /= divisor);
    }

    /// Drops the tokens for whose place and logit `keep` says no, and those excluded before. It is asked in rising order.
    pub(super) fn keep(&mut self, mut keep: impl FnMut(usize, f64) -> bool) {
        let mut ids = Vec::new();
        for place in 0..self.logits.len() {
            let logit = self.logits[place];
            if keep(place, logit) && logit > f64::NEG_INFINITY {
                self.logits[ids.len()] = logit;
                ids.push(self.id(place));
            }
        }
        self.logits.truncate(ids.len());
        self.ids = Some(ids);
    }
}

/// Probabilities of a row of logits (`[V]` to `[V]`). Minus infinity becomes exactly 0; a row without a finite logit becomes all
/// zeros.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let mut probs = logits.to_vec();
    to_weights(&mut probs);
    let total = sum(&probs);
    if total > 0.0 {
        probs.iter_mut().for_each(|p| *p /= total);
    }
    probs
}

/// Turns logits into probabilities up to a common factor: that of the largest is 1.
fn to_weights(logits: &mut [f64]) {
    let max = largest(logits);
    if max == f64::NEG_INFINITY {
        logits.fill(0.0);
    } else {
        logits.iter_mut().for_each(|x| *x = (*x - max).exp());
    }
}

/// The largest value; minus infinity when there is none above it. NaN is no value.
pub(super) fn largest<T: PartialOrd + Copy + From<f32>>(values: &[T]) -> T {
    let lowest = T::from(f32::NEG_INFINITY);
    let larger = |most: T, x: T| if x > most { x } else { most };
    // The largest in every place of 16 first: independent of each other, they become vectors.
    let mut most = [lowest; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (most, &x) in most.iter_mut().zip(chunk) {
            *most = larger(*most, x);
        }
    }
    most.iter().chain(rest).copied().fold(lowest, larger)
}

/// The sum of values, of every place of 8 first.
fn sum(values: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    sums.iter().chain(rest).sum()
}

/// The place at `uniform` (in [0, 1)) of the cumulative distribution. Places of probability 0 are never chosen; `None` when all
/// are. `probs` need not sum to 1.
pub fn sample(probs: &[f64], uniform: f64) -> Option<usize> {
    // Which block of probabilities first, then which of the block.
    const BLOCK: usize = 256;
    let blocks: Vec<f64> = probs.chunks(BLOCK).map(sum).collect();
    let target = uniform * blocks.iter().sum::<f64>();
    let (block, before) = find(&blocks, 0.0, target)?;
    let first = block * BLOCK;
    let within = &probs[first..probs.len().min(first + BLOCK)];
    find(within, before, target).map(|(place, _)| first + place)
}

/// The first value with which the sum, `before` at first, exceeds the target, and the sum before it. Where rounding leaves the
/// sum of all at or below the target, the last value above 0 is it.
fn find(values: &[f64], before: f64, target: f64) -> Option<(usize, f64)> {
    let mut found = None;
    let mut sum = before;
    for (place, &value) in values.iter().enumerate().filter(|(_, value)| **value > 0.0) {
        found = Some((place, sum));
        sum += value;
        if sum > target {
            break;
        }
    }
    found
}
