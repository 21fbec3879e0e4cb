//! How much memory a phase takes, by part, before it runs.
//!
//! Buffers of a training step are kept for the next one, so that training holds activations *and* gradients, although most activations
//! are gone when the last gradient comes. In f32 the gradients of a block's matrices lie in the buffers that activations have left, where
//! those are large enough and at most twice too large (`malmoi_nn::buffers`).

use malmoi_kernels::gemm::rows_alike;
use malmoi_models::{
    Direction, Head, LayerShape, Model, ModelConfig, ModelShape, StackKind, StackShape, is_dense,
};
use serde::Serialize;

use crate::cost::{CostError, Phase, WIDE, Widths, Work, count, head_for, target_rows};
use crate::machine::available_memory;

/// Bytes of a phase by part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Weights: when training as the products read them, else those that are held as they were loaded, in f32.
    pub weights: u64,
    /// Matrices in the order and format that the products of an inference pass read them in.
    pub packed_weights: u64,
    /// Weights in f32 beside narrower ones, when training.
    pub master_weights: u64,
    /// Gradients, when training, but for those that lie in the buffers of activations.
    pub gradients: u64,
    /// Both moments of AdamW, when training.
    pub moments: u64,
    /// Activations: kept for the backward pass, or alive at the widest place of an inference pass.
    pub activations: u64,
    /// Cached keys and values.
    pub cache: u64,
    /// Logits at a time.
    pub vocabulary: u64,
    /// What the allocator holds beyond that: rounded sizes, and pages not yet given back.
    pub allocator: u64,
    /// The most that is resident at once.
    pub peak: u64,
}

/// What is counted nowhere: buffers of the backward pass, sizes that the allocator rounds up, the program itself. With mimalloc the
/// resident peak of both training workloads of `malmoi bench`, in f32 and bf16, with recomputation and without, was 10 to 17 % above the
/// parts; that of the other workloads, where weights are drawn and packed first, 14 to 22 % above.
fn allocator(alive: u64) -> u64 {
    alive / 8
}

/// Logits that training holds at a time, in values; see `malmoi_kernels::loss`.
const LOGITS: u64 = 32 << 20;

/// Counts the memory of a phase.
///
/// # Errors
/// See [`count`].
pub fn memory(config: &ModelConfig, work: &Work, widths: Widths) -> Result<Memory, CostError> {
    let cost = count(config, work, widths)?;
    let head = head_for(config, work.phase);
    let shape = config.shape(head);
    if work.phase == Phase::Train {
        return Ok(training(&cost, &shape, widths));
    }
    let matrices = matrices(config, head, work, &shape, widths);
    let weights = (cost.parameters - matrices.unread) * WIDE;
    let packed_weights = matrices.packed * widths.weight;
    let cached = match work.phase {
        Phase::Prefill => work.tokens,
        Phase::Decode => work.tokens + 1,
        _ => 0,
    };
    // Keys and values of the tokens themselves, and in decoders behind an encoder those of the source.
    let generates = shape
        .stacks
        .iter()
        .filter(|stack| cached > 0 && stack.kind == StackKind::Decoder);
    let per_token: u64 = generates
        .flat_map(|stack| &stack.layers)
        .map(|layer| {
            let each = [Some(&layer.attention), layer.cross.as_ref()];
            let values = each
                .into_iter()
                .flatten()
                .map(|a| 2 * a.n_kv_heads * a.d_head);
            (layer.times * values.sum::<usize>()) as u64 * widths.activation
        })
        .sum();
    let cache = per_token * (work.batch * cached) as u64;
    // The widest operation: what goes in and what comes out of it, and the residual stream beside it.
    let widest = cost.ops.iter().map(|op| op.near_bytes).max().unwrap_or(0);
    let vocabulary = match (&shape.vocabulary, work.phase) {
        (Some(vocabulary), Phase::Prefill | Phase::Decode) => {
            (work.batch * vocabulary.vocab_size) as u64 * WIDE
        }
        _ => 0,
    };
    let alive = weights + packed_weights + widest + cache + vocabulary;
    Ok(Memory {
        weights,
        packed_weights,
        master_weights: 0,
        gradients: 0,
        moments: 0,
        activations: widest,
        cache,
        vocabulary,
        allocator: allocator(alive),
        peak: alive + allocator(alive),
    })
}

/// Values of matrices in an inference pass.
struct Matrices {
    /// Those that nobody holds as they were loaded.
    unread: u64,
    /// Those that are packed.
    packed: u64,
}

