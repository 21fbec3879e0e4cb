//! `malmoi plan`.

use clap::Args;
use malmoi_kernels::probe::Arithmetic;
use malmoi_roofline::cost::Widths;
use malmoi_roofline::machine::{Machine, total_memory};
use malmoi_roofline::plan::{self, Device, Plan as Planned, PlanError, Request, THIS_MACHINE};

use crate::arguments::Global;
use crate::failure::{Failure, Result};
use crate::{model, output, progress};

/// Time and memory of a training before it runs
#[derive(Args, Debug)]
#[command(
    after_help = format!("Hardware: a name, or a name and a count such as h200x1024. Names: cpu (this machine, measured), {}.\nWeights, gradients and moments are divided over the devices; activations belong to each device's own sequences.\n\n\
                  Examples:\n  malmoi plan gpt3-175b --tokens 300B --hardware h200x1024\n  malmoi plan bert-base --tokens 1B --hardware cpu --utilisation 0.5", Device::names().join(", "))
)]
pub struct Plan {
    /// Model directory, preset or hub id
    model: String,
    /// Tokens to train on, such as 300B
    #[arg(long, value_name = "N")]
    tokens: String,
    /// What to train on, such as h200x1024
    #[arg(long, value_name = "H")]
    hardware: String,
    /// Arithmetic of training on this machine (default: f32); other hardware is planned in 16 bits
    #[arg(long, value_name = "P", value_parser = ["f32", "bf16"])]
    precision: Option<String>,
    /// Share of the peak that training reaches
    #[arg(long, value_name = "X", default_value_t = 0.4)]
    utilisation: f64,
    /// Tokens of a sequence (default: the model's longest)
    #[arg(long, value_name = "T")]
    length: Option<usize>,
    /// Sequences that a device trains at a time
    #[arg(long, value_name = "B", default_value_t = 1)]
    sequences: usize,
    /// Keep all activations instead of computing those of a block again
    #[arg(long)]
    keep_activations: bool,
    /// Accept keys in config.json that malmoi does not know
    #[arg(long)]
    accept_unknown_config: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn refused(error: PlanError) -> Failure {
    Failure::input(error.to_string())
}

impl Plan {
    pub fn run(self, global: &Global) -> Result<()> {
        let (config, _) = model::shape(&self.model, self.accept_unknown_config, global)?;
        let (name, devices) = plan::parse_hardware(&self.hardware).map_err(refused)?;
        let tokens = plan::parse_tokens(&self.tokens).map_err(refused)?;
        let device = match Device::named(&name) {
            Some(_) if self.precision.as_deref() == Some("f32") => {
                return Err(Failure::input(format!(
                    "`{name}` is planned in 16 bits; leave out --precision f32, or plan --hardware {THIS_MACHINE}"
                )));
            }
            Some(device) => device,
            None => this_machine(self.precision.as_deref().unwrap_or("f32"), global),
        };
        let request = Request {
            tokens,
            device,
            devices,
            utilisation: self.utilisation,
            length: self.length.unwrap_or(config.max_len()),
            sequences: self.sequences,
            recompute: !self.keep_activations,
        };
        let planned = plan::plan(&config, &request).map_err(refused)?;
        if self.json {
            return output::json(&planned);
        }
        self.print(&planned, &request)
    }

    fn print(&self, planned: &Planned, request: &Request) -> Result<()> {
        let row = |key: &str, value: String| vec![key.to_owned(), value];
        let device = &planned.device;
        let mut rows = vec![
            row("model", self.model.clone()),
            row("parameters", output::thousands(planned.parameters as usize)),
            row(
                "tokens",
                format!(
                    "{} ({} a sequence)",
                    output::decimal(request.tokens, ""),
                    request.length
                ),
            ),
            row(
                "hardware",
                format!("{} x {}", planned.devices, device.description),
            ),
            row(
                "peak",
                format!(
                    "{} a device, {} in all at {:.0} % utilisation",
                    output::decimal(device.flops, "FLOP/s"),
                    output::decimal(planned.flops_per_second, "FLOP/s"),
                    100.0 * planned.utilisation
                ),
            ),
            row(
                "arithmetic, 6·N·D",
                format!("{:.3e} FLOP", planned.flops_6nd),
            ),
            row(
                "arithmetic, exact",
                format!("{:.3e} FLOP", planned.flops_exact),
            ),
        ];
        if request.recompute {
            rows.push(row(
                "with recomputation",
                format!("{:.3e} FLOP", planned.flops_run),
            ));
        }
        rows.push(row("time", duration(planned.days)));
        rows.push(row(
            "time of all devices",
            format!("{:.1} device-days", planned.device_days),
        ));
        rows.push(row(
            "memory of a device",
            format!(
                "{} of {}{}",
                output::bytes(planned.memory_bytes as f64),
                output::bytes(device.memory as f64),
                if planned.fits { "" } else { ": does not fit" }
            ),
        ));
        for part in &planned.memory {
            rows.push(row(
                &format!("  {}", part.name),
                output::bytes(part.bytes as f64),
            ));
        }
        output::table("ll", &rows)?;
        if planned.fits {
            return Ok(());
        }
        match planned.fewest_devices {
            Some(fewest) => output::line(format!(
                "it fits on {fewest} of these devices or more (--hardware {}x{fewest})",
                device.name
            )),
            None => output::line(
                "the activations of one device's sequences alone do not fit: lower --length or --sequences, or leave out --keep-activations",
            ),
        }
    }
}

/// Days, or a smaller unit for what takes less.
fn duration(days: f64) -> String {
    match days {
        days if days >= 2.0 => format!("{days:.1} days"),
        days if days >= 0.1 => format!("{:.1} hours", 24.0 * days),
        days => format!("{:.1} minutes", 1440.0 * days),
    }
}

/// This machine in f32 or bf16, measured.
fn this_machine(precision: &str, global: &Global) -> Device {
    let arithmetic = Arithmetic::named(precision).unwrap_or(Arithmetic::F32);
    let spinner = progress::spinner(global.quiet, "measuring the machine");
    let machine = Machine::measure();
    spinner.finish_and_clear();
    let processor = machine.processor.clone();
    Device {
        name: THIS_MACHINE.into(),
        description: format!(
            "{}, {} threads in {precision}, measured",
            processor.as_deref().unwrap_or("this machine"),
            machine.threads
        ),
        flops: machine.peak(arithmetic),
        memory: total_memory().unwrap_or(u64::MAX),
        bandwidth: machine.memory().all,
        bytes_per_value: Widths::of(arithmetic).activation,
    }
}
