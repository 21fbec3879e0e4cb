//! A model of any architecture, with host-typed inputs and outputs: nothing above this crate sees a tensor.

use std::collections::HashSet;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Tensor;
use malmoi_checkpoint::{AcceptNames, ModelDirectory, Tensors, match_names};
use malmoi_nn::parameters::{self, Mode, ParameterInfo};
use malmoi_nn::{BatchError, Block, Key, KvCache, PackedBatch, Pass, Purpose, host, ops};
use serde_json::Value;

use crate::config::{ModelConfig, each};
use crate::electra::files;
use crate::encoder::{Encoder, EncoderConfig};
use crate::error::ModelError;
use crate::gpt1::{self, Gpt1};
use crate::gpt2::{self, Gpt2};
use crate::head::Head;
use crate::names::{self, NameTable};

/// The network of an architecture.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one network a model, and a box would stand in every match"
)]
pub(crate) enum Net {
    Encoder(Encoder),
    Gpt1(Gpt1),
    Gpt2(Gpt2),
}

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
        }
    }
}

/// A model ready to run.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) net: Net,
    pub(crate) config: ModelConfig,
    pub(crate) head: Head,
    mode: Mode,
}

impl Model {
    /// A model without values: every parameter is zero (one for scales) and not even allocated until it is read.
    pub fn blank(config: ModelConfig, head: Head) -> Self {
        let net = match &config {
            ModelConfig::Encoder(config) => Net::Encoder((config.family.build)(config, head)),
            ModelConfig::Gpt1(config) => Net::Gpt1(Gpt1::new(config, head)),
            ModelConfig::Gpt2(config) => Net::Gpt2(Gpt2::new(config, head)),
        };
        Self {
            net,
            config,
            head,
            mode: Mode::Inference,
        }
    }

