//! A model of any architecture, with host-typed inputs and outputs: nothing above this crate sees a tensor.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use malmoi_checkpoint::{AcceptNames, Dtype, ModelDirectory, Tensors, match_names};
use malmoi_kernels::gemm::rows_alike;
use malmoi_nn::parameters::{Later, Mode, ParameterInfo, ParameterValues};
use malmoi_nn::weights::WeightCache;
use malmoi_nn::{BatchError, Key, KvCache, Memory, PackedBatch, Pass, Purpose, bridge, host, ops};
use serde_json::Value;

use crate::architecture::Network;
use crate::config::{Direction, ModelConfig};
use crate::electra::files;
use crate::error::ModelError;
use crate::head::Head;
use crate::names::{self, NameTable};
use crate::precision::Precision;

/// How to open a model directory.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// The head; by default the one that `architectures` names.
    pub head: Option<Head>,
    /// Inference or training.
    pub mode: Mode,
    /// Ignore unknown configuration keys.
    pub accept_unknown_config: bool,
    /// Give tensors that the files lack their initial values (a new head on a pretrained model).
    pub accept_missing: bool,
    /// Ignore tensors that nothing uses (the old head of a pretrained model).
    pub accept_unused: bool,
    /// Seed of the initial values of missing tensors.
    pub seed: u64,
    /// Arithmetic.
    pub precision: Precision,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            head: None,
            mode: Mode::Inference,
            accept_unknown_config: false,
            accept_missing: false,
            accept_unused: false,
            seed: 0,
            precision: Precision::F32,
        }
    }
}

/// Values of each block.
type Layers = Vec<Vec<f32>>;

/// A model ready to run.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) net: Box<dyn Network>,
    pub(crate) config: ModelConfig,
    pub(crate) head: Head,
    mode: Mode,
    precision: Precision,
    /// The vocabulary projection in the order that products read it in.
    packed_projection: WeightCache,
}

impl Model {
    /// A model without values: every parameter is zero (one for scales) and not even allocated until it is read.
    pub fn blank(config: ModelConfig, head: Head) -> Self {
        Self {
            net: config.get().build(head),
            config,
            head,
            mode: Mode::Inference,
            precision: Precision::F32,
            packed_projection: WeightCache::default(),
        }
    }

    /// A model with initial values drawn for `seed`, the same on every machine.
    pub fn initialise(config: ModelConfig, head: Head, seed: u64, mode: Mode) -> Self {
        let model = Self::blank(config, head);
        let config = Arc::new(model.config.clone());
        let packs = packs(&config, mode);
        let filled = model.fill(mode, |info| {
            Ok::<_, std::convert::Infallible>(if packs && is_dense(info) {
                initial_values_later(&config, seed, info)
            } else {
                initial_values(&config, seed, info).into()
            })
        });
        filled.unwrap_or_else(|never| match never {})
    }

    /// Opens a published model directory.
    ///
    /// # Errors
    /// Files that cannot be read, keys or tensors that do not fit.
    pub fn open(directory: &Path, options: &OpenOptions) -> Result<Self, ModelError> {
        Self::from_directory(ModelDirectory::open(directory)?, options)
    }

