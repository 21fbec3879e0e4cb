//! What training a model on much hardware would take, before anyone pays for it.
//!
//! Arithmetic is counted twice: by the rule of thumb 6·N·D (Kaplan et al., 2020, section 2.1: six operations a parameter and
//! token) and exactly, operation by operation. Memory is divided over the devices as fully sharded training does it
//! (Rajbhandari et al., 2020, ZeRO stage 3): every device holds an equal part of weights, gradients and moments, and whole
//! activations of its own sequences.

use malmoi_models::{ModelConfig, ModelInfo};
use serde::Serialize;

use crate::cost::{CostError, Phase, WIDE, Widths, Work, count, head_for};
use crate::memory::memory;

/// A device as its maker describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Device {
    /// Name on the command line.
    pub name: String,
    /// What it is and where the numbers come from.
    pub description: String,
    /// Dense operations a second in bf16 with 32-bit sums; f32 where there is no such unit.
    pub flops: f64,
    /// Memory in bytes.
    pub memory: u64,
    /// Memory bandwidth in bytes a second.
    pub bandwidth: f64,
    /// Bytes of a weight and of an activation while training; on this machine of an activation alone.
    pub bytes_per_value: u64,
}

const GIB: u64 = 1 << 30;
const GB: u64 = 1_000_000_000;

/// Devices by name: source, dense bf16 peak in TFLOP/s, memory in bytes, bandwidth in GB/s. All are nominal: what the vendor states, or
/// computed from it. None was measured here.
const DEVICES: &[(&str, &str, f64, u64, f64)] = &[
    (
        "v100",
        "NVIDIA V100 SXM2 32 GB, fp16 tensor cores (it has no bf16); nominal peaks of the vendor's V100 data sheet",
        125.0,
        32 * GB,
        900.0,
    ),
    (
        "a100",
        "NVIDIA A100 SXM 80 GB; nominal dense peaks of the vendor's A100 80 GB data sheet",
        312.0,
        80 * GB,
        2039.0,
    ),
    (
        "h100",
        "NVIDIA H100 SXM 80 GB; nominal peaks of the vendor's H100 data sheet, which gives twice the dense rate (sparse)",
        989.5,
        80 * GB,
        3350.0,
    ),
    (
        "h200",
        "NVIDIA H200 SXM 141 GB; nominal peaks of the vendor's H200 data sheet, which gives twice the dense rate (sparse)",
        989.5,
        141 * GB,
        4800.0,
    ),
    (
        "xeon-8480",
        "Intel Xeon Platinum 8480+; nominal, computed: 56 cores x 2.0 GHz (base) x 1,024 bf16 operations a cycle (AMX), 8 channels x 4.8 GT/s x 8 B; 512 GiB assumed",
        114.7,
        512 * GIB,
        307.2,
    ),
];

/// Name of the machine that the program runs on.
pub const THIS_MACHINE: &str = "cpu";

impl Device {
    /// Whether this is the machine that the program runs on.
    pub fn is_this_machine(&self) -> bool {
        self.name == THIS_MACHINE
    }