/// A decoder, and an encoder in front of it, holds the matrices of its blocks, and of a projection that is not the embedding, in packed
/// form alone, each from its first use on. An encoder packs them beside what was loaded, in f32 where they meet more rows than can be
/// multiplied one by one, in bf16 always. What writes packs the vocabulary's as well.
fn matrices(
    config: &ModelConfig,
    head: Head,
    work: &Work,
    shape: &ModelShape,
    widths: Widths,
) -> Matrices {
    let alone = config.direction() != Direction::Encoder;
    // An encoder runs alone when texts become vectors.
    let is_used = |name: &str| !name.starts_with("decoder.") || work.phase != Phase::Encode;
    let rows = work.batch * work.tokens;
    let packs = |columns: usize| alone || widths.weight < WIDE || rows > rows_alike(columns);
    let mut matrices = Matrices {
        unread: 0,
        packed: 0,
    };
    for info in Model::blank(config.clone(), head).parameters() {
        if !is_dense(&info) {
            continue;
        }
        let values = info.len() as u64;
        if alone {
            matrices.unread += values;
        }
        // The vocabulary's is counted below, whether it is the embedding or not.
        if info.name.contains("layers.") && is_used(&info.name) && packs(info.shape[1]) {
            matrices.packed += values;
        }
    }
    if let (Some(vocabulary), Phase::Prefill | Phase::Decode) = (&shape.vocabulary, work.phase) {
        matrices.packed += (vocabulary.vocab_size * vocabulary.d) as u64;
    }
    matrices
}

fn training(cost: &crate::cost::Cost, shape: &ModelShape, widths: Widths) -> Memory {
    let parameters = cost.parameters;
    let weights = parameters * widths.weight;
    let master_weights = if widths.weight < WIDE {
        parameters * WIDE
    } else {
        0
    };
    let shared = if widths.activation == WIDE && !cost.work.recompute {
        in_left_buffers(shape, &cost.work).min(parameters)
    } else {
        0
    };
    let (gradients, moments) = ((parameters - shared) * WIDE, 2 * parameters * WIDE);
    let mut activations = cost.kept_bytes();
    if cost.work.recompute {
        // The block that is being computed again keeps all of its activations.
        let plain = Work {
            recompute: false,
            ..cost.work
        };
        activations += one_block(shape, &plain, widths);
    }
    // The projection works through a block of rows at a time. Its gradient is one of those above, summed in place.
    let logits = shape.vocabulary.as_ref().map_or(0, |vocabulary| {
        let (rows, v) = (target_rows(shape, &cost.work), vocabulary.vocab_size as u64);
        let blocks = rows.div_ceil((LOGITS / v.max(1)).clamp(64, 4096)).max(1);
        rows.div_ceil(blocks) * v * WIDE
    });
    let alive = weights + master_weights + moments + gradients + activations + logits;
    Memory {
        weights,
        packed_weights: 0,
        master_weights,
        gradients,
        moments,
        activations,
        cache: 0,
        vocabulary: logits,
        allocator: allocator(alive),
        peak: alive + allocator(alive),
    }
}

/// Values of the gradients that lie in buffers of activations. A matrix of a block has as many columns or rows as an activation
/// beside it, and `d_model` of the other where that has a row a token.
fn in_left_buffers(shape: &ModelShape, work: &Work) -> u64 {
    let tokens = work.batch * work.tokens;
    let fits = |stack: &&StackShape| (stack.d_model..=2 * stack.d_model).contains(&tokens);
    let stacks = shape.stacks.iter().filter(fits);
    stacks
        .flat_map(|stack| stack.layers.iter().map(move |layer| (stack.d_model, layer)))
        .map(|(d_model, layer)| {
            let attentions = [Some(&layer.attention), layer.cross.as_ref()];
            let heads = attentions.into_iter().flatten();
            let heads: usize = heads
                .map(|a| 2 * (a.n_heads + a.n_kv_heads) * a.d_head)
                .sum();
            let products = if layer.gated { 3 } else { 2 };
            (layer.times * d_model * (heads + products * layer.d_ff)) as u64
        })
        .sum()
}

/// Activations that one block of the widest stack keeps.
fn one_block(shape: &ModelShape, work: &Work, widths: Widths) -> u64 {
    let single = ModelShape {
        stacks: shape
            .stacks
            .iter()
            .map(|stack| StackShape {
                // One of each kind: a little more than the largest alone.
                layers: stack
                    .layers
                    .iter()
                    .map(|layer| LayerShape {
                        times: 1,
                        ..layer.clone()
                    })
                    .collect(),
                ..stack.clone()
            })
            .collect(),
        vocabulary: None,
    };
    crate::cost::count_shape(&single, "block", usize::MAX, 0, work, widths)
        .map_or(0, |cost| cost.kept_bytes())
}

/// Why this machine cannot run a phase in f32, or nothing when it can.
pub fn too_large(config: &ModelConfig, work: &Work) -> Option<String> {
    let widths = Widths {
        weight: WIDE,
        activation: WIDE,
    };
    let needed = memory(config, work, widths).ok()?.peak;
    let free = available_memory()?;
    // A fifth for what is counted nowhere.
    (needed / 5 * 6 > free).then(|| {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        format!(
            "it takes {:.1} GiB, and {:.1} GiB are free",
            gib(needed),
            gib(free)
        )
    })
}

