//! Hand-counted cases. The numbers of the first test are worked out beside it; nothing in it calls the code that it checks.

use malmoi_kernels::probe::Arithmetic;
use malmoi_kernels::profile::Direction;
use malmoi_models::{
    AttentionShape, LayerShape, Mask, ModelConfig, ModelShape, StackKind, StackShape,
    VocabularyShape,
};

use super::*;

const F32: Widths = Widths {
    weight: 4,
    activation: 4,
};

/// Two post-norm blocks of width 4 with 2 heads of 2, inner width 8, 10 words.
fn tiny(kind: StackKind) -> ModelShape {
    ModelShape {
        stacks: vec![StackShape {
            kind,
            lookups: 2,
            embedding_norm: false,
            d_model: 4,
            layers: vec![LayerShape {
                times: 2,
                attention: AttentionShape {
                    n_heads: 2,
                    n_kv_heads: 2,
                    d_head: 2,
                    mask: if kind == StackKind::Decoder {
                        Mask::Causal
                    } else {
                        Mask::Full
                    },
                },
                cross: None,
                d_ff: 8,
                gated: false,
            }],
            pre_norm: false,
        }],
        vocabulary: Some(VocabularyShape {
            d: 4,
            vocab_size: 10,
            transform: None,
        }),
    }
}

fn cost(shape: &ModelShape, work: &Work) -> Cost {
    count_shape(shape, "tiny", 16, 1000, work, F32).expect("valid work")
}

fn op<'a>(cost: &'a Cost, name: &str, direction: Direction) -> &'a Op {
    let found = cost
        .ops
        .iter()
        .find(|op| op.name == name && op.direction == direction);
    found.unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn an_encoder_pass_is_as_counted_by_hand() {
    // 2 sequences of 3 tokens: 6 rows. A block multiplies 6 rows with 4 x 12 (q, k, v), 4 x 4, 4 x 8 and 8 x 4, which are
    // 48 + 16 + 32 + 32 = 128 weights: 2 · 6 · 128 = 1536. Every token sees 3: 18 pairs, 2 products of 2 heads of 2:
    // 2 · 2 · 18 · 4 = 288. Two blocks: 2 · (1536 + 288) = 3648.
    let cost = cost(&tiny(StackKind::Encoder), &Work::new(Phase::Encode, 2, 3));
    assert_eq!(cost.flops(), 3648);
    let up = op(&cost, "feed-forward up", Direction::Forward);
    // 32 weights and 8 biases far; 6 x 4 in and 6 x 8 out near.
    assert_eq!((up.times, up.far_bytes, up.near_bytes), (2, 160, 288));
    let attention = op(&cost, "attention", Direction::Forward);
    // q, k, v in and one out, 6 x 4 each.
    assert_eq!((attention.far_bytes, attention.near_bytes), (0, 384));
    assert_eq!(cost.kept_bytes(), 0);
}

#[test]
fn a_decoding_step_reads_the_cache_and_all_weights_once() {
    // 2 sequences, 1 new token each behind 5: 2 rows, each sees 6 keys. Products: 2 · 2 · 128 = 512 a block; attention
    // 2 · 2 · 12 · 4 = 192; the vocabulary 2 · 2 · 40 = 160. In all 2 · 704 + 160 = 1568.
    let cost = cost(&tiny(StackKind::Decoder), &Work::new(Phase::Decode, 2, 5));
    assert_eq!(cost.flops(), 1568);
    // 12 cached rows of 4 keys and 4 values.
    assert_eq!(op(&cost, "attention", Direction::Forward).far_bytes, 384);
    // Weights and biases of a block: 128 + 28; the vocabulary 40 + 10; caches 2 · 96; two looked-up rows a token.
    let far = 2 * (128 + 28) + 50 + 2 * 96 + 2 * 2 * 4;
    assert_eq!(cost.far_bytes(), 4 * far);
}

#[test]
fn causal_prompts_count_the_lower_triangle() {
    let cost = cost(&tiny(StackKind::Decoder), &Work::new(Phase::Prefill, 1, 4));
    // 4 rows: 2 · 4 · 128 = 1024; pairs 1 + 2 + 3 + 4 = 10: 160; twice; the last row's logits 80.
    assert_eq!(cost.flops(), 2 * (1024 + 160) + 80);
}

#[test]
fn a_training_step_is_three_forward_passes_and_a_recomputed_score() {
    let shape = tiny(StackKind::Decoder);
    let step = Work::new(Phase::Train, 2, 3);
    let plain = cost(&shape, &step);
    // 6 rows: 1536 a block; pairs 2 · (1 + 2 + 3) = 12: 192; 4 rows have a next token: 2 · 4 · 40 = 320.
    let (products, attention) = (2 * 1536 + 320, 2 * 192);
    assert_eq!(plain.flops(), 3 * products + attention + attention / 2 * 5);
    // Kept of a block: 8 times 6 rows of 4 (x, q, k, v, attention's output, 2 sums, h), twice 6 rows of 8, 2 · 6 means and
    // deviations a norm and 6 · 2 log-sums; nothing of embeddings without norm, nothing of the vocabulary.
    assert_eq!(
        plain.kept_bytes(),
        2 * 4 * (8 * 6 * 4 + 2 * 6 * 8 + 2 * 12 + 12)
    );
    let adam = op(&plain, "AdamW", Direction::Update);
    assert_eq!(adam.far_bytes, 28 * 1000);

    let again = cost(
        &shape,
        &Work {
            recompute: true,
            ..step
        },
    );
    assert_eq!(again.flops(), plain.flops() + 2 * 1536 + attention);
    // Only the input of each block.
    assert_eq!(again.kept_bytes(), 2 * 4 * 6 * 4);
}

