//! Counter-based random numbers: a draw is a function of (seed, purpose, step, position), never of a hidden state.
//!
//! The generator is Philox4x32-10 from Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3"
//! (SC 2011). A [`Key`] names a stream; a position picks a number in it. Any position can be computed alone, so work can
//! be split over threads or resumed in the middle and still sees the same numbers.
//!
//! The draws of one key overlap: [`Key::u32_at`], [`Key::uniform_at`], [`Key::normal_at`] and the rest read the same
//! underlying words. Use one kind of draw per key, and [`Key::fold`] to make more keys.

/// What a stream of random numbers is for. Streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Initial values of parameters.
    Initialisation,
    /// The order of examples.
    Shuffle,
    /// Which tokens an objective hides, and what it puts in their place.
    Masking,
    /// Dropout inside the model.
    Dropout,
    /// Choosing the next token when generating.
    Sampling,
    /// Pairing sentences for an objective.
    Pairing,
    /// Anything else, told apart by a number.
    Other(u32),
}

impl Purpose {
    fn code(self) -> u64 {
        match self {
            Purpose::Initialisation => 0,
            Purpose::Shuffle => 1,
            Purpose::Masking => 2,
            Purpose::Dropout => 3,
            Purpose::Sampling => 4,
            Purpose::Pairing => 5,
            Purpose::Other(number) => (1 << 32) | u64::from(number),
        }
    }
}

/// The name of one stream of random numbers.
///
/// 128 bits: the key words of Philox and the upper half of its counter. The lower half is the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub(crate) words: [u32; 2],
    pub(crate) stream: [u32; 2],
}

// Round constants of Philox4x32 (Salmon et al. 2011, table 2 and section 3.2).
pub(crate) const MULTIPLIER_0: u32 = 0xD251_1F53;
pub(crate) const MULTIPLIER_1: u32 = 0xCD9E_8D57;
pub(crate) const WEYL_0: u32 = 0x9E37_79B9;
pub(crate) const WEYL_1: u32 = 0xBB67_AE85;
pub(crate) const ROUNDS: usize = 10;

/// Keys are derived under another Philox key than numbers are drawn with, so a derived key is never also a draw.
/// The constant is the first 32 bits of the fractional part of the square root of two.
const FOLD_DOMAIN: u32 = 0x6A09_E667;

/// One block of Philox4x32-10: four random words for a counter and a key.
#[must_use]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let product_0 = u64::from(c0) * u64::from(MULTIPLIER_0);
        let product_1 = u64::from(c2) * u64::from(MULTIPLIER_1);
        (c0, c1, c2, c3) = (
            (product_1 >> 32) as u32 ^ c1 ^ k0,
            product_1 as u32,
            (product_0 >> 32) as u32 ^ c3 ^ k1,
            product_0 as u32,
        );
        k0 = k0.wrapping_add(WEYL_0);
        k1 = k1.wrapping_add(WEYL_1);
    }
    [c0, c1, c2, c3]
}

/// [`philox`] on `N` counters at once; `counter[w][lane]` and the result are word by word.
#[inline(always)]
pub(crate) fn philox_lanes<const N: usize>(counter: [[u32; N]; 4], key: [u32; 2]) -> [[u32; N]; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        for i in 0..N {
            let product_0 = u64::from(c0[i]) * u64::from(MULTIPLIER_0);
            let product_1 = u64::from(c2[i]) * u64::from(MULTIPLIER_1);
            c0[i] = (product_1 >> 32) as u32 ^ c1[i] ^ k0;
            c1[i] = product_1 as u32;
            c2[i] = (product_0 >> 32) as u32 ^ c3[i] ^ k1;
            c3[i] = product_0 as u32;
        }
        k0 = k0.wrapping_add(WEYL_0);
        k1 = k1.wrapping_add(WEYL_1);
    }
    [c0, c1, c2, c3]
}

