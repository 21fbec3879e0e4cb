//! Parameter sharing across depth: which block runs where.
//!
//! A shared block is one set of parameters that runs several times, never several copies of it: copies of a parameter
//! come apart at the first optimiser step.

/// How the depths of a stack share their blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sharing {
    /// A block of its own at every depth.
    #[default]
    None,
    /// Consecutive layers use one group of blocks (ALBERT: Lan et al., 2019, section 3.1). Layer i of L uses group
    /// `⌊i / (L / n_groups)⌋` and runs its `n_inner` blocks one after another, so that the stack is `L · n_inner` deep.
    Groups {
        /// Groups; 1 shares all layers.
        n_groups: usize,
        /// Blocks of a group.
        n_inner: usize,
    },
}

impl Sharing {
    /// Blocks with parameters of their own in a stack of `n_layers` layers.
    pub fn n_blocks(self, n_layers: usize) -> usize {
        match self {
            Self::None => n_layers,
            Self::Groups { n_groups, n_inner } => n_groups * n_inner,
        }
    }

    /// The block that runs at each depth.
    pub fn order(self, n_layers: usize) -> Vec<usize> {
        match self {
            Self::None => (0..n_layers).collect(),
            Self::Groups { n_groups, n_inner } => (0..n_layers)
                .flat_map(|layer| {
                    // The published rule divides in floating point; so do we, that the two never differ by rounding.
                    let group = (layer as f64 / (n_layers as f64 / n_groups as f64)) as usize;
                    (0..n_inner).map(move |inner| group * n_inner + inner)
                })
                .collect(),
        }
    }

    /// The same for another number of layers, which may be too few for the groups.
    #[must_use]
    pub fn for_layers(self, n_layers: usize) -> Self {
        match self {
            Self::Groups { n_groups, n_inner } => Self::Groups {
                n_groups: n_groups.min(n_layers.max(1)),
                n_inner,
            },
            Self::None => Self::None,
        }
    }

    /// The blocks in the order in which they run.
    pub fn over<B>(self, n_layers: usize, blocks: &[B]) -> Vec<&B> {
        let order = self.order(n_layers);
        order.into_iter().map(|block| &blocks[block]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Sharing;

    #[test]
    fn groups_repeat_their_blocks_in_order() {
        let sharing = |n_groups, n_inner| Sharing::Groups { n_groups, n_inner };
        assert_eq!(Sharing::None.order(3), [0, 1, 2]);
        assert_eq!(sharing(1, 1).order(4), [0; 4]);
        assert_eq!(sharing(2, 2).order(4), [0, 1, 0, 1, 2, 3, 2, 3]);
        assert_eq!(
            sharing(2, 1).order(5),
            [0, 0, 0, 1, 1],
            "groups of unequal size: layer 2 of 5 still belongs to the first half"
        );
        assert_eq!(sharing(2, 2).n_blocks(4), 4);
    }

    #[test]
    fn blocks_come_in_running_order() {
        let sharing = Sharing::Groups {
            n_groups: 2,
            n_inner: 1,
        };
        assert_eq!(sharing.over(4, &['a', 'b']), [&'a', &'a', &'b', &'b']);
    }
}
