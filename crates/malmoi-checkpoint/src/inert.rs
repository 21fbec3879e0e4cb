//! Keys of published `config.json` files that don't change the computation.
//!
//! The list covers what Python writers put into every config: provenance, output flags, label
//! names, and generation defaults. A key that an architecture reads itself isn't looked up here.

use serde_json::{Value, json};

/// Keys that are ignored at any value.
pub const ANY_VALUE: &[&str] = &[
    // Where the file comes from.
    "_name_or_path",
    "name_or_path",
    "_commit_hash",
    "architectures",
    "model_type",
    "transformers_version",
    "tokenizer_class",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "attn_implementation",
    "trainer_compatible",
    // How it was stored or run; weights carry their own types.
    "dtype",
    "torch_dtype",
    "gradient_checkpointing",
    "use_cache",
    "onnx_export",
    "torchscript",
    "tf_legacy_loss",
    "xla_device",
    "use_flash_attention",
    // What calls return, not what they compute.
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "return_dict",
    "return_dict_in_generate",
    // Token ids belong to the tokenizer and to generation; models that compute with one read it.
    "bos_token_id",
    "cls_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "mask_token_id",
    "pad_token_id",
    "sep_token_id",
    "unk_token_id",
    // Heads and tasks: read by the architectures that have such a head.
    "finetuning_task",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "prefix",
    "task_specific_params",
];

/// Keys that are ignored at these values and refused at others.
pub const AT_VALUE: &[(&str, &str)] = &[
    ("add_cross_attention", "[false]"),
    ("chunk_size_feed_forward", "[0]"),
    ("is_decoder", "[false]"),
    ("is_encoder_decoder", "[false]"),
    ("pruned_heads", "[{}]"),
    ("tie_encoder_decoder", "[false]"),
    ("use_bfloat16", "[false]"),
    // Generation settings that old configs carry; elsewhere they belong to generation_config.json.
    ("bad_words_ids", "[]"),
    ("begin_suppress_tokens", "[]"),
    ("diversity_penalty", "[0.0]"),
    ("do_sample", "[false]"),
    ("early_stopping", "[false]"),
    ("encoder_no_repeat_ngram_size", "[0]"),
    ("exponential_decay_length_penalty", "[]"),
    ("forced_bos_token_id", "[]"),
    ("forced_eos_token_id", "[]"),
    ("length_penalty", "[1.0]"),
    ("max_length", "[20]"),
    ("min_length", "[0]"),
    ("no_repeat_ngram_size", "[0]"),
    ("num_beam_groups", "[1]"),
    ("num_beams", "[1]"),
    ("num_return_sequences", "[1]"),
    ("remove_invalid_values", "[false]"),
    ("repetition_penalty", "[1.0]"),
    ("suppress_tokens", "[]"),
    ("temperature", "[1.0]"),
    ("top_k", "[50]"),
    ("top_p", "[1.0]"),
    ("typical_p", "[1.0]"),
];

/// [`AT_VALUE`] as JSON values.
pub(crate) fn at_value() -> impl Iterator<Item = (&'static str, Vec<Value>)> {
    AT_VALUE.iter().map(|&(key, values)| {
        let allowed = serde_json::from_str(values).unwrap_or_else(|_| vec![json!(values)]);
        (key, allowed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_value_is_valid_json_and_no_key_is_in_both_lists() {
        for &(key, values) in AT_VALUE {
            assert!(
                serde_json::from_str::<Vec<Value>>(values).is_ok(),
                "{key}: {values}"
            );
            assert!(!ANY_VALUE.contains(&key), "{key}");
        }
    }
}
