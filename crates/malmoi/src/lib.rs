//! The malmoi library: one import for all parts.
//!
//! From text to a model and back:
//!
//! ```
//! use malmoi::generate::{Flow, GenerateOptions};
//! use malmoi::models::{Head, Mode, Model, ModelConfig};
//! use malmoi::text::{Algorithm, TrainOptions, train_from_iter};
//! use malmoi::Pipeline;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A tokenizer, trained on a few lines.
//! let lines = ["이 영화는 정말 재미있다", "이 영화는 정말 지루하다"];
//! let options = TrainOptions::new(Algorithm::Bpe, 300);
//! let text = lines.iter().map(|line| Ok(line.to_string()));
//! let tokenizer = train_from_iter(text, &options, &mut |_| ())?.tokenizer;
//!
//! // A small GPT-2 with random weights and the vocabulary of that tokenizer.
//! let shape = serde_json::json!({
//!     "model_type": "gpt2", "vocab_size": tokenizer.vocab_size(),
//!     "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32,
//! });
//! let config = ModelConfig::from_json(&shape, false)?;
//! let model = Model::initialise(config, Head::CausalLm, 1, Mode::Inference);
//!
//! // Together they continue a text; whole characters arrive one after another.
//! let pipeline = Pipeline::new(model, tokenizer)?;
//! let prompt = pipeline.prompt_ids("이 영화는", 0)?;
//! let options = GenerateOptions { max_new_tokens: 8, ..Default::default() };
//! let texts = pipeline.generate(&[prompt], &options, &[], &mut |_, _| Flow::Continue)?;
//! assert_eq!(texts[0].ids.len(), 8);
//! # Ok(())
//! # }
//! ```
//!
//! Model directories have the published layout, so Python reads what [`models::Model::save`] writes:
//!
//! ```
//! use malmoi::models::{Head, Mode, Model, ModelConfig, OpenOptions, SaveOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let shape = serde_json::json!({
//!     "model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1,
//!     "num_attention_heads": 2, "intermediate_size": 32,
//! });
//! let model = Model::initialise(ModelConfig::from_json(&shape, false)?, Head::MaskedLm, 1, Mode::Inference);
//! let parent = tempfile::tempdir()?;
//! let dir = parent.path().join("model");
//! model.save(&dir, &SaveOptions::default())?;
//! let same = Model::open(&dir, &OpenOptions::default())?;
//! assert_eq!(same.published_tensors(), model.published_tensors());
//! # Ok(())
//! # }
//! ```

/// Bytes and names: safetensors, model directories, the hub cache, run directories.
pub use malmoi_checkpoint as checkpoint;
/// Generation, blanks, embeddings, perplexity.
pub use malmoi_infer as infer;
/// Architectures, published configurations and weights.
pub use malmoi_models as models;
/// Examples, labels and metrics of tasks.
pub use malmoi_tasks as tasks;
/// Tokenizers and corpora.
pub use malmoi_text as text;
/// Pretraining.
pub use malmoi_train as train;

pub use malmoi_infer::{Pipeline, beam, embed, fill_mask, generate, perplexity, sampling};
pub use malmoi_models::{Model, ModelConfig};
pub use malmoi_text::Tokenizer;