#[test]
fn pre_norm_keeps_as_much_and_one_norm_more() {
    let mut shape = tiny(StackKind::Decoder);
    shape.stacks[0].pre_norm = true;
    let step = Work::new(Phase::Train, 2, 3);
    let (pre, post) = (cost(&shape, &step), cost(&tiny(StackKind::Decoder), &step));
    assert_eq!(pre.flops(), post.flops());
    assert_eq!(pre.kept_bytes() - post.kept_bytes(), 4 * (6 * 4 + 12));
}

#[test]
fn a_second_stack_looks_at_the_first() {
    let mut shape = tiny(StackKind::Encoder);
    let mut decoder = tiny(StackKind::Decoder).stacks.remove(0);
    let layer = &mut decoder.layers[0];
    layer.cross = Some(AttentionShape {
        mask: Mask::Full,
        ..layer.attention
    });
    layer.gated = true;
    shape.stacks.push(decoder);
    // Decoding, source and past of 3: the encoder rests. 1 row: a block has 48 + 16 (self), 16 + 16 (cross q and output),
    // 2 · 32 + 32 weights = 192: 384; self sees 4 keys, cross 3: 2 · 2 · 7 · 4 = 112; two blocks and 80.
    let step = cost(&shape, &Work::new(Phase::Decode, 1, 3));
    assert_eq!(step.flops(), 2 * (384 + 112) + 80);
    // The prompt: the encoder on 3 rows (768 + 144 a block), the decoder on one token, and keys and values of the source.
    let prompt = cost(&shape, &Work::new(Phase::Prefill, 1, 3));
    let decoder = 384 + 2 * 2 * (1 + 3) * 4 + 2 * 3 * 32;
    assert_eq!(prompt.flops(), 2 * (768 + 144) + 2 * decoder + 80);
}

#[test]
fn published_models_cost_what_is_known_of_them() {
    let gpt2 = ModelConfig::preset("gpt2").expect("a preset");
    let prompt = count(&gpt2, &Work::new(Phase::Prefill, 1, 1024), F32).expect("fits");
    // 12 · 12 · 768² weights in blocks; pairs 1024 · 1025 / 2; one row of 50,257 words.
    let products: u64 = 2 * 1024 * 12 * 12 * 768 * 768;
    let attention = 12 * 4 * 768 * (1024 * 1025 / 2);
    assert_eq!(prompt.flops(), products + attention + 2 * 768 * 50_257);
    // One decoding step at batch 1 reads every weight but the position table: about 4 bytes of 124 M parameters.
    let step = count(&gpt2, &Work::new(Phase::Decode, 1, 32), F32).expect("fits");
    let weights = 4.0 * 124e6;
    assert!((step.far_bytes() as f64 / weights - 1.0).abs() < 0.02);
    // Training costs 6 operations a parameter and token, plus attention, minus what is only looked up.
    let train = count(&gpt2, &Work::new(Phase::Train, 4, 256), F32).expect("fits");
    let ratio = train.flops() as f64 / (6.0 * 124_439_808.0 * 1024.0);
    assert!((1.0..1.1).contains(&ratio), "{ratio}");
}

#[test]
fn blocks_with_a_window_see_less() {
    let mut shape = tiny(StackKind::Decoder);
    let mut banded = shape.stacks[0].layers[0].clone();
    banded.attention.mask = Mask::Window { left: 1, right: 0 };
    (banded.times, shape.stacks[0].layers[0].times) = (1, 1);
    shape.stacks[0].layers.push(banded);
    let cost = cost(&shape, &Work::new(Phase::Prefill, 1, 4));
    // One block sees 10 pairs, the other itself and one before: 1 + 2 + 2 + 2 = 7.
    assert_eq!(cost.flops(), 2 * 1024 + 4 * (10 + 7) * 4 + 80);
}

#[test]
fn every_preset_has_all_of_its_phases() {
    for name in ModelConfig::preset_names() {
        let config = ModelConfig::preset(name).expect("a preset");
        let mut counted = 0;
        for phase in [Phase::Train, Phase::Encode, Phase::Prefill, Phase::Decode] {
            match count(&config, &Work::new(phase, 2, 16), F32) {
                Ok(cost) => {
                    counted += 1;
                    assert!(cost.flops() > 0 && cost.bytes() > 0, "{name} {phase:?}");
                    assert_eq!(cost.kept_bytes() > 0, phase == Phase::Train, "{name}");
                }
                Err(CostError::Phase { .. }) => {}
                Err(error) => panic!("{name}: {error}"),
            }
        }
        assert!(counted >= 2, "{name}");
    }
}

#[test]
fn phases_and_sizes_that_do_not_exist_are_refused() {
    let gpt2 = ModelConfig::preset("gpt2").expect("a preset");
    let bert = ModelConfig::preset("bert-base").expect("a preset");
    let fails = |config, phase, batch, tokens| {
        let widths = Widths::of(Arithmetic::F32);
        count(config, &Work::new(phase, batch, tokens), widths)
            .expect_err("refused")
            .to_string()
    };
    assert!(fails(&gpt2, Phase::Encode, 1, 8).contains("has no encoder"));
    assert!(fails(&bert, Phase::Decode, 1, 8).contains("does not generate"));
    assert!(fails(&bert, Phase::Encode, 0, 8).contains("batch"));
    assert!(fails(&bert, Phase::Encode, 1, 513).contains("1 to 512"));
    assert!(fails(&gpt2, Phase::Decode, 1, 1024).contains("1 to 1023"));
}
