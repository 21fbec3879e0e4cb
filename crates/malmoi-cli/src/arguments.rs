//! What can be written after `malmoi`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use malmoi_models::Precision;
use toml::Value;

use crate::failure::Result;
use crate::{commands, model};

/// Pretrain, verify and use BERT and GPT models on a CPU.
#[derive(Parser, Debug)]
#[command(
    name = "malmoi",
    bin_name = "malmoi",
    version,
    disable_help_subcommand = true,
    after_help = "Start with:\n  malmoi quickstart\n\nA MODEL is a directory, a preset (bert-base, gpt2, …) or a hub id (org/name)."
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: commands::Command,
}

/// Flags of every verb.
#[derive(Args, Debug, Clone, Copy)]
pub struct Global {
    /// Threads to compute with (default: one a core)
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Global options")]
    pub threads: Option<u16>,
    /// No progress and no remarks on stderr
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub quiet: bool,
}

/// How a model is named and what is tolerated when it is read.
#[derive(Args, Debug, Clone)]
pub struct ModelArguments {
    /// Model directory or hub id (org/name, org/name@revision)
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// Accept keys in config.json that malmoi does not know
    #[arg(long)]
    pub accept_unknown_config: bool,
    /// Accept a tokenizer that has fewer tokens than the model
    #[arg(long)]
    pub accept_smaller_tokenizer: bool,
    /// Arithmetic: f32, or bf16 (faster on processors with a tile unit)
    #[arg(long, value_name = "P", default_value = "f32")]
    pub precision: Precision,
}

/// Where a fine-tuning run starts, what it reads and where it goes.
#[derive(Args, Debug, Clone)]
pub struct RunArguments {
    /// Pretrained model: a directory, a run, or a hub id
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Training data; may be given several times
    #[arg(long, value_name = "FILE")]
    pub train: Vec<PathBuf>,
    /// Validation data
    #[arg(long, value_name = "FILE")]
    pub valid: Vec<PathBuf>,
    /// Where the files are
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Folder of the run; `best` and `last` in it are model directories
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Continue the run in --out from its last checkpoint
    #[arg(long)]
    pub resume: bool,
    /// Override a key of the recipe, such as optimizer.kind=lamb; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Arithmetic: f32, or bf16, which is faster on processors with a tile unit (default: f32)
    #[arg(long, value_name = "P", help_heading = "Recipe")]
    pub precision: Option<Precision>,
}

impl RunArguments {
    /// The folder of the model, which is fetched where it is a hub's.
    pub fn directory(&self, global: &Global) -> Result<Option<PathBuf>> {
        let name = self.model.as_deref();
        name.map(|name| model::directory(name, global)).transpose()
    }

    /// The folder of the model, these flags and those of the verb as keys of a recipe; --set comes last and wins.
    pub fn overrides(
        &self,
        model: Option<PathBuf>,
        more: impl IntoIterator<Item = (&'static str, Option<Value>)>,
    ) -> Vec<String> {
        let text = |path: &PathBuf| Value::String(path.display().to_string());
        let list = |paths: &[PathBuf]| {
            (!paths.is_empty()).then(|| Value::Array(paths.iter().map(text).collect()))
        };
        let own = [
            ("model.path", model.as_ref().map(text)),
            ("data.train", list(&self.train)),
            ("data.valid", list(&self.valid)),
            ("data.dir", self.data_dir.as_ref().map(text)),
            (
                "train.precision",
                self.precision.map(|p| Value::String(p.to_string())),
            ),
        ];
        let flags = own
            .into_iter()
            .chain(more)
            .filter_map(|(key, value)| Some(format!("{key}={}", value?)));
        flags.chain(self.set.iter().cloned()).collect()
    }
}

/// Low-rank adapters in place of the weights.
#[derive(Args, Debug, Clone)]
pub struct LoraArguments {
    /// Train low-rank adapters (LoRA) of this width in place of the body
    #[arg(long, value_name = "N", help_heading = "Recipe")]
    lora_rank: Option<usize>,
    /// Adapters: their product is scaled by this over the rank (default: 16)
    #[arg(long, value_name = "X", help_heading = "Recipe")]
    lora_alpha: Option<f64>,
    /// Adapters: last parts of the published names of the layers that get one, with commas (default: query and value)
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        help_heading = "Recipe"
    )]
    lora_targets: Vec<String>,
}

impl LoraArguments {
    /// The flags as keys of a recipe.
    pub fn keys(&self) -> [(&'static str, Option<Value>); 3] {
        let names = self.lora_targets.iter().cloned().map(Value::String);
        [
            (
                "tune.lora.rank",
                self.lora_rank.map(|rank| Value::Integer(rank as i64)),
            ),
            ("tune.lora.alpha", self.lora_alpha.map(Value::Float)),
            (
                "tune.lora.targets",
                (!self.lora_targets.is_empty()).then(|| Value::Array(names.collect())),
            ),
        ]
    }
}

/// Verbs that group others.
#[derive(Subcommand, Debug)]
pub enum TokenizerCommand {
    /// Train a tokenizer on text files
    Train(commands::tokenizer_train::Train),
    /// Encode text and show its tokens
    Encode(commands::tokenizer_encode::Encode),
    /// Measure how well a tokenizer fits a text (Hangul doctor)
    Inspect(commands::tokenizer_inspect::Inspect),
}
