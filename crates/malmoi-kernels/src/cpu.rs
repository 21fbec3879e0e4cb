//! What the processor can do, and which instruction set the kernels use.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction set that the kernels are compiled for, from the plainest to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust that runs anywhere.
    Portable,
    /// 256-bit vectors with fused multiply-add (x86-64-v3).
    Avx2,
    /// 512-bit vectors (x86-64-v4).
    Avx512,
    /// The same, with bf16 products on the tile unit (Sapphire Rapids and later).
    Amx,
}

impl Isa {
    /// Every instruction set, plainest first.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Amx];

    /// The name that `MALMOI_ISA` and reports use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        }
    }

    /// Whether this processor (and its operating system) can run it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => crate::simd::Avx2::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => crate::simd::Avx512::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => crate::amx::Amx::new().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An instruction set was asked for that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// The name is not one we know.
    #[error(
        "MALMOI_ISA is {0:?}; expected portable, avx2, avx512 or amx (or leave it unset for the best one)"
    )]
    Unknown(String),
    /// The processor lacks it.
    #[error("this processor cannot run {0}; unset MALMOI_ISA to use {best}", best = best())]
    Unavailable(Isa),
}

/// The instruction sets this machine can run, plainest first.
#[must_use]
pub fn available() -> Vec<Isa> {
    Isa::ALL
        .into_iter()
        .filter(|isa| isa.is_available())
        .collect()
}

/// The widest instruction set of this machine.
#[must_use]
pub fn best() -> Isa {
    available().pop().unwrap_or(Isa::Portable)
}

/// What the environment variable `MALMOI_ISA` asks for, or the best one when it is unset or empty.
///
/// # Errors
/// When the variable holds an unknown name or one this machine cannot run. Programs call this at their start to say so
/// plainly; [`isa`] panics with the same words.
pub fn requested() -> Result<Isa, IsaError> {
    let Some(value) = std::env::var_os("MALMOI_ISA").filter(|v| !v.is_empty()) else {
        return Ok(best());
    };
    parse(&value.to_string_lossy())
}

fn parse(name: &str) -> Result<Isa, IsaError> {
    let isa = Isa::ALL
        .into_iter()
        .find(|isa| isa.name() == name)
        .ok_or_else(|| IsaError::Unknown(name.to_owned()))?;
    if isa.is_available() {
        Ok(isa)
    } else {
        Err(IsaError::Unavailable(isa))
    }
}

/// 0 before the first use, else the instruction set plus one.
static IN_USE: AtomicU8 = AtomicU8::new(0);

/// The instruction set that the kernels use.
///
/// # Panics
/// When `MALMOI_ISA` names one that is unknown or unavailable.
#[must_use]
#[inline]
pub fn isa() -> Isa {
    match IN_USE.load(Ordering::Relaxed) {
        1 => Isa::Portable,
        2 => Isa::Avx2,
        3 => Isa::Avx512,
        4 => Isa::Amx,
        _ => choose(),
    }
}

#[cold]
fn choose() -> Isa {
    let isa = requested().unwrap_or_else(|error| panic!("{error}"));
    IN_USE.store(isa as u8 + 1, Ordering::Relaxed);
    isa
}

/// Makes every kernel of the process use `isa` from now on. Only tests that run one at a time may do this: a kernel that runs
/// while the choice changes would mix the block sizes of two instruction sets.
#[cfg(test)]
pub(crate) fn use_isa(isa: Isa) {
    assert!(isa.is_available(), "{isa} is not available here");
    IN_USE.store(isa as u8 + 1, Ordering::Relaxed);
}

/// One cache of the first core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1, 2, 3.
    pub level: u8,
    /// `Data`, `Instruction` or `Unified`, as the kernel of the operating system says.
    pub kind: String,
    /// Bytes.
    pub size: usize,
}

/// What `malmoi doctor` prints about the processor.
#[derive(Clone, Debug)]
pub struct Description {
    /// The processor's own name, when the operating system tells it.
    pub model: Option<String>,
    /// Cores that this process may run on.
    pub cores: usize,
    /// Features that matter to the kernels, with whether the processor has them.
    pub features: Vec<(&'static str, bool)>,
    /// Instruction sets the kernels can use here.
    pub available: Vec<Isa>,
    /// Caches of the first core; empty when unreadable.
    pub caches: Vec<Cache>,
}

/// Describes the processor. Reads `/proc/cpuinfo` and `/sys` where they exist.
#[must_use]
pub fn describe() -> Description {
    Description {
        model: model_name(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        features: features(),
        available: available(),
        caches: caches(),
    }
}

fn model_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn features() -> Vec<(&'static str, bool)> {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detect {
            ($($name:tt),*) => { vec![$(($name, std::arch::is_x86_feature_detected!($name))),*] };
        }
        let mut found = detect!(
            "avx2",
            "fma",
            "f16c",
            "avx512f",
            "avx512bw",
            "avx512dq",
            "avx512vl",
            "avx512vnni",
            "avx512bf16",
            "avx512fp16"
        );
        let tiles = cpu_flags();
        for name in ["amx_tile", "amx_bf16", "amx_int8"] {
            found.push((name, tiles.split(' ').any(|flag| flag == name)));
        }
        found
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        Vec::new()
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_flags() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags"));
    flags
        .and_then(|line| line.split_once(':'))
        .map_or(String::new(), |(_, flags)| flags.trim().to_owned())
}

fn caches() -> Vec<Cache> {
    (0..8)
        .map_while(|index| {
            let read = |file: &str| {
                let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
                std::fs::read_to_string(path)
                    .ok()
                    .map(|text| text.trim().to_owned())
            };
            Some(Cache {
                level: read("level")?.parse().ok()?,
                kind: read("type")?,
                size: parse_size(&read("size")?)?,
            })
        })
        .collect()
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_size("48K"), Some(49_152));
        assert_eq!(parse_size("2M"), Some(2 << 20));
        assert_eq!(parse_size("7"), Some(7));
        assert_eq!(parse_size("7X"), None);
    }

    #[test]
    fn names_are_read_and_unknown_ones_refused() {
        for isa in available() {
            assert_eq!(parse(isa.name()), Ok(isa));
        }
        let error = parse("neon").expect_err("not one of ours");
        assert_eq!(
            error.to_string(),
            "MALMOI_ISA is \"neon\"; expected portable, avx2, avx512 or amx (or leave it unset for the best one)"
        );
    }

    #[test]
    fn the_portable_set_is_always_there_and_the_best_is_available() {
        assert_eq!(available()[0], Isa::Portable);
        assert!(best().is_available());
        assert!(describe().cores >= 1);
    }
}