    /// A model with initial values drawn for `seed`, the same on every machine.
    pub fn initialise(config: ModelConfig, head: Head, seed: u64, mode: Mode) -> Self {
        let model = Self::blank(config, head);
        let config = model.config.clone();
        let filled = model.fill(mode, |info| {
            Ok::<_, std::convert::Infallible>(initial_values(&config, seed, info))
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
        let config = ModelConfig::from_json(&directory.config, options.accept_unknown_config)?;
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
        let model = Self::blank(config, head);
        let table = model.table(&tensors);
        // Of tied tensors a file may hold either name.
        let tied: Vec<(String, &str)> = model
            .parameters()
            .iter()
            .filter_map(|info| Some((table.place(info).name, model.tied_copy(&info.name)?)))
            .filter(|(name, _)| !tensors.contains(name))
            .collect();
        let tensors = tensors.rename(|name| {
            let tied = tied.iter().find(|(_, copy)| *copy == name)?;
            Some(tied.0.clone())
        })?;
        let parameters = model.parameters();
        let mut expected: Vec<(String, Vec<usize>)> = Vec::new();
        for info in &parameters {
            let mut places = table.places(info).into_iter();
            let first = places.next().expect("a place a parameter");
            for place in places {
                // Copies of a shared block must be copies.
                if tensors.contains(&place.name)
                    && tensors.contains(&first.name)
                    && tensors.to_f32(&place.name)? != tensors.to_f32(&first.name)?
                {
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
        let redundant: Vec<String> = tensors
            .names()
            .filter(|name| model.is_redundant(name))
            .map(str::to_owned)
            .collect();
        let accept = AcceptNames {
            missing: options.accept_missing,
            unused: options.accept_unused,
        };
        match_names(&expected, &tensors, &redundant, accept)?;
        let config = model.config.clone();
        // Packed tensors are read for each of their parts; the file is mapped, so that costs a conversion and no reading.
        model.fill(options.mode, |info| {
            let place = table.place(info);
            if tensors.contains(&place.name) {
                let (_, published) = tensors.to_f32(&place.name)?;
                Ok(if place.part == names::Part::Whole {
                    published
                } else {
                    names::gather(info, place.part, &published)
                })
            } else {
                Ok(initial_values(&config, options.seed, info))
            }
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The head.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Names and shapes of all parameters, without allocating values.
    pub fn parameters(&self) -> Vec<ParameterInfo> {
        each!(&self.net, Net, net => parameters::list(net))
    }

    /// Hands every parameter's values to `f`, in module order.
    pub fn read(&self, f: impl FnMut(&ParameterInfo, &[f32])) {
        each!(&self.net, Net, net => parameters::read(net, f));
    }

    /// Changes every parameter in place, in module order.
    pub fn update(self, f: impl FnMut(&ParameterInfo, &mut [f32])) -> Self {
        let net = match self.net {
            Net::Encoder(net) => Net::Encoder(parameters::update(net, f)),
            Net::Gpt1(net) => Net::Gpt1(parameters::update(net, f)),
            Net::Gpt2(net) => Net::Gpt2(parameters::update(net, f)),
        };
        Self { net, ..self }
    }

    /// Gives every parameter the values that `source` returns for it.
    ///
    /// # Errors
    /// The first error of `source`.
    pub fn fill<E>(
        self,
        mode: Mode,
        source: impl FnMut(&ParameterInfo) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let net = match self.net {
            Net::Encoder(net) => Net::Encoder(parameters::fill(net, mode, source)?),
            Net::Gpt1(net) => Net::Gpt1(parameters::fill(net, mode, source)?),
            Net::Gpt2(net) => Net::Gpt2(parameters::fill(net, mode, source)?),
        };
        Ok(Self { net, mode, ..self })
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
        let net = match (&self.net, self.mode) {
            (_, Mode::Inference) => return None,
            (Net::Encoder(net), _) => Net::Encoder(net.valid()),
            (Net::Gpt1(net), _) => Net::Gpt1(net.valid()),
            (Net::Gpt2(net), _) => Net::Gpt2(net.valid()),
        };
        Some(Self {
            net,
            config: self.config.clone(),
            head: self.head,
            mode: Mode::Inference,
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
        let last = self.run(batch, &Pass::inference(), |hidden| kept.push(hidden));
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
        Ok(host::values(self.run(batch, &Pass::inference(), |_| ())))
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
        let mut inputs = Vec::new();
        self.run(batch, &Pass::inference(), |hidden| inputs.push(hidden));
        let blocks = self.blocks().into_iter().zip(inputs);
        Ok(blocks
            .map(|(block, input)| block.attention_probabilities(input, batch))
            .collect())
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
        let hidden = self.run(batch, &Pass::inference(), |_| ());
        self.project(ops::gather_rows(hidden, rows.into()))
    }

    /// An empty cache for `n_sequences` sequences.
    pub fn new_cache(&self, n_sequences: usize) -> KvCache {
        KvCache::new(self.config.depth(), n_sequences)
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
        self.validate(batch)?;
        let hidden = match &self.net {
            Net::Gpt1(net) => net.forward_cached(batch, cache),
            Net::Gpt2(net) => net.forward_cached(batch, cache),
            Net::Encoder(net) if self.config.is_causal() => net.forward_cached(batch, cache),
            Net::Encoder(_) => return Err(self.wrong_head("generation", "a decoder (GPT)")),
        };
        self.project(ops::gather_rows(hidden, rows.into()))
    }

    /// The rest of the encoder or decoder, up to the last hidden states; `keep` sees the input of each block and the last
    /// block's output.
    pub(crate) fn run(
        &self,
        batch: &PackedBatch,
        pass: &Pass,
        mut keep: impl FnMut(Tensor<2>),
    ) -> Tensor<2> {
        let mut x = each!(&self.net, Net, net => net.embed(batch, pass));
        for block in self.blocks() {
            keep(x.clone());
            x = block.forward(x, batch, pass);
        }
        keep(x.clone());
        match &self.net {
            Net::Gpt2(net) => net.finish(x),
            Net::Encoder(_) | Net::Gpt1(_) => x,
        }
    }

    /// The blocks in the order in which they run; a shared one appears each time.
    fn blocks(&self) -> Vec<&Block> {
        match &self.net {
            Net::Encoder(net) => net.layers(),
            Net::Gpt1(net) => net.layers().iter().collect(),
            Net::Gpt2(net) => net.layers().iter().collect(),
        }
    }

    fn project(&self, rows: Tensor<2>) -> Result<Vec<f32>, ModelError> {
        let projection = self.projection("vocabulary logits")?;
        let input = self.vocabulary_input(rows);
        Ok(host::values(ops::linear(
            input,
            projection.weight,
            projection.bias,
        )))
    }

    pub(crate) fn vocabulary_input(&self, rows: Tensor<2>) -> Tensor<2> {
        match &self.net {
            Net::Encoder(net) => net.vocabulary_input(rows),
            Net::Gpt1(_) | Net::Gpt2(_) => rows,
        }
    }

    pub(crate) fn projection(&self, work: &'static str) -> Result<ops::Projection, ModelError> {
        let projection = match (&self.net, self.head) {
            (Net::Encoder(net), _) => net.projection(),
            (Net::Gpt1(net), Head::CausalLm | Head::DoubleHeads) => Some(net.projection()),
            (Net::Gpt2(net), Head::CausalLm) => Some(net.projection()),
            _ => None,
        };
        projection.ok_or_else(|| self.wrong_head(work, "a language-modelling head"))
    }

    pub(crate) fn wrong_head(&self, work: &'static str, needed: &'static str) -> ModelError {
        ModelError::WrongHead {
            found: self.head,
            work,
            needed,
        }
    }

    pub(crate) fn validate(&self, batch: &PackedBatch) -> Result<(), BatchError> {
        batch.validate(
            self.config.vocab_size(),
            self.config.max_len(),
            self.config.n_segments(),
        )?;
        batch.validate_languages(self.config.n_languages())
    }

    /// The name table that fits a file: base-model names carry a prefix in some files and none in others.
    fn table(&self, tensors: &Tensors) -> NameTable {
        let prefix = match &self.config {
            ModelConfig::Encoder(config) => config.family.prefix,
            _ => "transformer.",
        };
        self.table_with(tensors.names().any(|name| name.starts_with(prefix)))
    }

    fn table_with(&self, prefixed: bool) -> NameTable {
        match &self.config {
            ModelConfig::Encoder(config) => config.family.table(config, self.head, prefixed),
            ModelConfig::Gpt1(_) => gpt1::table(prefixed),
            ModelConfig::Gpt2(_) => gpt2::table(prefixed),
        }
    }

    /// The published name of the tensor that is tied to a parameter of ours, when there is one.
    fn tied_copy(&self, parameter: &str) -> Option<&'static str> {
        let tied = match &self.config {
            ModelConfig::Encoder(config) => config.family.tied,
            _ => &[("token.weight", "lm_head.weight")],
        };
        let found = tied.iter().find(|(ours, _)| *ours == parameter)?;
        Some(found.1)
    }

    fn is_redundant(&self, name: &str) -> bool {
        match &self.config {
            ModelConfig::Encoder(config) => config.family.is_redundant(name),
            ModelConfig::Gpt1(_) => gpt1::is_redundant(name),
            ModelConfig::Gpt2(_) => gpt2::is_redundant(name),
        }
    }

    /// Published tensors for values of all parameters (weights, gradients, …): name, shape, values. A bare model carries no
    /// prefix, as published.
    pub fn publish(
        &self,
        values: &[(ParameterInfo, Vec<f32>)],
    ) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        // A generator is published as a model of its own.
        let values = values
            .iter()
            .filter(|(info, _)| !info.name.starts_with(files::PREFIX));
        self.table_with(self.head != Head::None).publish(values)
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

/// Initial values: normal with the configured deviation; scales one, shifts and biases zero. In GPT-2 the layers that write
/// into the residual stream start smaller by `√(2 n_layers)` (Radford et al., 2019, section 2.3).
fn initial_values(config: &ModelConfig, seed: u64, info: &ParameterInfo) -> Vec<f32> {
    if info.name.ends_with(".gamma") {
        return vec![1.0; info.len()];
    }
    if !info.name.ends_with(".weight") {
        return vec![0.0; info.len()];
    }
    if let ModelConfig::Encoder(config) = config
        && let Some(table) = config.initial_table(&info.name)
    {
        return table;
    }
    let writes_residual =
        info.name.ends_with(".attention.output.weight") || info.name.ends_with(".down.weight");
    let deviation = match config {
        ModelConfig::Gpt2(config) if writes_residual => {
            config.initializer_range / ((2 * config.n_layers) as f32).sqrt()
        }
        ModelConfig::Encoder(config) if info.name.starts_with("embeddings.") => {
            config.embedding_range
        }
        ModelConfig::Encoder(EncoderConfig {
            generator: Some(generator),
            ..
        }) if info.name.starts_with(files::PREFIX) => generator.initializer_range,
        _ => config.initializer_range(),
    };
    let mut values = vec![0.0; info.len()];
    Key::new(seed, Purpose::Initialisation, 0)
        .fold_name(&info.name)
        .fill_normal(0, &mut values);
    values.iter_mut().for_each(|value| *value *= deviation);
    values
}
