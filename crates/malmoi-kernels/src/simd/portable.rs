//! Plain Rust on groups of four floats, which compilers turn into whatever vectors the target has.

use super::{Simd, Tile, tile};
use crate::mixed::round_bits;
use half::bf16;

/// The token of plain Rust: always there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

const LANES: usize = 4;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    const LANES: usize = LANES;
    const MR: usize = 4;
    type V = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: promised by the caller; arrays of floats have the alignment of a float.
        unsafe { p.cast::<Self::V>().read() }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V {
        debug_assert!(n <= Self::LANES, "{n} lanes");
        let mut v = [0.0; LANES];
        for (i, v) in v.iter_mut().enumerate().take(n) {
            // SAFETY: promised by the caller for the first `n`.
            *v = unsafe { p.add(i).read() };
        }
        v
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<Self::V>().write(v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize, v: Self::V) {
        debug_assert!(n <= Self::LANES, "{n} lanes");
        for (i, x) in v.into_iter().enumerate().take(n) {
            // SAFETY: promised by the caller for the first `n`.
            unsafe { p.add(i).write(x) }
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V {
        // SAFETY: promised by the caller; arrays have the alignment of their elements.
        let v = unsafe { p.cast::<[bf16; LANES]>().read() };
        v.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::V) {
        let v = v.map(|x| bf16::from_bits(round_bits(x) as u16));
        // SAFETY: promised by the caller.
        unsafe { p.cast::<[bf16; LANES]>().write(v) }
    }
    #[inline(always)]
    fn round_bf16(self, v: Self::V) -> Self::V {
        v.map(|x| f32::from_bits(round_bits(x) << 16))
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Two roundings: without the instruction, a single rounding would be a library call.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn abs(self, a: Self::V) -> Self::V {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn copysign(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, f32::copysign)
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // Adding and taking away 1.5 * 2^23 leaves no room for a fraction; exact for magnitudes below 2^22.
        const SHIFT: f32 = 12_582_912.0;
        a.map(|a| (a + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn scale2(self, a: Self::V, n: Self::V) -> Self::V {
        zip(a, n, |a, n| {
            // In two factors, so that each is a normal number.
            let n = n as i32;
            let half = n >> 1;
            let power = |e: i32| f32::from_bits(((e + 127) << 23) as u32);
            a * power(half) * power(n - half)
        })
    }
    #[inline(always)]
    fn scale2_normal(self, a: Self::V, n: Self::V) -> Self::V {
        zip(a, n, |a, n| {
            f32::from_bits(a.to_bits().wrapping_add((n as i32 as u32) << 23))
        })
    }
    #[inline(always)]
    fn select_lt(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    unsafe fn transpose(
        self,
        src: *const f32,
        src_stride: usize,
        rows: usize,
        cols: usize,
        dst: *mut f32,
        dst_stride: usize,
    ) {
        debug_assert!(rows.max(cols) <= Self::LANES, "a block of {rows} x {cols}");
        for c in 0..cols {
            for r in 0..LANES {
                // SAFETY: the caller promises readable rows and columns and room for every lane.
                unsafe {
                    let x = if r < rows {
                        *src.add(r * src_stride + c)
                    } else {
                        0.0
                    };
                    *dst.add(c * dst_stride + r) = x;
                }
            }
        }
    }
    unsafe fn tile(self, rows: usize, t: Tile) {
        debug_assert!(rows <= Self::MR, "a tile of {rows} rows");
        // SAFETY: promised by the caller.
        unsafe {
            match rows {
                0 => {}
                1 => tile::run::<Self, 1>(self, t),
                2 => tile::run::<Self, 2>(self, t),
                3 => tile::run::<Self, 3>(self, t),
                _ => tile::run::<Self, 4>(self, t),
            }
        }
    }
}