fn split(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

impl Key {
    /// The stream for a seed, a purpose and a step (of training, or of generation; 0 where there are no steps).
    #[must_use]
    pub fn new(seed: u64, purpose: Purpose, step: u64) -> Key {
        let root = Key {
            words: split(seed),
            stream: [0, 0],
        };
        root.fold(purpose.code()).fold(step)
    }

    /// A sub-stream: independent of this one and of those folded with other values. Fold in a layer number, the place
    /// of a dropout, a rank, or the hash of a parameter's name.
    #[must_use]
    pub fn fold(self, value: u64) -> Key {
        let [low, high] = split(value);
        let [s0, s1] = self.stream;
        let [k0, k1] = self.words;
        let [a, b, c, d] = philox([low, high, s0, s1], [k0 ^ FOLD_DOMAIN, k1]);
        Key {
            words: [a, b],
            stream: [c, d],
        }
    }

    /// A sub-stream named by a string, such as a parameter's name (64-bit FNV-1a of its bytes, then [`Key::fold`]).
    #[must_use]
    pub fn fold_name(self, name: &str) -> Key {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.fold(hash)
    }

    /// Four words of the stream: positions `4 * index ..` of [`Key::u32_at`].
    #[must_use]
    pub fn block(self, index: u64) -> [u32; 4] {
        let [low, high] = split(index);
        philox([low, high, self.stream[0], self.stream[1]], self.words)
    }

    /// 32 random bits.
    #[must_use]
    pub fn u32_at(self, position: u64) -> u32 {
        self.block(position >> 2)[(position & 3) as usize]
    }

    /// 64 random bits.
    #[must_use]
    pub fn u64_at(self, position: u64) -> u64 {
        let block = self.block(position >> 1);
        let at = 2 * (position & 1) as usize;
        u64::from(block[at]) | u64::from(block[at + 1]) << 32
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-24.
    #[must_use]
    pub fn uniform_at(self, position: u64) -> f32 {
        unit_f32(self.u32_at(position))
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    #[must_use]
    pub fn uniform_f64_at(self, position: u64) -> f64 {
        (self.u64_at(position) >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Standard normal by the method of Box and Muller, in double precision; its magnitude stays below 6.7.
    #[must_use]
    pub fn normal_at(self, position: u64) -> f32 {
        normals(self.block(position >> 2))[(position & 3) as usize]
    }

    /// Uniform in `0..n`. The bias is at most n / 2^64.
    ///
    /// # Panics
    /// When `n` is 0: there is nothing to choose from.
    #[must_use]
    pub fn below_at(self, position: u64, n: u64) -> u64 {
        assert!(n > 0, "below_at needs n > 0");
        ((u128::from(self.u64_at(position)) * u128::from(n)) >> 64) as u64
    }

    /// A random order of `0..n` (Fisher and Yates, from the last place to the first).
    ///
    /// # Panics
    /// When `n` exceeds `u32::MAX`.
    #[must_use]
    pub fn permutation(self, n: usize) -> Vec<u32> {
        let n = u32::try_from(n).expect("a permutation holds at most u32::MAX elements");
        let mut order: Vec<u32> = (0..n).collect();
        for last in (1..order.len()).rev() {
            let other = self.below_at(last as u64, last as u64 + 1) as usize;
            order.swap(last, other);
        }
        order
    }

    /// `out[i] = self.uniform_at(start + i)`.
    pub fn fill_uniform(self, start: u64, out: &mut [f32]) {
        self.fill(start, out, |block| block.map(unit_f32));
    }

    /// `out[i] = self.normal_at(start + i)`.
    pub fn fill_normal(self, start: u64, out: &mut [f32]) {
        self.fill(start, out, normals);
    }

    fn fill(self, start: u64, out: &mut [f32], draw: impl Fn([u32; 4]) -> [f32; 4] + Sync) {
        const COST: usize = 40;
        crate::threads::chunks_mut(out, 4096, COST, |offset, chunk| {
            let mut position = start + offset as u64;
            let mut values = draw(self.block(position >> 2));
            for slot in chunk {
                *slot = values[(position & 3) as usize];
                position += 1;
                if position & 3 == 0 {
                    values = draw(self.block(position >> 2));
                }
            }
        });
    }
}

fn unit_f32(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Four normals from four words: each pair of words gives a radius and an angle.
fn normals(block: [u32; 4]) -> [f32; 4] {
    let pair = |a: u32, b: u32| {
        let unit = 1.0 / 4_294_967_296.0;
        // The radius draws from (0, 1], so that the logarithm is finite.
        let radius = (-2.0 * ((f64::from(a) + 1.0) * unit).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * f64::from(b) * unit).sin_cos();
        ((radius * cos) as f32, (radius * sin) as f32)
    };
    let (x, y) = pair(block[0], block[1]);
    let (z, w) = pair(block[2], block[3]);
    [x, y, z, w]
}

#[cfg(test)]
mod tests {
    use super::*;

    // Known answers of the reference implementation (file kat_vectors of Random123 1.14, philox4x32 with 10 rounds).
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn blocks_side_by_side_equal_single_blocks() {
        let counter =
            std::array::from_fn(|w| std::array::from_fn(|lane| (w * 1000 + lane * 77) as u32));
        let key = [5, 6];
        let lanes = philox_lanes::<7>(counter, key);
        for lane in 0..7 {
            assert_eq!(
                lanes.map(|word| word[lane]),
                philox(counter.map(|word| word[lane]), key)
            );
        }
    }

    #[test]
    fn keys_differ_by_seed_purpose_step_and_fold() {
        let base = Key::new(1, Purpose::Dropout, 2);
        assert_eq!(base, Key::new(1, Purpose::Dropout, 2));
        for other in [
            Key::new(2, Purpose::Dropout, 2),
            Key::new(1, Purpose::Shuffle, 2),
            Key::new(1, Purpose::Other(3), 2),
            Key::new(1, Purpose::Dropout, 3),
            base.fold(0),
            base.fold(1 << 40),
            base.fold_name("weight"),
        ] {
            assert_ne!(base, other);
            assert_ne!(base.block(0), other.block(0));
        }
    }

    #[test]
    fn uniforms_fill_the_unit_interval_evenly() {
        let key = Key::new(7, Purpose::Sampling, 0);
        let n = 40_000_u64;
        let mut bins = [0_f64; 16];
        let mut sum = 0.0;
        for position in 0..n {
            let u = key.uniform_at(position);
            assert!((0.0..1.0).contains(&u));
            bins[(u * 16.0) as usize] += 1.0;
            sum += f64::from(u);
        }
        // Mean of n uniforms: standard deviation sqrt(1/12n) = 0.0015; five of them.
        assert!((sum / n as f64 - 0.5).abs() < 0.0073);
        // Chi-squared with 15 degrees of freedom exceeds 44 once in 10,000 draws.
        let expected = n as f64 / 16.0;
        let chi: f64 = bins.iter().map(|b| (b - expected).powi(2) / expected).sum();
        assert!(chi < 44.0, "chi-squared {chi}");
    }

    #[test]
    fn normals_have_mean_zero_variance_one_and_no_skew() {
        let mut draws = vec![0.0; 100_001];
        Key::new(3, Purpose::Initialisation, 0).fill_normal(1, &mut draws);
        let n = draws.len() as f64;
        let moment = |k: i32| draws.iter().map(|&x| f64::from(x).powi(k)).sum::<f64>() / n;
        // Standard deviations of the sample moments are sqrt(1, 2, 15, 96) / sqrt(n); five of each.
        assert!(moment(1).abs() < 0.016);
        assert!((moment(2) - 1.0).abs() < 0.023);
        assert!(moment(3).abs() < 0.062);
        assert!((moment(4) - 3.0).abs() < 0.16);
    }

    #[test]
    fn fills_equal_single_draws_from_any_start() {
        let key = Key::new(11, Purpose::Initialisation, 5);
        for start in [0_u64, 1, 2, 3, 1 << 33] {
            for n in [0_usize, 1, 3, 4, 5, 4097, 40_001] {
                let mut uniform = vec![0.0; n];
                let mut normal = vec![0.0; n];
                key.fill_uniform(start, &mut uniform);
                key.fill_normal(start, &mut normal);
                for i in 0..n {
                    assert_eq!(uniform[i], key.uniform_at(start + i as u64));
                    assert_eq!(normal[i], key.normal_at(start + i as u64));
                }
            }
        }
    }

    #[test]
    fn permutations_hold_every_element_once() {
        for n in [0, 1, 2, 3, 100, 1001] {
            let mut order = Key::new(5, Purpose::Shuffle, n as u64).permutation(n);
            if n > 50 {
                assert!(!order.is_sorted());
            }
            order.sort_unstable();
            assert_eq!(order, (0..n as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let key = Key::new(5, Purpose::Masking, 0);
        let mut seen = [false; 7];
        for position in 0..200 {
            seen[key.below_at(position, 7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(key.below_at(0, 1), 0);
    }
}
