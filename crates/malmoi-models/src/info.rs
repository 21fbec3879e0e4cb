//! What a model consists of, counted from its configuration without allocating it.

use serde::Serialize;

use crate::config::ModelConfig;
use crate::head::Head;
use crate::model::Model;

/// Parameters, memory and arithmetic of a model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelInfo {
    /// The published class name, such as `BertModel`.
    pub architecture: &'static str,
    /// The published `model_type`.
    pub model_type: &'static str,
    /// All parameters; tied ones count once.
    pub parameters: u64,
    /// The same by part, in module order.
    pub parts: Vec<PartInfo>,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Longest sequence.
    pub max_len: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Bytes of the weights in f32.
    pub weight_bytes: u64,
    /// Bytes of weights, gradients and both AdamW moments in f32.
    pub training_bytes: u64,
    /// Multiply-adds counted as two operations, for one token of a sequence of `max_len` in one forward pass, the vocabulary
    /// projection included where the head has one.
    pub forward_flops_per_token: u64,
}

/// Parameters of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartInfo {
    /// Name of the part, such as `embeddings` or `layers`.
    pub name: String,
    /// Its parameters.
    pub parameters: u64,
}

impl ModelInfo {
    /// Counts a model with `head`.
    pub fn new(config: &ModelConfig, head: Head) -> Self {
        let model = Model::blank(config.clone(), head);
        let mut parts: Vec<PartInfo> = Vec::new();
        for info in model.parameters() {
            let name = part_name(&info.name);
            let count = info.len() as u64;
            match parts.iter_mut().find(|part| part.name == name) {
                Some(part) => part.parameters += count,
                None => parts.push(PartInfo {
                    name,
                    parameters: count,
                }),
            }
        }
        let parameters = parts.iter().map(|part| part.parameters).sum();
        Self {
            architecture: config.architecture_name(head),
            model_type: config.model_type(),
            parameters,
            parts,
            vocab_size: config.vocab_size(),
            max_len: config.max_len(),
            d_model: config.d_model(),
            n_layers: config.n_layers(),
            n_heads: config.n_heads(),
            d_head: config.d_head(),
            d_ff: config.d_ff(),
            weight_bytes: 4 * parameters,
            training_bytes: 16 * parameters,
            forward_flops_per_token: model.forward_flops_per_token(),
        }
    }
}

