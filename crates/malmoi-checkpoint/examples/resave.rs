//! Finds a model (directory or hub id), and writes it again, in shards if asked.
//!
//! ```text
//! cargo run --release -p malmoi-checkpoint --example resave -- MODEL OUT [MAX_SHARD_BYTES]
//! ```

use std::process::ExitCode;

use malmoi_checkpoint::{ModelDirectory, ModelFiles, NamedTensor, Overwrite, Result, hub};

fn resave(model: &str, out: &str, max_shard_bytes: Option<u64>) -> Result<()> {
    let read = ModelDirectory::open(hub::resolve(model)?)?;
    let mut tensors = Vec::new();
    for name in read.tensors.names() {
        let view = read.tensors.require(name)?;
        tensors.push(NamedTensor::new(name, view.shape, view));
    }
    println!(
        "{}: {} tensors of a `{}` model",
        read.path.display(),
        tensors.len(),
        read.model_type
    );
    let files = ModelFiles {
        config: &read.config,
        tensors: &tensors,
        generation_config: read.generation_config.as_ref(),
        extra: &[],
        card: None,
        max_shard_bytes,
        nested: &[],
    };
    ModelDirectory::write(out, &files, Overwrite::Refuse)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (model, out, shard) = match arguments.as_slice() {
        [model, out] => (model, out, None),
        [model, out, shard] if shard.parse::<u64>().is_ok() => (model, out, shard.parse().ok()),
        _ => {
            eprintln!("usage: resave MODEL OUT [MAX_SHARD_BYTES]");
            return ExitCode::from(2);
        }
    };
    match resave(model, out, shard) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if error.is_bad_input() { 2 } else { 1 })
        }
    }
}
