//! A small vector vocabulary. A kernel is written once over [`Simd`] and compiled for every instruction set.
//!
//! A value of an instruction set's type (a token) exists only where the processor can run it, so whoever holds one may use
//! its instructions. The compiler must still be told: every generic kernel is `#[inline(always)]`, and [`dispatched!`]
//! wraps it in one function an instruction set that has the target features switched on. A closure need not be inlined and then
//! runs without them, many times slower: vectors belong in such functions, not in closures (`vectors!` only looks like one).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;
mod portable;
mod tile;

use half::bf16;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, transposed as transpose16};
pub(crate) use portable::Portable;
pub(crate) use tile::{Left, Tile};

/// The caches that a line is asked for into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nearness {
    /// The first level: it is used within a few hundred cycles.
    First,
    /// The second level: it is used later, and would push out what is in use.
    Second,
}

/// Asks for the cache line at an address, which need not exist.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T, nearness: Nearness) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction, and it never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        match nearness {
            Nearness::First => _mm_prefetch::<_MM_HINT_T0>(at.cast()),
            Nearness::Second => _mm_prefetch::<_MM_HINT_T1>(at.cast()),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (at, nearness);
}

/// Vectors of `LANES` floats.
///
/// `max(a, b)` and `min(a, b)` give `b` when either is not a number, as the processor's instructions do: keep the data in `b`
/// and it stays visible.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Floats in a vector.
    const LANES: usize;
    /// Rows of the matrix-product tile: as many as leave registers for a row of `b` and a value of `a`.
    const MR: usize;
    /// Columns of the matrix-product tile: two vectors.
    const NR: usize = 2 * Self::LANES;
    /// Products of a tile's element in one turn of its loop.
    const UNROLL: usize = 1;
    /// Whether a tile asks for rows of its right operand before it needs them, or leaves that to the processor.
    const ASKS_AHEAD: bool = true;
    /// A vector.
    type V: Copy;

    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `LANES` floats can be read at `p`.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// The first `n` lanes from memory, zeros in the others.
    ///
    /// # Safety
    /// `n < LANES` (or equal) floats can be read at `p`.
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V;
    /// # Safety
    /// `LANES` floats can be written at `p`.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// # Safety
    /// `n <= LANES` floats can be written at `p`.
    unsafe fn store_part(self, p: *mut f32, n: usize, v: Self::V);
    /// Values of bf16, widened exactly.
    ///
    /// # Safety
    /// `LANES` values can be read at `p`.
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V;
    /// Rounds to the nearest bf16, ties to even; not-a-number stays one.
    ///
    /// # Safety
    /// `LANES` values can be written at `p`.
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::V);
    /// The same rounding, in place.
    fn round_bf16(self, v: Self::V) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the processor can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// The magnitude of `a` with the sign of `b`.
    fn copysign(self, a: Self::V, b: Self::V) -> Self::V;
    /// The nearest whole number.
    fn round(self, a: Self::V) -> Self::V;
    /// `a * 2^n` for whole `n` of magnitude up to 200, through the range of small and infinite results.
    fn scale2(self, a: Self::V, n: Self::V) -> Self::V;
    /// The same where `a` and the result are normal numbers.
    fn scale2_normal(self, a: Self::V, n: Self::V) -> Self::V;
    /// `x` in the lanes where `a < b`, else `y`.
    fn select_lt(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// The sum of the lanes, added in halves.
    fn sum(self, a: Self::V) -> f32;
    /// Transposes a block of `rows` by `cols` (each at most `LANES`): `dst[c * dst_stride + r] = src[r * src_stride + c]`, for
    /// all `LANES` values of `r` (zeros beyond `rows`), columns in ascending order.
    ///
    /// # Safety
    /// The rows and columns of the block can be read, `LANES` floats can be written at each of its `cols` destinations.
    unsafe fn transpose(
        self,
        src: *const f32,
        src_stride: usize,
        rows: usize,
        cols: usize,
        dst: *mut f32,
        dst_stride: usize,
    );
    /// Multiplies a tile of at most `MR` rows by `NR` columns; see [`Tile`].
    ///
    /// # Safety
    /// See [`Tile`].
    unsafe fn tile(self, rows: usize, tile: Tile);

    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }
    /// `c - a * b`, rounded once where the processor can.
    #[inline(always)]
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.fma(self.sub(self.zero(), a), b, c)
    }
    /// The polynomial with these coefficients, constant first, by Horner's rule.
    #[inline(always)]
    fn polynomial(self, x: Self::V, coefficients: &[f32]) -> Self::V {
        let (last, rest) = coefficients
            .split_last()
            .expect("a polynomial has a coefficient");
        let mut value = self.splat(*last);
        for c in rest.iter().rev() {
            value = self.fma(value, x, self.splat(*c));
        }
        value
    }
}

