//! Loops of one instruction each, in assembly so that no compiler rearranges them.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

use super::{Arithmetic, Loop, TURN};
use crate::amx::Amx;
use crate::cpu::Isa;

/// The fastest unit for `arithmetic` that belongs to `isa`.
pub(super) fn chosen(arithmetic: Arithmetic, isa: Isa) -> Option<Loop> {
    let (tiles, wide, vectors) = (isa >= Isa::Amx, isa >= Isa::Avx512, isa >= Isa::Avx2);
    let candidates: &[(bool, Loop)] = match arithmetic {
        Arithmetic::F32 => &[(wide, F32_AVX512), (vectors, F32_AVX2)],
        Arithmetic::Bf16 => &[
            (tiles, BF16_AMX),
            (wide && is_x86_feature_detected!("avx512bf16"), BF16_AVX512),
        ],
        Arithmetic::Int8 => &[
            (tiles && byte_tiles(), INT8_AMX),
            (wide && is_x86_feature_detected!("avx512vnni"), INT8_AVX512),
            (vectors && is_x86_feature_detected!("avxvnni"), INT8_VNNI),
            (vectors, INT8_AVX2),
        ],
    };
    candidates
        .iter()
        .find_map(|(there, found)| there.then_some(*found))
}

/// Repeats an instruction for each register, in a loop that runs `turns` times.
macro_rules! loop_of {
    ($name:ident, $($line:expr),+ $(,)?) => {
        fn $name(turns: u64) {
            if turns == 0 {
                return;
            }
            // SAFETY: the loop touches vector registers only, which the ABI lets any call change; `chosen` hands it out only
            // where the processor has the instruction.
            unsafe {
                asm!(
                    // Zeros: a denormal left behind would slow the loop down.
                    "vzeroall",
                    "2:",
                    $($line,)+
                    "dec rcx",
                    "jnz 2b",
                    inout("rcx") turns => _,
                    clobber_abi("sysv64"),
                    options(nomem, nostack),
                );
            }
        }
    };
}

/// Twelve sums hide the four cycles of a multiply-add on two ports with room to spare.
const SUMS: u64 = 12;

/// A loop of one instruction into [`SUMS`] registers of one kind, from the same two operands.
macro_rules! sums_of {
    ($name:ident, $op:literal, $r:literal) => {
        loop_of!(
            $name,
            concat!($op, " ", $r, "0, ", $r, "14, ", $r, "15"),
            concat!($op, " ", $r, "1, ", $r, "14, ", $r, "15"),
            concat!($op, " ", $r, "2, ", $r, "14, ", $r, "15"),
            concat!($op, " ", $r, "3, ", $r, "14, ", $r, "15"),
            concat!($op, " ", $r, "4, ", $r, "14, ", $r, "15"),
            concat!($op, " ", $r, "5, ", $r, "14, ", $r, "15"),
            concat!($op, " ", $r, "6, ", $r, "14, ", $r, "15"),
            concat!($op, " ", $r, "7, ", $r, "14, ", $r, "15"),
            concat!($op, " ", $r, "8, ", $r, "14, ", $r, "15"),
            concat!($op, " ", $r, "9, ", $r, "14, ", $r, "15"),
            concat!($op, " ", $r, "10, ", $r, "14, ", $r, "15"),
            concat!($op, " ", $r, "11, ", $r, "14, ", $r, "15"),
        );
    };
}

const F32_AVX512: Loop = Loop {
    unit: "avx512",
    operations: SUMS * 16 * 2,
    run: f32_avx512,
};
sums_of!(f32_avx512, "vfmadd231ps", "zmm");

const F32_AVX2: Loop = Loop {
    unit: "avx2",
    operations: SUMS * 8 * 2,
    run: f32_avx2,
};
sums_of!(f32_avx2, "vfmadd231ps", "ymm");

const BF16_AVX512: Loop = Loop {
    unit: "avx512-bf16",
    operations: SUMS * 32 * 2,
    run: bf16_avx512,
};
sums_of!(bf16_avx512, "vdpbf16ps", "zmm");

const INT8_AVX512: Loop = Loop {
    unit: "avx512-vnni",
    operations: SUMS * 64 * 2,
    run: int8_avx512,
};
sums_of!(int8_avx512, "vpdpbusd", "zmm");

const INT8_VNNI: Loop = Loop {
    unit: "avx-vnni",
    operations: SUMS * 32 * 2,
    run: int8_vnni,
};
sums_of!(int8_vnni, "{{vex}} vpdpbusd", "ymm");

