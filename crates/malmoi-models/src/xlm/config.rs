//! Published configuration of XLM.

use malmoi_checkpoint::{ConfigError, ConfigReader};
use malmoi_nn::{Activation, Mask};
use serde_json::{Value, json};

use crate::common::{COMMON_KEYS, Common, CommonKeys, FeedForwardSize};
use crate::config::Sizes;
use crate::config_keys::{self, decimal};
use crate::encoder::{Dropouts, EncoderConfig, Positions, Segments};

const KEYS: CommonKeys = CommonKeys {
    initializer: "init_std",
    ..COMMON_KEYS
};

/// Reads the keys of XLM.
pub fn read(read: &ConfigReader<'_>) -> Result<EncoderConfig, ConfigError> {
    read.refuse_unless("asm", false)?;
    read.refuse_unless("is_encoder", true)?;
    // How the sequence classifier summarises: one dense layer on the first token.
    read.refuse_unless("summary_type", "first")?;
    read.refuse_unless("summary_use_proj", true)?;
    read.refuse_unless("summary_proj_to_labels", true)?;
    if let Some(activation) = read.value("summary_activation") {
        return Err(read.unsupported("summary_activation", activation, "null"));
    }
    // Token ids of the tokenizer, names of languages, the beam of a head that is refused by its name.
    read.inert(&[
        "bos_index",
        "eos_index",
        "unk_index",
        "mask_index",
        "lang_id",
        "id2lang",
        "lang2id",
        "start_n_top",
        "end_n_top",
    ]);
    let heads = config_keys::heads(read, ("emb_dim", Some(2048)), ("n_heads", Some(16)), None)?;
    let n_languages = config_keys::positive(read, "n_langs", Some(1))?;
    let spoken = read.bool_or("use_lang_emb", true)? && n_languages > 1;
    // Both names have been published for these two.
    let vocab_size = match read.optional_usize("n_words")? {
        Some(n) => config_keys::positive(read, "vocab_size", Some(n))?,
        None => config_keys::positive(read, "vocab_size", None)?,
    };
    let pad = read.usize_or("pad_index", 2)?;
    let sizes = Sizes {
        vocab_size,
        max_len: config_keys::positive(read, "max_position_embeddings", Some(512))?,
        n_layers: read.usize_or("n_layers", 12)?,
        d_ff: 4 * heads.d_model,
        ..heads
    };
    let mut common = Common {
        feed_forward: FeedForwardSize::FourTimes,
        ..Common::read(read, sizes, &KEYS)?
    };
    common.pad_with(read, pad as u32);
    let dropouts = Dropouts {
        everywhere: config_keys::rate(read, "dropout", 0.1)?,
        attention: config_keys::rate(read, "attention_dropout", 0.1)?,
        classifier: config_keys::rate(read, "summary_first_dropout", 0.1)?,
    };
    let activation = if read.bool_or("gelu_activation", true)? {
        Activation::Gelu
    } else {
        Activation::Relu
    };
    let norm_eps = read.f64_or("layer_norm_eps", 1e-12)? as f32;
    Ok(EncoderConfig {
        positions: if read.bool_or("sinusoidal_embeddings", false)? {
            Positions::Sinusoidal
        } else {
            Positions::Learned
        },
        segments: Segments::Tokens,
        n_languages: if spoken { n_languages } else { 0 },
        mask: if read.bool_or("causal", false)? {
            Mask::Causal
        } else {
            Mask::Full
        },
        embedding_range: read.f64_or("embed_init_std", 2048_f64.powf(-0.5))? as f32,
        ..EncoderConfig::plain(common, activation, norm_eps, &dropouts)
    })
}

/// Writes what [`read`] reads.
pub fn write(config: &EncoderConfig) -> Value {
    let sizes = &config.common.sizes;
    let mut json = json!({
        "vocab_size": sizes.vocab_size,
        "emb_dim": sizes.d_model,
        "n_layers": sizes.n_layers,
        "n_heads": sizes.n_heads,
        "max_position_embeddings": sizes.max_len,
        "sinusoidal_embeddings": config.positions == Positions::Sinusoidal,
        "n_langs": config.n_languages.max(1),
        "use_lang_emb": config.n_languages > 1,
        "causal": config.mask == Mask::Causal,
        "asm": false,
        "gelu_activation": config.activation == Activation::Gelu,
        "layer_norm_eps": decimal(config.norm_eps),
        "dropout": decimal(config.dropout),
        "attention_dropout": decimal(config.attention_dropout),
        "embed_init_std": decimal(config.embedding_range),
        "summary_type": "first",
        "summary_use_proj": true,
        "summary_proj_to_labels": true,
        "summary_first_dropout": decimal(config.classifier_dropout),
    });
    config.common.write(&mut json, &KEYS);
    json
}

/// Conneau and Lample (2019), section 5.1, in the sizes of the published files.
pub fn presets() -> Vec<(&'static str, Value)> {
    let size = |vocab_size: usize, layers: usize, d: usize, heads: usize, n_languages: usize| {
        json!({
            "vocab_size": vocab_size, "n_layers": layers, "emb_dim": d, "n_heads": heads, "n_langs": n_languages,
            "bos_token_id": 0, "eos_token_id": 1,
        })
    };
    let mut hundred = size(200_000, 16, 1280, 16, 100);
    hundred["use_lang_emb"] = false.into();
    let mut causal = size(64_699, 6, 1024, 8, 2);
    causal["causal"] = true.into();
    vec![
        ("xlm-mlm-en-2048", size(30_145, 12, 2048, 16, 1)),
        ("xlm-mlm-ende-1024", size(64_699, 6, 1024, 8, 2)),
        ("xlm-clm-ende-1024", causal),
        ("xlm-mlm-tlm-xnli15-1024", size(95_000, 12, 1024, 8, 15)),
        ("xlm-mlm-100-1280", hundred),
    ]
}