/// `layers.3.attention.query.weight` belongs to `layers: attention`; outside the stack the first part of the name counts.
fn part_name(parameter: &str) -> String {
    let parts: Vec<&str> = parameter.split('.').collect();
    match parts[..] {
        ["layers", _, part, ..] => format!("layers: {}", part.replace('_', " ")),
        ["encoder", "layers", _, part, ..] => format!("encoder: {}", part.replace('_', " ")),
        ["decoder", "layers", _, part, ..] => format!("decoder: {}", part.replace('_', " ")),
        ["embeddings", part, ..] => format!("embeddings: {part}"),
        ["token" | "position", ..] => format!("embeddings: {}", parts[0]),
        _ => parts[0].replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(preset: &str, head: Head) -> u64 {
        ModelInfo::new(&ModelConfig::preset(preset).expect("a preset"), head).parameters
    }

    #[test]
    fn published_sizes_are_exact() {
        assert_eq!(count("bert-base", Head::None), 109_482_240);
        assert_eq!(count("bert-large", Head::None), 335_141_888);
        assert_eq!(count("roberta-base", Head::None), 124_645_632);
        assert_eq!(count("roberta-base", Head::MaskedLm), 124_697_433);
        assert_eq!(count("roberta-large", Head::None), 355_359_744);
        assert_eq!(count("xlm-roberta-base", Head::None), 278_043_648);
        assert_eq!(count("xlm-roberta-large", Head::None), 559_890_432);
        assert_eq!(count("distilbert-base", Head::None), 66_362_880);
        assert_eq!(count("albert-base", Head::None), 11_683_584);
        assert_eq!(count("albert-large", Head::None), 17_683_968);
        assert_eq!(count("albert-xlarge", Head::None), 58_724_864);
        assert_eq!(count("albert-xxlarge", Head::None), 222_595_584);
        assert_eq!(count("electra-small", Head::ReplacedTokens), 13_549_057);
        assert_eq!(count("electra-base", Head::None), 108_891_648);
        assert_eq!(count("electra-large", Head::None), 334_092_288);
        assert_eq!(count("electra-small-generator", Head::MaskedLm), 4_620_026);
        assert_eq!(count("electra-large-generator", Head::MaskedLm), 51_295_290);
        assert_eq!(count("xlm-mlm-en-2048", Head::MaskedLm), 667_119_041);
        assert_eq!(count("xlm-mlm-tlm-xnli15-1024", Head::None), 248_976_384);
        assert_eq!(count("xlm-mlm-100-1280", Head::None), 571_496_960);
        assert_eq!(count("gpt1", Head::CausalLm), 116_534_784);
        assert_eq!(count("gpt2", Head::CausalLm), 124_439_808);
        assert_eq!(count("gpt2-xl", Head::CausalLm), 1_557_611_200);
        assert_eq!(count("gpt-neo-125m", Head::CausalLm), 125_198_592);
        assert_eq!(count("gpt-neo-1.3b", Head::CausalLm), 1_315_575_808);
        assert_eq!(count("gpt-neo-2.7b", Head::CausalLm), 2_651_307_520);
        assert_eq!(count("llama-7b", Head::CausalLm), 6_738_415_616);
        assert_eq!(count("llama-13b", Head::CausalLm), 13_015_864_320);
        assert_eq!(count("llama-30b", Head::CausalLm), 32_528_943_616);
        assert_eq!(count("llama-65b", Head::CausalLm), 65_285_660_672);
        assert_eq!(count("llama2-70b", Head::CausalLm), 68_976_648_192);
        assert_eq!(count("llama3-8b", Head::CausalLm), 8_030_261_248);
        assert_eq!(count("llama3-70b", Head::CausalLm), 70_553_706_496);
        assert_eq!(count("modernbert-base", Head::None), 149_014_272);
        assert_eq!(count("modernbert-base", Head::MaskedLm), 149_655_232);
        assert_eq!(count("modernbert-large", Head::None), 394_781_696);
        assert_eq!(count("modernbert-large", Head::MaskedLm), 395_881_664);
        let t5 = |preset| count(preset, Head::Seq2SeqLm);
        assert_eq!(t5("t5-small"), 60_506_624);
        assert_eq!(t5("t5-base"), 222_903_552);
        assert_eq!(t5("t5-large"), 737_668_096);
        assert_eq!(t5("t5-3b"), 2_851_598_336);
        assert_eq!(t5("t5-11b"), 11_307_321_344);
        assert_eq!(t5("t5-v1_1-small"), 76_961_152);
        assert_eq!(t5("t5-v1_1-base"), 247_577_856);
        assert_eq!(t5("t5-v1_1-large"), 783_150_080);
        assert_eq!(t5("t5-v1_1-xl"), 2_849_757_184);
        assert_eq!(t5("t5-v1_1-xxl"), 11_135_332_352);
        assert_eq!(t5("mt5-small"), 300_176_768);
        assert_eq!(t5("mt5-base"), 582_401_280);
        assert_eq!(t5("mt5-large"), 1_229_581_312);
        assert_eq!(t5("mt5-xl"), 3_742_619_648);
        assert_eq!(t5("mt5-xxl"), 12_921_057_280);
        // The paper says 65 and 213 million (table 3).
        let base = count("transformer-base", Head::Seq2SeqLm);
        assert_eq!(base, 63_082_496);
        let big = count("transformer-big", Head::Seq2SeqLm);
        assert_eq!(big, 214_245_376);
        let gpt3 = count("gpt3-175b", Head::CausalLm) as f64;
        assert!((gpt3 / 175e9 - 1.0).abs() < 0.005, "{gpt3}");
    }

    #[test]
    fn every_preset_is_valid_and_its_parts_add_up() {
        for name in ModelConfig::preset_names() {
            let config = ModelConfig::preset(name).expect("a listed preset");
            let info = ModelInfo::new(&config, Head::None);
            assert_eq!(
                info.parts.iter().map(|part| part.parameters).sum::<u64>(),
                info.parameters,
                "{name}"
            );
        }
    }
}
