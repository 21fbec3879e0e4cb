//! `malmoi info`.

use std::path::Path;

use clap::Args;
use malmoi_checkpoint::{directory, read_config};
use malmoi_models::{Head, ModelConfig, ModelError, ModelInfo};
use serde_json::{Value, json};

use crate::arguments::Global;
use crate::failure::Result;
use crate::{model, output};

/// Show a model's shape, parameters, memory and arithmetic
#[derive(Args, Debug)]
#[command(after_help = format!("Presets: {}\n\nExample:\n  malmoi info gpt3-175b --json", ModelConfig::preset_names().join(", ")))]
pub struct Info {
    /// Model directory, preset or hub id
    model: String,
    /// Accept keys in config.json that malmoi does not know
    #[arg(long)]
    accept_unknown_config: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Info {
    /// Configuration and head; of presets, the encoder with its pooler or the decoder with its language-model head, as published.
    fn shape(&self, global: &Global) -> Result<(ModelConfig, Head)> {
        if !Path::new(&self.model).is_dir()
            && let Some(config) = ModelConfig::preset(&self.model)
        {
            let head = config.usual_head();
            return Ok((config, head));
        }
        let json = read_config(&model::directory(&self.model, global)?)?;
        let config = ModelConfig::from_json(&json, self.accept_unknown_config)?;
        let head = match directory::architectures(&json).into_iter().next() {
            None => Head::None,
            Some(name) => config
                .head_named(&name)
                .ok_or_else(|| ModelError::UnknownHead {
                    expected: config
                        .architecture_names()
                        .iter()
                        .map(|(_, name)| *name)
                        .collect::<Vec<_>>()
                        .join(", "),
                    found: name,
                })?,
        };
        Ok((config, head))
    }

    pub fn run(self, global: &Global) -> Result<()> {
        let (config, head) = self.shape(global)?;
        let info = ModelInfo::new(&config, head);
        let cache = 2 * info.n_layers * config.n_kv_heads() * info.d_head * size_of::<f32>();
        if self.json {
            let mut report = json!({ "model": self.model });
            if let (Value::Object(report), Ok(Value::Object(rest))) =
                (&mut report, serde_json::to_value(&info))
            {
                report.extend(rest);
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
                "key/value cache in f32",
                format!("{} a token", output::bytes(cache as f64)),
            ));
        }
        let forward = info.forward_flops_per_token as f64;
        rows.push(row(
            "forward pass",
            format!(
                "{} a token at full length",
                output::decimal(forward, "FLOP")
            ),
        ));
        rows.push(row(
            "training step",
            format!(
                "{} a token (three times forward)",
                output::decimal(3.0 * forward, "FLOP")
            ),
        ));
        output::table("ll", &rows)
    }
}
