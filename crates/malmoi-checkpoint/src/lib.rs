//! Model directories, safetensors, hub cache and atomic run directories.
