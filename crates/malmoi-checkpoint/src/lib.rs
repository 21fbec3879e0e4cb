//! Model directories, safetensors, hub cache and atomic run directories: bytes and names.
//!
//! Nothing here knows an architecture or a tensor library. [`Tensors`] reads weights without
//! copying, [`write_safetensors`] writes them, [`ModelDirectory`] and [`run`] make directories
//! appear complete or not at all, [`ConfigReader`] and [`match_names`] refuse what a model
//! doesn't understand, and [`hub::resolve`] finds models by name.

pub mod card;
pub mod config_reader;
pub mod directory;
mod dtype;
mod error;
mod fs;
pub mod header;
pub mod hub;
pub mod inert;
mod mmap;
mod names;
pub mod run;
mod tensors;
mod write;

pub use card::ModelCard;
pub use config_reader::{ConfigError, ConfigReader};
pub use directory::{
    ExtraContent, ExtraFile, ModelDirectory, ModelFiles, Overwrite, read_config, read_json,
    write_json,
};
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use fs::write_atomically;
pub use header::HeaderError;
pub use names::{AcceptNames, NameMatch, NameMismatch, match_names};
pub use tensors::{TensorView, Tensors, WEIGHTS, WEIGHTS_INDEX, parse_index, read_index};
pub use write::{
    FORMAT_PT, NamedTensor, TensorData, to_safetensors_bytes, write_safetensors, write_weights,
};