    /// Names that [`Device::named`] knows, beside [`THIS_MACHINE`].
    pub fn names() -> Vec<&'static str> {
        DEVICES.iter().map(|device| device.0).collect()
    }

    /// The device of that name.
    pub fn named(name: &str) -> Option<Self> {
        let (name, description, tflops, memory, bandwidth) =
            *DEVICES.iter().find(|device| device.0 == name)?;
        Some(Self {
            name: name.to_owned(),
            description: description.to_owned(),
            flops: tflops * 1e12,
            memory,
            bandwidth: bandwidth * 1e9,
            bytes_per_value: 2,
        })
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Not `NAMExCOUNT`.
    #[error("hardware `{found}`: expected a name and a count such as h200x1024; names are cpu (this machine), {names}", names = Device::names().join(", "))]
    Hardware {
        /// What was given.
        found: String,
    },
    /// Not a number of tokens.
    #[error("`{found}` is no number of tokens: expected one such as 300B, 1.5T, 20M or 1000000")]
    Tokens {
        /// What was given.
        found: String,
    },
    /// Not a share.
    #[error("utilisation {found}: expected more than 0 and at most 1")]
    Utilisation {
        /// What was given.
        found: f64,
    },
    /// The model cannot be counted.
    #[error(transparent)]
    Cost(#[from] CostError),
}

/// Splits `h200x1024` into a name and a count; a name alone is one device.
///
/// # Errors
/// [`PlanError::Hardware`].
pub fn parse_hardware(text: &str) -> Result<(String, u64), PlanError> {
    let wrong = || PlanError::Hardware {
        found: text.to_owned(),
    };
    let known = |name: &str| name == THIS_MACHINE || Device::names().contains(&name);
    if known(text) {
        return Ok((text.to_owned(), 1));
    }
    let (name, count) = text.rsplit_once('x').ok_or_else(wrong)?;
    let count = count.parse().ok().filter(|count| *count > 0);
    match count {
        Some(count) if known(name) => Ok((name.to_owned(), count)),
        _ => Err(wrong()),
    }
}

/// Reads `300B`, `1.5T`, `20M`, `7k` or plain digits.
///
/// # Errors
/// [`PlanError::Tokens`].
pub fn parse_tokens(text: &str) -> Result<f64, PlanError> {
    let factor = match text.chars().last() {
        Some('k' | 'K') => 1e3,
        Some('m' | 'M') => 1e6,
        Some('b' | 'B' | 'g' | 'G') => 1e9,
        Some('t' | 'T') => 1e12,
        _ => 1.0,
    };
    let digits = if factor > 1.0 {
        &text[..text.len() - 1]
    } else {
        text
    };
    let plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    let number = digits.parse::<f64>().ok().filter(|n| plain && *n > 0.0);
    number.map(|n| n * factor).ok_or_else(|| PlanError::Tokens {
        found: text.to_owned(),
    })
}

/// What is planned.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Tokens to train on.
    pub tokens: f64,
    /// The device.
    pub device: Device,
    /// How many of them.
    pub devices: u64,
    /// Share of the peak that training reaches.
    pub utilisation: f64,
    /// Tokens of a sequence.
    pub length: usize,
    /// Sequences that a device trains at a time.
    pub sequences: usize,
    /// Whether the activations of a block are computed again instead of kept.
    pub recompute: bool,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Parameters of the model.
    pub parameters: u64,
    /// Operations by the rule 6·N·D.
    pub flops_6nd: f64,
    /// Operations counted one by one.
    pub flops_exact: f64,
    /// The same with those that recomputation adds, which take time and teach nothing.
    pub flops_run: f64,
    /// The device.
    pub device: Device,
    /// How many of them.
    pub devices: u64,
    /// Share of the peak.
    pub utilisation: f64,
    /// Operations a second of all devices at that share.
    pub flops_per_second: f64,
    /// Days.
    pub days: f64,
    /// Days of one device.
    pub device_days: f64,
    /// Memory of a device by part, in bytes.
    pub memory: Vec<Part>,
    /// Their sum.
    pub memory_bytes: u64,
    /// Whether that fits into the device.
    pub fits: bool,
    /// The fewest devices on which it would fit; nothing when activations alone fill one.
    pub fewest_devices: Option<u64>,
}

/// A part of a device's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// Bytes.
    pub bytes: u64,
}

const DAY: f64 = 86_400.0;