#[cfg(test)]
mod tests {
    use malmoi_kernels::probe::Arithmetic;

    use super::*;

    const F32: Widths = Widths {
        weight: 4,
        activation: 4,
    };

    fn of(model: &str, work: Work, widths: Widths) -> Memory {
        let config = ModelConfig::preset(model).expect("a preset");
        memory(&config, &work, widths).expect("fits")
    }

    #[test]
    fn training_parts_are_as_counted_by_hand() {
        let found = of("gpt2", Work::new(Phase::Train, 4, 256), F32);
        let p = 124_439_808;
        // 1,024 rows: the gradients of the blocks' matrices fit into the buffers that activations leave.
        let matrices = 12 * 12 * 768 * 768;
        assert_eq!(
            (found.weights, found.gradients, found.moments),
            (4 * p, 4 * (p - matrices), 8 * p)
        );
        // 1,024 rows of 768: 16 of them a block, one for the final norm; two statistics a norm, 25 norms; 12 log-sums a block.
        let rows = 1024 * 768 * 4 * (16 * 12 + 1);
        let statistics = 1024 * 4 * (2 * 25 + 12 * 12);
        assert_eq!(found.activations, rows + statistics);
        // 1,020 targets in two blocks of 510 rows.
        assert_eq!(found.vocabulary, 50_257 * 4 * 510);
        assert_eq!(
            found.peak - found.allocator,
            16 * p + found.activations + found.vocabulary - 4 * matrices
        );
        // Fewer rows than columns leave buffers that are too small.
        let small = of("gpt2", Work::new(Phase::Train, 1, 256), F32);
        assert_eq!(
            small.peak - small.allocator,
            16 * p + small.activations + small.vocabulary
        );
    }

    #[test]
    fn recomputation_saves_most_activations() {
        let work = Work::new(Phase::Train, 4, 256);
        let plain = of("gpt2", work, F32);
        let again = of(
            "gpt2",
            Work {
                recompute: true,
                ..work
            },
            F32,
        );
        assert!(again.activations * 5 < plain.activations, "{again:?}");
        assert!(again.peak < plain.peak, "{again:?}");
    }

    #[test]
    fn narrow_training_keeps_wide_masters() {
        let work = Work::new(Phase::Train, 8, 128);
        let narrow = of("bert-base", work, Widths::of(Arithmetic::Bf16));
        assert_eq!(narrow.master_weights, 2 * narrow.weights);
        assert_eq!(narrow.gradients, narrow.master_weights);
    }

    #[test]
    fn inference_holds_weights_and_what_it_packs_of_them() {
        let p = 124_439_808;
        let (matrices, table) = (12 * 12 * 768 * 768, 50_257 * 768);
        // A decoder holds its blocks in packed form alone, and the vocabulary in both.
        for batch in [1, 32] {
            let f32 = of("gpt2", Work::new(Phase::Decode, batch, 96), F32);
            assert_eq!(f32.weights, 4 * (p - matrices));
            assert_eq!(f32.packed_weights, 4 * (matrices + table));
        }
        let narrow = of(
            "gpt2",
            Work::new(Phase::Decode, 1, 96),
            Widths::of(Arithmetic::Bf16),
        );
        assert_eq!(
            (narrow.weights, narrow.packed_weights),
            (4 * (p - matrices), 2 * (matrices + table))
        );
        // In an encoder a few rows read the weights as they are, and others what it packs beside them.
        let few = of("bert-base", Work::new(Phase::Encode, 1, 16), F32);
        assert_eq!(few.packed_weights, 0);
        let many = of("bert-base", Work::new(Phase::Encode, 1, 32), F32);
        assert_eq!(
            (many.weights - few.weights, many.packed_weights),
            (0, 4 * matrices)
        );
        // Texts become vectors without the decoder: half of T5's feed-forward layers and a third of its attention.
        let encodes = of("t5-base", Work::new(Phase::Encode, 1, 64), F32);
        let encoder = 12 * (4 + 8) * 768 * 768;
        assert_eq!(encodes.packed_weights, 4 * encoder);
        let writes = of("t5-base", Work::new(Phase::Decode, 1, 256), F32);
        let decoder = 12 * (4 + 4 + 8) * 768 * 768;
        let table = 32_128 * 768;
        assert_eq!(writes.packed_weights, 4 * (encoder + decoder + table));
        assert_eq!(encodes.weights, writes.weights);
    }

    #[test]
    fn a_cache_grows_with_every_token() {
        let found = of("gpt2", Work::new(Phase::Decode, 8, 99), F32);
        // Keys and values of 768 in 12 layers for 8 sequences of 100.
        assert_eq!(found.cache, 2 * 768 * 4 * 12 * 800);
        let encoder = of("bert-base", Work::new(Phase::Encode, 1, 8), F32);
        assert_eq!((encoder.cache, encoder.vocabulary), (0, 0));
    }
}
