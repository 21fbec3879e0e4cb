//! Which positions attend to which, as rules on (query, key).

/// An attention pattern over one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Each position sees itself and those before it.
    Causal,
    /// The first `prefix` positions see each other, later ones see everything up to themselves (Raffel et al. 2020; also the
    /// sequence-to-sequence mask of Dong et al. 2019, where the prefix is the source).
    Prefix(usize),
    /// Positions fewer than `window` apart; only earlier ones when `causal`.
    SlidingWindow {
        /// Number of positions seen on a side, the position itself included.
        window: usize,
        /// Only earlier positions and the position itself.
        causal: bool,
    },
}

impl Pattern {
    /// True when position `query` may attend to position `key`.
    pub fn allows(self, query: usize, key: usize) -> bool {
        match self {
            Self::Causal => key <= query,
            Self::Prefix(prefix) => key < prefix || key <= query,
            Self::SlidingWindow { window, causal } => {
                query.abs_diff(key) < window && (!causal || key <= query)
            }
        }
    }

    /// The whole mask, `[T, T]`, rows are queries.
    pub fn mask(self, length: usize) -> Vec<Vec<bool>> {
        (0..length)
            .map(|query| (0..length).map(|key| self.allows(query, key)).collect())
            .collect()
    }
}