/// Defines a function that runs a generic kernel on the instruction set in use:
/// `dispatched!(fn name = generic(arg: Type, ...) -> Result)`, where `generic` is
/// `#[inline(always)] fn generic<S: Simd>(s: S, arg: Type, ...) -> Result`. Mark both `unsafe` or neither.
macro_rules! dispatched {
    (@call unsafe $e:expr) => { unsafe { $e } };
    ($(#[$meta:meta])* $vis:vis fn $name:ident = $generic:ident ( $($arg:ident : $ty:ty),* $(,)? ) $(-> $ret:ty)?) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn on_avx2(s: $crate::simd::Avx2, $($arg: $ty),*) $(-> $ret)? {
                    $generic(s, $($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn on_avx512(s: $crate::simd::Avx512, $($arg: $ty),*) $(-> $ret)? {
                    $generic(s, $($arg),*)
                }
                match $crate::simd::token() {
                    // SAFETY: the token says that the processor has the features.
                    $crate::simd::Token::Avx512(s) => return unsafe { on_avx512(s, $($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Token::Avx2(s) => return unsafe { on_avx2(s, $($arg),*) },
                    $crate::simd::Token::Portable => {}
                }
            }
            $generic($crate::simd::Portable, $($arg),*)
        }
    };
}
pub(crate) use dispatched;

/// The token of the instruction set in use.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) enum Token {
    Portable,
    Avx2(Avx2),
    Avx512(Avx512),
}

/// The token of the instruction set in use.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn token() -> Token {
    use crate::cpu::{Isa, isa};
    // `isa` names only sets that it found available, so asking for the token again cannot fail.
    match isa() {
        Isa::Avx512 | Isa::Amx => Avx512::new().map_or(Token::Portable, Token::Avx512),
        Isa::Avx2 => Avx2::new().map_or(Token::Portable, Token::Avx2),
        Isa::Portable => Token::Portable,
    }
}

dispatched!(
    /// Floats in a vector, and rows and columns of the product's tile, on the instruction set in use.
    pub(crate) fn sizes = sizes_on() -> Sizes
);

/// See [`sizes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) lanes: usize,
    pub(crate) mr: usize,
    pub(crate) nr: usize,
}

#[inline(always)]
fn sizes_on<S: Simd>(_: S) -> Sizes {
    Sizes {
        lanes: S::LANES,
        mr: S::MR,
        nr: S::NR,
    }
}

/// Reads `x[i..]`: a whole vector, or what is left with zeros behind it.
#[inline(always)]
pub(crate) fn read<S: Simd>(s: S, x: &[f32], i: usize) -> S::V {
    let left = x.len() - i;
    if left >= S::LANES {
        // SAFETY: a whole vector is left.
        unsafe { s.load(x.as_ptr().add(i)) }
    } else {
        // SAFETY: `left` floats are left.
        unsafe { s.load_part(x.as_ptr().add(i), left) }
    }
}

/// Most lanes of any instruction set.
const LANES_AT_MOST: usize = 16;

/// What a kernel reads and writes that takes either format.
pub(crate) trait Element: Copy + Send + Sync {
    /// A whole vector.
    ///
    /// # Safety
    /// `LANES` values can be read at `p`.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V;
    /// [`read`] of this format.
    fn read<S: Simd>(s: S, x: &[Self], i: usize) -> S::V;
    /// [`write`] of this format.
    fn write<S: Simd>(s: S, y: &mut [Self], i: usize, v: S::V);
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f32) -> S::V {
        // SAFETY: promised by the caller.
        unsafe { s.load(p) }
    }

    #[inline(always)]
    fn read<S: Simd>(s: S, x: &[f32], i: usize) -> S::V {
        read(s, x, i)
    }

    #[inline(always)]
    fn write<S: Simd>(s: S, y: &mut [f32], i: usize, v: S::V) {
        write(s, y, i, v);
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const bf16) -> S::V {
        // SAFETY: promised by the caller.
        unsafe { s.load_bf16(p) }
    }

    #[inline(always)]
    fn read<S: Simd>(s: S, x: &[bf16], i: usize) -> S::V {
        read_bf16(s, x, i)
    }

    #[inline(always)]
    fn write<S: Simd>(s: S, y: &mut [bf16], i: usize, v: S::V) {
        write_bf16(s, y, i, v);
    }
}

/// [`read`] of bf16 values, widened.
#[inline(always)]
pub(crate) fn read_bf16<S: Simd>(s: S, x: &[bf16], i: usize) -> S::V {
    let x = &x[i..];
    if x.len() >= S::LANES {
        // SAFETY: a whole vector is left.
        return unsafe { s.load_bf16(x.as_ptr()) };
    }
    let mut whole = [bf16::ZERO; LANES_AT_MOST];
    whole[..x.len()].copy_from_slice(x);
    // SAFETY: no vector is longer.
    unsafe { s.load_bf16(whole.as_ptr()) }
}

/// [`write`] of values rounded to bf16.
#[inline(always)]
pub(crate) fn write_bf16<S: Simd>(s: S, y: &mut [bf16], i: usize, v: S::V) {
    let y = &mut y[i..];
    if y.len() >= S::LANES {
        // SAFETY: there is room for a whole vector.
        return unsafe { s.store_bf16(y.as_mut_ptr(), v) };
    }
    let mut whole = [bf16::ZERO; LANES_AT_MOST];
    // SAFETY: no vector is longer.
    unsafe { s.store_bf16(whole.as_mut_ptr(), v) };
    y.copy_from_slice(&whole[..y.len()]);
}

/// Writes `v` to `y[i..]`, as many lanes as there is room for.
#[inline(always)]
pub(crate) fn write<S: Simd>(s: S, y: &mut [f32], i: usize, v: S::V) {
    let left = y.len() - i;
    if left >= S::LANES {
        // SAFETY: there is room for a whole vector.
        unsafe { s.store(y.as_mut_ptr().add(i), v) }
    } else {
        // SAFETY: there is room for `left` floats.
        unsafe { s.store_part(y.as_mut_ptr().add(i), left, v) }
    }
}

/// `vectors!(s, n, |i| body)` runs the body for every vector start `i` in `0..n`; the last vector may be partial.
///
/// A loop rather than a function that takes a closure: the compiler may decline to inline a closure, which would then be
/// compiled without the target features.
macro_rules! vectors {
    ($s:expr, $n:expr, |$i:ident| $body:expr) => {{
        let n: usize = $n;
        let mut $i = 0;
        while $i < n {
            $body;
            $i += S::LANES;
        }
    }};
}
pub(crate) use vectors;

#[cfg(test)]
mod tests;
