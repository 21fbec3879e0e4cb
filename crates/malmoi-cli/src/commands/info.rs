//! `malmoi info`.

use clap::Args;
use malmoi_kernels::probe::Arithmetic;
use malmoi_models::{ModelConfig, ModelInfo};
use malmoi_roofline::cost::{CostError, Phase, Widths, Work, count};
use malmoi_roofline::memory::{Memory, memory};
use serde_json::{Value, json};

use crate::arguments::Global;
use crate::failure::{Failure, Result};
use crate::{model, output};

/// Show a model's shape, parameters, memory and arithmetic
#[derive(Args, Debug)]
#[command(after_help = format!("Presets: {}\n\nExample:\n  malmoi info gpt3-175b --json", ModelConfig::preset_names().join(", ")))]
pub struct Info {
    /// Model directory, preset or hub id
    model: String,
    /// Sequences at once, for memory and arithmetic by phase
    #[arg(long, value_name = "B", default_value_t = 1)]
    batch: usize,
    /// Tokens of a sequence (default: the model's longest; one fewer when decoding)
    #[arg(long, value_name = "T")]
    tokens: Option<usize>,
    /// Arithmetic
    #[arg(long, value_name = "P", default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// Training computes the activations of blocks again instead of keeping them
    #[arg(long)]
    recompute: bool,
    /// Accept keys in config.json that malmoi does not know
    #[arg(long)]
    accept_unknown_config: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arithmetic and memory of a phase.
struct PhaseCost {
    work: Work,
    flops: u64,
    memory: Memory,
}

impl PhaseCost {
    fn json(&self) -> Value {
        json!({ "work": self.work, "flops": self.flops, "memory": self.memory })
    }

    fn title(&self) -> String {
        let Work {
            phase,
            batch,
            tokens,
            ..
        } = self.work;
        match phase {
            Phase::Train => format!("training step, {batch} x {tokens}"),
            Phase::Encode => format!("encode, {batch} x {tokens}"),
            Phase::Prefill => format!("prefill, {batch} x {tokens}"),
            Phase::Decode => format!("decode behind {tokens}, {batch} at once"),
        }
    }

    fn summary(&self) -> String {
        let memory = &self.memory;
        let part = |name: &str, bytes: u64| {
            (bytes > 0).then(|| format!("{name} {}", output::bytes(bytes as f64)))
        };
        let parts = [
            part("weights", memory.weights),
            part("packed weights", memory.packed_weights),
            part("gradients", memory.gradients),
            part("AdamW", memory.moments),
            part("activations", memory.activations),
            part("cache", memory.cache),
            part("vocabulary", memory.vocabulary),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!(
            "{}, peak {} ({})",
            output::decimal(self.flops as f64, "FLOP"),
            output::bytes(memory.peak as f64),
            parts.join(", ")
        )
    }
}

impl Info {
    /// Every phase of the model.
    fn phases(&self, config: &ModelConfig) -> Result<Vec<PhaseCost>> {
        let arithmetic = Arithmetic::named(&self.precision).unwrap_or(Arithmetic::F32);
        let tokens = self.tokens.unwrap_or(config.max_len());
        let mut found = Vec::new();
        for phase in [Phase::Train, Phase::Encode, Phase::Prefill, Phase::Decode] {
            // A new token needs a position of its own.
            let tokens = if phase == Phase::Decode && tokens == config.max_len() {
                tokens.saturating_sub(1)
            } else {
                tokens
            };
            let work = Work {
                recompute: self.recompute && phase == Phase::Train,
                ..Work::new(phase, self.batch, tokens)
            };
            let widths = Widths::of_phase(phase, arithmetic);
            let counted = count(config, &work, widths)
                .and_then(|cost| Ok((cost.flops(), memory(config, &work, widths)?)));
            match counted {
                Ok((flops, memory)) => found.push(PhaseCost {
                    work,
                    flops,
                    memory,
                }),
                Err(CostError::Phase { .. }) => {}
                // A model with one position has no room for a second token; sizes that nobody asked for are no mistake.
                Err(_) if self.tokens.is_none() && self.batch > 0 => {}
                Err(error) => return Err(Failure::input(error.to_string())),
            }
        }
        Ok(found)
    }

    pub fn run(self, global: &Global) -> Result<()> {
        let (config, head) = model::shape(&self.model, self.accept_unknown_config, global)?;
        let info = ModelInfo::new(&config, head);
        let phases = self.phases(&config)?;
        let width = if self.precision == "bf16" { 2 } else { 4 };
        let cache = 2 * info.n_layers * config.n_kv_heads() * info.d_head * width;
        if self.json {
            let mut report = json!({ "model": self.model });
            if let (Value::Object(report), Ok(Value::Object(rest))) =
                (&mut report, serde_json::to_value(&info))
            {
                report.extend(rest);
                let phases: Vec<Value> = phases.iter().map(PhaseCost::json).collect();
                report.insert("phases".into(), phases.into());
                if config.is_causal() {
                    report.insert("cache_bytes_per_token".into(), cache.into());
                }
            }
            return output::json(&report);
        }
        let row = |key: &str, value: String| vec![key.to_owned(), value];
        let mut rows = vec![
            row("model", self.model.clone()),
            row(
                "architecture",
                format!("{} ({})", info.architecture, info.model_type),
            ),
            row("layers", info.n_layers.to_string()),
            row("d_model, d_ff", format!("{}, {}", info.d_model, info.d_ff)),
            row("heads", format!("{} of {}", info.n_heads, info.d_head)),
            row("vocabulary", output::thousands(info.vocab_size)),
            row("positions", output::thousands(info.max_len)),
            row("parameters", output::thousands(info.parameters as usize)),
        ];
        rows.extend(info.parts.iter().map(|part| {
            row(
                &format!("  {}", part.name),
                output::thousands(part.parameters as usize),
            )
        }));
        rows.push(row(
            "weights in f32",
            output::bytes(info.weight_bytes as f64),
        ));
        rows.push(row(
            "training state in f32",
            format!(
                "{} (weights, gradients, AdamW)",
                output::bytes(info.training_bytes as f64)
            ),
        ));
        if config.is_causal() {
            rows.push(row(
                &format!("key/value cache in {}", self.precision),
                format!("{} a token", output::bytes(cache as f64)),
            ));
        }
        for phase in &phases {
            rows.push(row(&phase.title(), phase.summary()));
        }
        output::table("ll", &rows)
    }
}