    /// The same for a directory that is already open.
    ///
    /// # Errors
    /// Keys or tensors that do not fit.
    pub fn from_directory(
        directory: ModelDirectory,
        options: &OpenOptions,
    ) -> Result<Self, ModelError> {
        let mut config = ModelConfig::from_json(&directory.config, options.accept_unknown_config)?;
        let head = match (options.head, directory.architectures.first()) {
            (Some(head), _) => head,
            (None, None) => Head::None,
            (None, Some(name)) => {
                config
                    .head_named(name)
                    .ok_or_else(|| ModelError::UnknownHead {
                        found: name.clone(),
                        expected: config
                            .architecture_names()
                            .iter()
                            .map(|(_, name)| *name)
                            .collect::<Vec<_>>()
                            .join(", "),
                    })?
            }
        };
        // Files of before 2019 call a norm's scale and shift gamma and beta.
        let tensors = directory.tensors.rename(|name| {
            let (stem, last) = name.rsplit_once('.')?;
            match last {
                "gamma" => Some(format!("{stem}.weight")),
                "beta" => Some(format!("{stem}.bias")),
                _ => None,
            }
        })?;
        config.get_mut().settle(&tensors);
        let model = Self::blank(config, head).with_precision(options.precision);
        let table = model.table(&tensors);
        // Of tied tensors a file may hold either name, or both with the same values.
        let copies: Vec<(String, &str)> = model
            .parameters()
            .iter()
            .filter_map(|info| {
                let copy = model.config.tied_copy(&info.name)?;
                Some((table.place(info).name, copy))
            })
            .collect();
        for (name, copy) in &copies {
            if tensors.contains(name) && tensors.contains(copy) && differ(&tensors, name, copy)? {
                return Err(ModelError::NotTied {
                    name: name.clone(),
                    copy: (*copy).to_owned(),
                });
            }
        }
        let redundant: Vec<String> = tensors
            .names()
            .filter(|name| {
                let copy =
                    (copies.iter()).any(|(kept, copy)| copy == name && tensors.contains(kept));
                copy || model.config.get().is_redundant(name)
            })
            .map(str::to_owned)
            .collect();
        let tied: Vec<(String, &str)> = (copies.into_iter())
            .filter(|(name, _)| !tensors.contains(name))
            .collect();
        let tensors = tensors.rename(|name| {
            let tied = tied.iter().find(|(_, copy)| *copy == name)?;
            Some(tied.0.clone())
        })?;
        let mut expected: Vec<(String, Vec<usize>)> = Vec::new();
        for info in model.parameters() {
            let mut places = table.places(&info).into_iter();
            let first = places.next().expect("a place a parameter");
            for place in places {
                // Copies of a shared block must be copies.
                let both = tensors.contains(&place.name) && tensors.contains(&first.name);
                if both && differ(&tensors, &place.name, &first.name)? {
                    return Err(ModelError::NotShared {
                        first: first.name,
                        name: place.name,
                    });
                }
                expected.push((place.name, place.shape));
            }
            expected.push((first.name, first.shape));
        }
        let mut seen = HashSet::new();
        expected.retain(|(name, _)| seen.insert(name.clone()));
        let accept = AcceptNames {
            missing: options.accept_missing,
            unused: options.accept_unused,
        };
        match_names(&expected, &tensors, &redundant, accept)?;
        let (config, tensors) = (Arc::new(model.config.clone()), Arc::new(tensors));
        let packs = packs(&config, options.mode);
        model.fill(options.mode, |info| {
            let (place, later) = (table.place(info), packs && is_dense(info));
            let Some(view) = tensors.get(&place.name) else {
                return Ok(match later {
                    true => initial_values_later(&config, options.seed, info),
                    false => initial_values(&config, options.seed, info).into(),
                });
            };
            if later && view.has_floats() {
                let (tensors, info) = (Arc::clone(&tensors), info.clone());
                let read = move || match tensors.passing(&place.name) {
                    Some((Dtype::F32, bytes)) => names::part(&info, place.part, bytes, DType::F32),
                    Some((_, bytes)) => names::part(&info, place.part, bytes, DType::BF16),
                    None => {
                        let published = tensors.as_f32(&place.name).expect("a tensor of floats");
                        let values = names::gather(&info, place.part, &published);
                        tensors.release(&place.name);
                        values.into()
                    }
                };
                return Ok(Later::new(read).into());
            }
            // Training would copy every parameter at its first update and hold the file besides.
            if options.mode == Mode::Inference
                && place.part == names::Part::Whole
                && let Some(bytes) = tensors.shared_f32(&place.name)
            {
                return Ok(ParameterValues::Shared(bytes));
            }
            let published = tensors.as_f32(&place.name)?;
            Ok::<ParameterValues, ModelError>(names::gather(info, place.part, &published).into())
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What a token sees: what the configuration says, unless an encoder-decoder was opened for its encoder alone.
    pub fn direction(&self) -> Direction {
        match self.config.direction() {
            Direction::EncoderDecoder if self.net.source_stack().is_none() => Direction::Encoder,
            direction => direction,
        }
    }

    /// The same model with another arithmetic; its parameters stay as they are.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Rows of one pass that get the same bits as each alone: any number where products read packed weights alone, in f32.
    pub fn rows_alike(&self) -> usize {
        if self.packed_projection.is_always() && self.precision == Precision::F32 {
            return usize::MAX;
        }
        let sizes = self.config.sizes();
        let widths = [sizes.d_model, sizes.d_ff, sizes.n_heads * sizes.d_head];
        widths.into_iter().map(rows_alike).min().unwrap_or(1)
    }

    /// The arithmetic.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The head.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Names and shapes of all parameters, without allocating values.
    pub fn parameters(&self) -> Vec<ParameterInfo> {
        self.net.list()
    }

    /// Hands every parameter's values to `f`, in module order.
    pub fn read(&self, mut f: impl FnMut(&ParameterInfo, &[f32])) {
        self.net.read(&mut f);
    }

    /// Changes every parameter in place, in module order.
    pub fn update(self, mut f: impl FnMut(&ParameterInfo, &mut [f32])) -> Self {
        let net = self.net.update(&mut f);
        Self {
            net,
            packed_projection: WeightCache::default(),
            ..self
        }
    }

    /// Leaves the parameters that `frozen` names out of training: they get no gradient, and none is computed for what lies before all
    /// others. Nothing changes in a model for inference.
    #[must_use]
    pub fn freeze(self, mut frozen: impl FnMut(&ParameterInfo) -> bool) -> Self {
        let net = self.net.freeze(&mut frozen);
        Self { net, ..self }
    }

    /// Gives every parameter the values that `source` returns for it.
    ///
    /// # Errors
    /// The first error of `source`.
    pub fn fill<V: Into<ParameterValues>, E>(
        self,
        mode: Mode,
        mut source: impl FnMut(&ParameterInfo) -> Result<V, E>,
    ) -> Result<Self, E> {
        let (mut error, mut packs) = (None, false);
        let filled = self.net.fill(mode, &mut |info| {
            let values = source(info).map_err(|e| error = Some(e)).ok()?.into();
            packs |= mode == Mode::Inference && matches!(values, ParameterValues::Later(_));
            Some(values)
        });
        let packed_projection = match packs {
            true => WeightCache::always(),
            false => WeightCache::default(),
        };
        match (filled, error) {
            (Some(net), _) => Ok(Self {
                net,
                mode,
                packed_projection,
                ..self
            }),
            (None, Some(error)) => Err(error),
            (None, None) => unreachable!("only an error of the source stops it"),
        }
    }

    /// The same model for training or for inference.
    pub fn into_mode(self, mode: Mode) -> Self {
        let mut values = Vec::new();
        self.read(|_, parameter| values.push(parameter.to_vec()));
        let mut values = values.into_iter();
        let filled = self.fill(mode, |_| {
            Ok::<_, std::convert::Infallible>(values.next().expect("one a parameter"))
        });
        filled.unwrap_or_else(|never| match never {})
    }

    /// The same values without a graph, when this model has one: a forward pass that no backward pass follows would keep all
    /// its activations alive. Nothing is copied.
    pub(crate) fn plain(&self) -> Option<Self> {
        if self.mode == Mode::Inference {
            return None;
        }
        Some(Self {
            net: self.net.plain(),
            config: self.config.clone(),
            head: self.head,
            mode: Mode::Inference,
            precision: self.precision,
            packed_projection: self.packed_projection.clone(),
        })
    }

    /// Hidden states in published order: embeddings, then each block's output (the last with the final norm, where there is
    /// one); each `[N, D]`.
    ///
    /// # Errors
    /// A batch that does not fit the model.
    pub fn hidden_states(&self, batch: &PackedBatch) -> Result<Vec<Vec<f32>>, BatchError> {
        if let Some(plain) = self.plain() {
            return plain.hidden_states(batch);
        }
        self.validate(batch)?;
        let mut kept = Vec::new();
        let mut keep = |hidden: &Tensor<2>| kept.push(hidden.clone());
        let last = self.run(batch, &Pass::inference(), &mut keep)?;
        if let Some(slot) = kept.last_mut() {
            *slot = last;
        }
        Ok(kept.into_iter().map(host::values).collect())
    }

    /// The last hidden states, `[N, D]`.
    ///
    /// # Errors
    /// A batch that does not fit the model.
    pub fn last_hidden(&self, batch: &PackedBatch) -> Result<Vec<f32>, BatchError> {
        if let Some(plain) = self.plain() {
            return plain.last_hidden(batch);
        }
        self.validate(batch)?;
        Ok(host::values(self.run(
            batch,
            &Pass::inference(),
            &mut |_| (),
        )?))
    }

    /// Attention probabilities of every block: per sequence `[n_heads, T, T]`, one after another. A read-out beside the
    /// fused path, which never forms them.
    ///
    /// # Errors
    /// A batch that does not fit the model.
    pub fn attention_probabilities(
        &self,
        batch: &PackedBatch,
    ) -> Result<Vec<Vec<f32>>, BatchError> {
        if let Some(plain) = self.plain() {
            return plain.attention_probabilities(batch);
        }
        self.validate(batch)?;
        Ok(self.probabilities(batch)?.0)
    }

    /// Attention probabilities of every block over the source: per sequence `[n_heads, T, S]`, one after another; nothing for a model
    /// without an encoder in front.
    ///
    /// # Errors
    /// A batch that does not fit the model.
    pub fn cross_attention_probabilities(
        &self,
        batch: &PackedBatch,
    ) -> Result<Vec<Vec<f32>>, BatchError> {
        if let Some(plain) = self.plain() {
            return plain.cross_attention_probabilities(batch);
        }
        self.validate(batch)?;
        Ok(self.probabilities(batch)?.1)
    }

    fn probabilities(&self, batch: &PackedBatch) -> Result<(Layers, Layers), BatchError> {
        let pass = Pass::inference();
        let memory = self.encode(batch, &pass, &mut |_| ())?;
        let mut inputs = Vec::new();
        let stack = self.net.stack();
        stack.forward(
            self.embed(batch, &pass),
            batch,
            memory.clone(),
            &pass,
            &mut |x| {
                inputs.push(x.clone());
            },
        );
        Ok(stack.attention_probabilities(inputs, batch, memory))
    }

    /// Hidden states of the encoder in front, in published order: embeddings, then each block's output (the last with the final
    /// norm); each `[M, D]`. Nothing for a model without one.
    ///
    /// # Errors
    /// A source that does not fit the model.
    pub fn source_hidden_states(&self, source: &PackedBatch) -> Result<Vec<Vec<f32>>, BatchError> {
        if let Some(plain) = self.plain() {
            return plain.source_hidden_states(source);
        }
        self.validate_tokens(source)?;
        let mut kept = Vec::new();
        let pass = Pass::inference();
        let last = self.encode_source(source, &pass, &mut |x| kept.push(x.clone()));
        if let (Some(slot), Some(memory)) = (kept.last_mut(), last) {
            *slot = memory.states;
        }
        Ok(kept.into_iter().map(host::values).collect())
    }

    /// Attention probabilities of the encoder in front: per sequence `[n_heads, S, S]`, one after another.
    ///
    /// # Errors
    /// A source that does not fit the model.
    pub fn source_attention_probabilities(
        &self,
        source: &PackedBatch,
    ) -> Result<Vec<Vec<f32>>, BatchError> {
        if let Some(plain) = self.plain() {
            return plain.source_attention_probabilities(source);
        }
        self.validate_tokens(source)?;
        let mut inputs = Vec::new();
        let pass = Pass::inference();
        self.encode_source(source, &pass, &mut |x| inputs.push(x.clone()));
        let stack = self.net.source_stack();
        Ok(stack.map_or_else(Vec::new, |stack| {
            stack.attention_probabilities(inputs, source, None).0
        }))
    }

    /// Vocabulary logits of the rows `rows`, `[M, V]`.
    ///
    /// # Errors
    /// A batch that does not fit, or a model without a vocabulary head.
    pub fn logits(&self, batch: &PackedBatch, rows: &[u32]) -> Result<Vec<f32>, ModelError> {
        if let Some(plain) = self.plain() {
            return plain.logits(batch, rows);
        }
        self.validate(batch)?;
        let hidden = self.run(batch, &Pass::inference(), &mut |_| ())?;
        self.project(ops::gather_rows(hidden, rows.into()))
    }

    /// Packs the weights that the first pass would pack, so that nobody waits for it: the blocks read them when they are first used. Nothing
    /// happens in a model that holds its weights as they were loaded.
    ///
    /// # Errors
    /// A model that cannot read a token.
    pub fn prepare(&self) -> Result<(), ModelError> {
        if !self.packed_projection.is_always() {
            return Ok(());
        }
        let one = || PackedBatch::from_sequences(&[[0]]);
        let batch = match self.direction() {
            Direction::EncoderDecoder => one().with_source(one()),
            _ => one(),
        };
        let hidden = self.run(&batch, &Pass::inference(), &mut |_| ())?;
        if self.head.has_vocabulary() {
            self.project(hidden)?;
        }
        Ok(())
    }

    /// An empty cache for `n_sequences` sequences.
    pub fn new_cache(&self, n_sequences: usize) -> KvCache {
        self.net.stack().new_cache(n_sequences, None)
    }

    /// Reads the sources of a model with an encoder in front, and returns a cache that holds what its decoder's cross-attention needs of
    /// them: one sequence a source, without tokens yet.
    ///
    /// # Errors
    /// A source that does not fit, or a model without an encoder in front.
    pub fn read_sources(&self, sources: &PackedBatch) -> Result<KvCache, ModelError> {
        if let Some(plain) = self.plain() {
            return plain.read_sources(sources);
        }
        self.validate_tokens(sources)?;
        let memory = self
            .encode_source(sources, &Pass::inference(), &mut |_| ())
            .ok_or_else(|| self.wrong_head("reading a source", "an encoder in front (T5)"))?;
        let cache = (self.net.stack()).new_cache(sources.n_sequences(), Some(&memory));
        Ok(cache)
    }

    /// Runs new tokens behind a cache and returns the logits of `rows` of them, `[M, V]`. Positions continue where the
    /// cache ends.
    ///
    /// # Errors
    /// A batch that does not fit, or an encoder.
    pub fn advance(
        &self,
        batch: &PackedBatch,
        cache: &mut KvCache,
        rows: &[u32],
    ) -> Result<Vec<f32>, ModelError> {
        if let Some(plain) = self.plain() {
            return plain.advance(batch, cache, rows);
        }
        self.validate_tokens(batch)?;
        match self.direction() {
            Direction::Encoder => {
                return Err(self.wrong_head("generation", "a decoder (GPT, T5)"));
            }
            Direction::EncoderDecoder if cache.cross.is_empty() => {
                let missing =
                    "the cache of an encoder-decoder starts from its sources: read them first";
                return Err(BatchError::Source(missing).into());
            }
            _ => {}
        }
        let pass = Pass::inference();
        let x = self.embed(batch, &pass);
        let hidden = self.net.stack().forward_cached(x, batch, cache);
        let hidden = self.net.finish(hidden, &pass);
        self.project(ops::gather_rows(hidden, rows.into()))
    }

    fn embed(&self, batch: &PackedBatch, pass: &Pass) -> Tensor<2> {
        self.in_precision(self.net.embed(batch, pass))
    }

    /// Every operation behind the embeddings follows the format of what comes in.
    pub(crate) fn in_precision(&self, x: Tensor<2>) -> Tensor<2> {
        match self.precision {
            Precision::F32 => x,
            Precision::Bf16 => bridge::narrowed(x),
        }
    }

    /// From tokens to the last hidden states; `keep` sees the input of each block and the last block's output.
    pub(crate) fn run(
        &self,
        batch: &PackedBatch,
        pass: &Pass,
        keep: &mut dyn FnMut(&Tensor<2>),
    ) -> Result<Tensor<2>, BatchError> {
        let memory = self.encode(batch, pass, &mut |_| ())?;
        let x = self.embed(batch, pass);
        let x = self.net.stack().forward(x, batch, memory, pass, keep);
        Ok(self.net.finish(x, pass))
    }

    /// What the encoder in front, if there is one, makes of the batch's source.
    fn encode(
        &self,
        batch: &PackedBatch,
        pass: &Pass,
        keep: &mut dyn FnMut(&Tensor<2>),
    ) -> Result<Option<Memory>, BatchError> {
        match (self.direction(), &batch.source) {
            (Direction::EncoderDecoder, Some(source)) => Ok(self.encode_source(source, pass, keep)),
            (Direction::EncoderDecoder, None) => Err(BatchError::Source(
                "an encoder-decoder needs a source beside the target: give the batch one",
            )),
            (_, Some(_)) => Err(BatchError::Source(
                "this model has no encoder in front that could read a source: use an encoder-decoder (T5)",
            )),
            (_, None) => Ok(None),
        }
    }

    fn encode_source(
        &self,
        source: &PackedBatch,
        pass: &Pass,
        keep: &mut dyn FnMut(&Tensor<2>),
    ) -> Option<Memory> {
        let x = self.in_precision(self.net.embed_source(source, pass)?);
        let x = (self.net.source_stack()?).forward(x, source, None, pass, keep);
        Some(Memory {
            states: self.net.finish_source(x, pass),
            cu_seqlens: Arc::clone(&source.cu_seqlens),
        })
    }

    /// Operations of a forward pass for one token of a sequence of the usual longest length (and one of a source as long),
    /// multiply-adds counted as two; the vocabulary projection included where the head has one.
    pub fn forward_flops_per_token(&self) -> u64 {
        let (context, sizes) = (self.config.max_len(), self.config.sizes());
        let source = self
            .net
            .source_stack()
            .map_or(0, |stack| stack.flops(context));
        let projection = if self.head.has_vocabulary() {
            2 * (self.config.get().projection_width() * sizes.vocab_size) as u64
        } else {
            0
        };
        source + self.net.stack().flops(context) + projection
    }

    fn project(&self, rows: Tensor<2>) -> Result<Vec<f32>, ModelError> {
        let projection = self.projection("vocabulary logits")?;
        let input = self.net.vocabulary_input(rows);
        let layer = ops::Dense {
            weight: projection.weight,
            bias: projection.bias,
            cache: Some(self.packed_projection.clone()),
        };
        Ok(host::values(ops::dense(input, layer)))
    }

    pub(crate) fn projection(&self, work: &'static str) -> Result<ops::Projection, ModelError> {
        let projection = (self.head.has_vocabulary()).then(|| self.net.projection());
        (projection.flatten()).ok_or_else(|| self.wrong_head(work, "a language-modelling head"))
    }

    pub(crate) fn wrong_head(&self, work: &'static str, needed: &'static str) -> ModelError {
        ModelError::WrongHead {
            found: self.head,
            work,
            needed,
        }
    }

    pub(crate) fn validate(&self, batch: &PackedBatch) -> Result<(), BatchError> {
        match (self.direction(), &batch.source) {
            (Direction::EncoderDecoder, Some(source))
                if source.n_sequences() != batch.n_sequences() =>
            {
                return Err(BatchError::Source(
                    "a batch with another number of sources than targets",
                ));
            }
            _ => {}
        }
        self.validate_tokens(batch)
    }

    fn validate_tokens(&self, batch: &PackedBatch) -> Result<(), BatchError> {
        let (sizes, limit) = (self.config.sizes(), self.config.position_limit());
        batch.validate(sizes.vocab_size, limit, sizes.n_segments)?;
        batch.validate_languages(self.config.n_languages())
    }

    /// The name table that fits a file: base-model names carry a prefix in some files and none in others.
    fn table(&self, tensors: &Tensors) -> NameTable {
        let prefix = self.config.get().prefix(self.head);
        self.table_with(tensors.names().any(|name| name.starts_with(prefix)))
    }

    /// Where this model's parameters stand in what [`Model::save`] writes.
    pub fn name_table(&self) -> NameTable {
        self.table_with(self.head != Head::None)
    }

    fn table_with(&self, prefixed: bool) -> NameTable {
        self.config.names(self.head, prefixed)
    }

    /// Published tensors for values of all parameters (weights, gradients, …): name, shape, values. A bare model carries no
    /// prefix, as published.
    pub fn publish(
        &self,
        values: &[(ParameterInfo, Vec<f32>)],
    ) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        // A generator is published as a model of its own.
        let values = (values.iter()).filter(|(info, _)| !info.name.starts_with(files::PREFIX));
        self.name_table().publish(values)
    }

    /// The weights under their published names.
    pub fn published_tensors(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let mut values = Vec::new();
        self.read(|info, parameter| values.push((info.clone(), parameter.to_vec())));
        self.publish(&values)
    }

    /// What is written as `config.json`.
    pub fn config_json(&self) -> Value {
        self.config.to_json(self.head)
    }
}

/// Whether matrices that only products read are held in packed form alone, which is made when they are first used. What a decoder writes
/// depends on no other text of a batch, so its weights have to be used in one form whatever they meet. An encoder packs what is used
/// often, and is ready at once when it reads its weights where the file is mapped.
fn packs(config: &ModelConfig, mode: Mode) -> bool {
    mode == Mode::Inference && config.direction() != Direction::Encoder
}

/// Whether a parameter is a matrix of the blocks or a projection to the vocabulary that is not the embedding: only products read it.
pub fn is_dense(info: &ParameterInfo) -> bool {
    let within = info.name.contains("layers.") && info.name.ends_with(".weight");
    info.shape.len() == 2 && (within || info.name == "vocabulary.weight")
}

/// Whether two tensors of a file hold different values.
fn differ(tensors: &Tensors, a: &str, b: &str) -> Result<bool, ModelError> {
    Ok(tensors.to_f32(a)? != tensors.to_f32(b)?)
}

/// [`initial_values`], drawn when somebody asks.
fn initial_values_later(
    config: &Arc<ModelConfig>,
    seed: u64,
    info: &ParameterInfo,
) -> ParameterValues {
    let (config, info) = (Arc::clone(config), info.clone());
    Later::new(move || initial_values(&config, seed, &info).into()).into()
}

/// Initial values: normal with the configured deviation; scales one, shifts and biases zero.
fn initial_values(config: &ModelConfig, seed: u64, info: &ParameterInfo) -> Vec<f32> {
    if info.name.ends_with(".gamma") {
        return vec![1.0; info.len()];
    }
    if let Some(table) = config.get().initial_table(info) {
        return table;
    }
    let mut values = vec![0.0; info.len()];
    if info.name.ends_with(".weight") {
        Key::new(seed, Purpose::Initialisation, 0)
            .fold_name(&info.name)
            .fill_normal(0, &mut values);
        let deviation = config.initial_deviation(info);
        values.iter_mut().for_each(|value| *value *= deviation);
    }
    values
}