/// Without a dot product of bytes: pairs to 16 bits, pairs of those to 32 bits, then the sum.
const INT8_AVX2: Loop = Loop {
    unit: "avx2",
    operations: 4 * 32 * 2,
    run: int8_avx2,
};
loop_of!(
    int8_avx2,
    "vpmaddubsw ymm4, ymm14, ymm15",
    "vpmaddubsw ymm5, ymm14, ymm15",
    "vpmaddubsw ymm6, ymm14, ymm15",
    "vpmaddubsw ymm7, ymm14, ymm15",
    "vpmaddwd ymm4, ymm4, ymm13",
    "vpmaddwd ymm5, ymm5, ymm13",
    "vpmaddwd ymm6, ymm6, ymm13",
    "vpmaddwd ymm7, ymm7, ymm13",
    "vpaddd ymm0, ymm0, ymm4",
    "vpaddd ymm1, ymm1, ymm5",
    "vpaddd ymm2, ymm2, ymm6",
    "vpaddd ymm3, ymm3, ymm7",
);

/// A tile product: 16 x 16 sums of 64 bytes each.
const BF16_AMX: Loop = Loop {
    unit: "amx",
    operations: 4 * 16 * 16 * 32 * 2,
    run: bf16_amx,
};
const INT8_AMX: Loop = Loop {
    unit: "amx",
    operations: 4 * 16 * 16 * 64 * 2,
    run: int8_amx,
};

/// Four tile products a turn into four sums.
macro_rules! tile_loop {
    ($name:ident, $product:literal) => {
        fn $name(turns: u64) {
            let Some(amx) = Amx::new().filter(|_| turns > 0) else {
                return;
            };
            amx.with_tiles(|| {
                // SAFETY: the token says that the instructions are there, and the tiles are set up; the loop touches nothing but
                // tiles, which belong to nobody else.
                unsafe {
                    asm!(
                        "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                        "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                        "2:",
                        concat!($product, " tmm0, tmm4, tmm6"),
                        concat!($product, " tmm1, tmm4, tmm7"),
                        concat!($product, " tmm2, tmm5, tmm6"),
                        concat!($product, " tmm3, tmm5, tmm7"),
                        "dec {turns}",
                        "jnz 2b",
                        turns = inout(reg) turns => _,
                        options(nomem, nostack),
                    );
                }
            });
        }
    };
}
tile_loop!(bf16_amx, "tdpbf16ps");
tile_loop!(int8_amx, "tdpbssd");

/// Whether the tile unit, which is there, multiplies bytes as well.
fn byte_tiles() -> bool {
    __cpuid_count(7, 0).edx >> 25 & 1 == 1
}

/// Reads all of `words` `passes` times with vectors of `isa`; says whether it did.
pub(super) fn read(words: &[u64], passes: usize, isa: Isa) -> bool {
    let turns = words.len() / TURN;
    if turns == 0 || isa == Isa::Portable {
        return false;
    }
    for _ in 0..passes {
        if isa >= Isa::Avx512 {
            // SAFETY: each turn reads 512 bytes, and `turns` of them lie in the slice; the processor has the instructions.
            unsafe {
                asm!(
                    "2:",
                    "vmovups zmm0, [rsi]",
                    "vmovups zmm1, [rsi + 64]",
                    "vmovups zmm2, [rsi + 128]",
                    "vmovups zmm3, [rsi + 192]",
                    "vmovups zmm4, [rsi + 256]",
                    "vmovups zmm5, [rsi + 320]",
                    "vmovups zmm6, [rsi + 384]",
                    "vmovups zmm7, [rsi + 448]",
                    "add rsi, 512",
                    "dec rcx",
                    "jnz 2b",
                    inout("rsi") words.as_ptr() => _,
                    inout("rcx") turns => _,
                    clobber_abi("sysv64"),
                    options(readonly, nostack),
                );
            }
        } else {
            // SAFETY: as above, in halves of the same 512 bytes.
            unsafe {
                asm!(
                    "2:",
                    "vmovups ymm0, [rsi]",
                    "vmovups ymm1, [rsi + 32]",
                    "vmovups ymm2, [rsi + 64]",
                    "vmovups ymm3, [rsi + 96]",
                    "vmovups ymm4, [rsi + 128]",
                    "vmovups ymm5, [rsi + 160]",
                    "vmovups ymm6, [rsi + 192]",
                    "vmovups ymm7, [rsi + 224]",
                    "vmovups ymm0, [rsi + 256]",
                    "vmovups ymm1, [rsi + 288]",
                    "vmovups ymm2, [rsi + 320]",
                    "vmovups ymm3, [rsi + 352]",
                    "vmovups ymm4, [rsi + 384]",
                    "vmovups ymm5, [rsi + 416]",
                    "vmovups ymm6, [rsi + 448]",
                    "vmovups ymm7, [rsi + 480]",
                    "add rsi, 512",
                    "dec rcx",
                    "jnz 2b",
                    inout("rsi") words.as_ptr() => _,
                    inout("rcx") turns => _,
                    clobber_abi("sysv64"),
                    options(readonly, nostack),
                );
            }
        }
    }
    true
}
