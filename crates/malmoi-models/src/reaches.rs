//! What the layers of a model see when they differ: everything, or a window.

/// What a token of a layer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All that the direction of the model lets it see.
    Everything,
    /// A window of that.
    Window,
}

/// What each layer sees, from the first to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaches(Vec<Reach>);

impl Reaches {
    /// One entry a layer.
    pub fn new(layers: Vec<Reach>) -> Self {
        Self(layers)
    }

    /// `n_layers` layers of which the first and every `every`-th after it see everything.
    ///
    /// # Panics
    /// When `every` is zero.
    pub fn every(every: usize, n_layers: usize) -> Self {
        let reach = |layer: usize| match layer % every {
            0 => Reach::Everything,
            _ => Reach::Window,
        };
        Self((0..n_layers).map(reach).collect())
    }

    /// What each layer sees.
    pub fn layers(&self) -> &[Reach] {
        &self.0
    }

    /// What a layer sees, counted from 0.
    pub fn of(&self, layer: usize) -> Reach {
        self.0[layer]
    }

    /// Whether all layers see the same.
    pub fn are_alike(&self) -> bool {
        self.0.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// The same pattern, its shortest period going on, for another number of layers.
    pub fn for_layers(&self, n_layers: usize) -> Self {
        let repeats = |period: &usize| {
            let mut layers = self.0.iter().enumerate();
            layers.all(|(layer, reach)| *reach == self.0[layer % period])
        };
        let period = (1..self.0.len()).find(repeats).unwrap_or(self.0.len());
        let pattern = self.0[..period].iter().copied();
        Self(pattern.cycle().take(n_layers).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{Reach, Reaches};

    #[test]
    fn the_shortest_pattern_goes_on() {
        let third = Reaches::every(3, 7);
        assert_eq!(third.for_layers(10), Reaches::every(3, 10));
        // Alternating layers of which an odd number is given.
        assert_eq!(Reaches::every(2, 3).for_layers(6), Reaches::every(2, 6));
        let all = Reaches::every(1, 2);
        assert!(all.are_alike() && !third.are_alike());
        assert_eq!(all.for_layers(5).layers(), [Reach::Everything; 5]);
        assert_eq!(third.for_layers(0).layers(), []);
    }
}