/// Plans a training.
///
/// # Errors
/// A utilisation that is no share, or sizes that do not fit the model.
pub fn plan(config: &ModelConfig, request: &Request) -> Result<Plan, PlanError> {
    if !(request.utilisation > 0.0 && request.utilisation <= 1.0) {
        return Err(PlanError::Utilisation {
            found: request.utilisation,
        });
    }
    let (here, width) = (
        request.device.is_this_machine(),
        request.device.bytes_per_value,
    );
    let widths = Widths {
        // This program trains without a narrow copy of the weights.
        weight: if here { WIDE } else { width },
        activation: width,
    };
    let plain = Work::new(Phase::Train, request.sequences, request.length);
    let work = Work {
        recompute: request.recompute,
        ..plain
    };
    let per_token = |work: &Work| -> Result<f64, CostError> {
        Ok(count(config, work, widths)?.flops() as f64 / work.counted_tokens() as f64)
    };
    let head = head_for(config, Phase::Train);
    let parameters = ModelInfo::new(config, head).parameters;
    let flops_exact = per_token(&plain)? * request.tokens;
    let flops_run = per_token(&work)? * request.tokens;
    let rate = request.device.flops * request.devices as f64 * request.utilisation;
    let days = flops_run / rate / DAY;
    let one = memory(config, &work, widths)?;
    let share = |bytes: u64| bytes.div_ceil(request.devices);
    let sharded = [
        ("weights", one.weights),
        ("master weights (f32)", one.master_weights),
        ("gradients (f32)", one.gradients),
        ("AdamW moments (f32)", one.moments),
    ];
    // What the allocator holds is known of this machine alone.
    let held = if here { one.allocator } else { 0 };
    let own = [
        ("activations", one.activations),
        ("logits", one.vocabulary),
        ("allocator", held),
    ];
    let mut parts: Vec<Part> = Vec::new();
    for (name, bytes) in sharded.into_iter().filter(|part| part.1 > 0) {
        parts.push(Part {
            name,
            bytes: share(bytes),
        });
    }
    for (name, bytes) in own.into_iter().filter(|part| part.1 > 0) {
        parts.push(Part { name, bytes });
    }
    let memory_bytes = parts.iter().map(|part| part.bytes).sum();
    let fixed: u64 = own.iter().map(|part| part.1).sum();
    let all: u64 = sharded.iter().map(|part| part.1).sum();
    let room = request
        .device
        .memory
        .checked_sub(fixed)
        .filter(|room| *room > 0);
    Ok(Plan {
        parameters,
        flops_6nd: 6.0 * parameters as f64 * request.tokens,
        flops_exact,
        flops_run,
        device: request.device.clone(),
        devices: request.devices,
        utilisation: request.utilisation,
        flops_per_second: rate,
        days,
        device_days: days * request.devices as f64,
        memory: parts,
        memory_bytes,
        fits: memory_bytes <= request.device.memory,
        fewest_devices: room.map(|room| all.div_ceil(room)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(hardware: &str) -> Request {
        let (name, devices) = parse_hardware(hardware).expect("valid");
        Request {
            tokens: 300e9,
            device: Device::named(&name).expect("listed"),
            devices,
            utilisation: 0.4,
            length: 2048,
            sequences: 1,
            recompute: true,
        }
    }

    fn gpt3() -> ModelConfig {
        ModelConfig::preset("gpt3-175b").expect("a preset")
    }

    #[test]
    fn gpt3_takes_what_its_paper_says() {
        let found = plan(&gpt3(), &request("h200x1024")).expect("fits");
        // Brown et al. (2020), table D.1: 3.14e23 operations.
        assert!(
            (found.flops_6nd / 3.14e23 - 1.0).abs() < 0.01,
            "{:e}",
            found.flops_6nd
        );
        // Attention adds: 12 layers' worth of 2048 · 12288 against 12 · 12288² a block, halved by the mask.
        let ratio = found.flops_exact / found.flops_6nd;
        assert!((1.0..1.03).contains(&ratio), "{ratio}");
        // A third more for computing every block again.
        let again = found.flops_run / found.flops_exact;
        assert!((1.3..1.34).contains(&again), "{again}");
        // By hand: flops / (1024 devices · 989.5e12 · 0.4) in days.
        let days = found.flops_run / (1024.0 * 989.5e12 * 0.4) / 86_400.0;
        assert!(
            (found.days / days - 1.0).abs() < 1e-9 && (10.0..14.0).contains(&days),
            "{days}"
        );
    }

    #[test]
    fn memory_is_divided_over_the_devices() {
        let found = plan(&gpt3(), &request("h200x1024")).expect("fits");
        let part = |name: &str| {
            let found = found.memory.iter().find(|part| part.name.starts_with(name));
            found.unwrap_or_else(|| panic!("no {name}")).bytes
        };
        // 2 + 4 + 4 + 8 bytes a parameter, over 1,024.
        let parameters = found.parameters;
        assert_eq!(part("weights"), (2 * parameters).div_ceil(1024));
        assert_eq!(part("AdamW"), (8 * parameters).div_ceil(1024));
        assert!(found.fits && found.memory_bytes < 141 * GB);
        let alone = plan(&gpt3(), &request("h200")).expect("counts");
        assert!(!alone.fits);
        let fewest = alone.fewest_devices.expect("activations fit");
        assert!((22..40).contains(&fewest), "{fewest}");
        let enough = plan(&gpt3(), &request(&format!("h200x{fewest}"))).expect("counts");
        assert!(enough.fits);
    }

    #[test]
    fn this_machine_takes_what_a_training_here_does() {
        for (bytes, recompute) in [(4, false), (4, true), (2, false), (2, true)] {
            let mut request = request("h200");
            request.device.name = THIS_MACHINE.into();
            request.device.bytes_per_value = bytes;
            (request.length, request.sequences) = (256, 4);
            request.recompute = recompute;
            let config = ModelConfig::preset("gpt2").expect("a preset");
            let planned = plan(&config, &request).expect("counts");
            let work = Work {
                recompute,
                ..Work::new(Phase::Train, 4, 256)
            };
            let widths = Widths {
                weight: 4,
                activation: bytes,
            };
            let whole = memory(&config, &work, widths).expect("counts").peak;
            assert!(
                planned.memory_bytes.abs_diff(whole) < 8,
                "{planned:?} {whole}"
            );
        }
    }

    #[test]
    fn arguments_are_read_or_refused() {
        assert_eq!(
            parse_hardware("h200x1024").expect("valid"),
            ("h200".into(), 1024)
        );
        assert_eq!(parse_hardware("cpu").expect("valid"), ("cpu".into(), 1));
        assert_eq!(
            parse_hardware("xeon-8480x4").expect("valid"),
            ("xeon-8480".into(), 4)
        );
        for bad in ["", "h200x", "h200x0", "h2000x4", "x4", "h200x-1"] {
            assert!(parse_hardware(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_tokens("300B"), Ok(300e9));
        assert_eq!(parse_tokens("1.5T"), Ok(1.5e12));
        assert_eq!(parse_tokens("1000"), Ok(1e3));
        for bad in ["", "B", "-3B", "1e9", "NaN", "inf", "3Q", "가"] {
            assert!(parse_tokens(bad).is_err(), "{bad}");
        }
        let mut request = request("h200x1024");
        request.utilisation = 0.0;
        assert!(plan(&gpt3(), &request).is_err());
    }
}
