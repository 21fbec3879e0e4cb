//! Matrix products on the tile unit (Intel AMX): 16 x 16 sums of products of bf16 pairs in one instruction.
//!
//! The compiler has no stable intrinsics for tiles, so the few instructions are written out. The operating system hands out
//! the tile state on request, once a process; the tile shapes are set once a piece of work.

mod activate;
mod attention;
mod pack;
mod product;
mod tiles;

use std::arch::asm;
use std::sync::OnceLock;

pub(crate) use attention::{Backward, Forward, backward, forward};
pub(crate) use product::{Packed, Work, multiply, with_packed};

/// Rows and columns of a block of the result: two tiles each way.
pub(crate) const BLOCK: usize = 32;
/// Products summed by one instruction: 16 pairs of bf16.
pub(crate) const STEP: usize = 32;
/// bf16 values of an operand in one step of a block: two tiles of a kilobyte.
pub(crate) const STEP_VALUES: usize = 1024;

/// Proof that tiles may be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx(());

impl Amx {
    /// The token, when the processor has the instructions and the operating system grants the state.
    pub(crate) fn new() -> Option<Amx> {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        AVAILABLE
            .get_or_init(|| crate::simd::Avx512::new().is_some() && has_instructions() && granted())
            .then_some(Amx(()))
    }

    /// Runs `f` with all eight tiles set to 16 rows of 64 bytes on this thread.
    #[inline(always)]
    pub(crate) fn with_tiles<R>(self, f: impl FnOnce() -> R) -> R {
        struct Release;
        impl Drop for Release {
            fn drop(&mut self) {
                // SAFETY: the token says that the instruction exists.
                unsafe { asm!("tilerelease", options(nostack, nomem)) };
            }
        }
        let mut config = Config([0; 64]);
        // Palette 1, no restart row; columns in bytes and rows of each tile.
        config.0[0] = 1;
        for tile in 0..8 {
            config.0[16 + 2 * tile] = 64;
            config.0[48 + tile] = 16;
        }
        // SAFETY: the token says that the instruction exists; the configuration is 64 valid bytes.
        unsafe { asm!("ldtilecfg [{0}]", in(reg) config.0.as_ptr(), options(nostack, readonly)) };
        let _release = Release;
        f()
    }
}

#[repr(C, align(64))]
struct Config([u8; 64]);

fn has_instructions() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    if __cpuid(0).eax < 7
        || !is_x86_feature_detected!("avx512bf16")
        || !is_x86_feature_detected!("bmi2")
    {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    let (bf16, tile) = (features >> 22 & 1, features >> 24 & 1);
    if bf16 == 0 || tile == 0 || !is_x86_feature_detected!("xsave") {
        return false;
    }
    // Bits 17 and 18: the operating system saves tile configuration and data.
    enabled_states() >> 17 & 3 == 3
}

/// Which register states the operating system saves (XCR0).
fn enabled_states() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: XSAVE was detected, which means that the system has switched it on; then the register can be read.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nostack, nomem))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Asks Linux for the tile data state (number 18) for this process.
#[cfg(target_os = "linux")]
fn granted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call with integer arguments that changes nothing but this permission; the kernel overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn granted() -> bool {
    false
}
