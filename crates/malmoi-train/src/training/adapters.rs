//! Low-rank adapters (LoRA; Hu et al. 2021): a weight `W = W₀ + α/r · B A` of which only `A [r, d_in]` and `B [d_out, r]` are trained.
//!
//! The model holds `W`, so that every architecture, precision and kernel works with adapters as without, and a checkpoint is a merged
//! model at any time. The gradients of the factors follow from that of `W`: `dB = α/r · dW Aᵀ`, `dA = α/r · Bᵀ dW`. Against a layer that
//! multiplies by `A` and `B` apart this costs the product for `dW`; what it saves of full fine-tuning is the optimiser's state, and the
//! gradients of everything else. Where the published layer packs several of ours (GPT-2's query, key and value), one adapter covers
//! them all, as in files of `peft`.

use std::collections::BTreeMap;
use std::path::Path;

use malmoi_checkpoint::{NamedTensor, Tensors, write_json, write_safetensors};
use malmoi_kernels::linear::{linear_backward_input, linear_backward_weight, linear_forward};
use malmoi_kernels::optim::{add_in_place, scale_in_place};
use malmoi_kernels::random::{Key, Purpose};
use malmoi_models::names::Part;
use malmoi_models::{Model, NamedGradient, ParameterInfo};
use serde_json::{Value, json};

use crate::error::TrainError;
use crate::optim::{Optimizer, OptimizerError, ParamSlot};

/// Folder of the adapter in a checkpoint.
pub const FOLDER: &str = "adapter";
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What `peft` puts before the names of a wrapped model.
const PREFIX: &str = "base_model.model.";

/// How adapters are made.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterOptions {
    /// Width of the factors.
    pub rank: usize,
    /// The sum is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Last parts of the published names of the layers that get one; query and value of every attention when empty.
    pub targets: Vec<String>,
    /// Seed of `A`; `B` starts as zeros, so that training starts from the pretrained model.
    pub seed: u64,
    /// What the adapter belongs to, for its configuration.
    pub base: String,
    /// `peft`'s name of the task, such as `SEQ_CLS`; it has none for masked language models.
    pub task_type: Option<&'static str>,
}

/// A weight with an adapter.
#[derive(Debug, Clone)]
struct Adapter {
    /// Published name of the layer.
    module: String,
    /// Our parameters in it, in the order of their rows.
    members: Vec<String>,
    d_out: usize,
    d_in: usize,
    /// Whether the published weight is stored `[d_in, d_out]`.
    transposed: bool,
    base: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
}

/// The adapters of a model.
#[derive(Debug, Clone)]
pub struct Adapters {
    options: AdapterOptions,
    list: Vec<Adapter>,
    /// Published names of the layers that are trained whole beside the adapters.
    whole: Vec<String>,
}

/// Our part of a published layer: its first row and rows in all.
fn rows(part: Part, d_out: usize) -> (usize, usize, bool) {
    match part {
        Part::Whole => (0, d_out, false),
        Part::Transposed => (0, d_out, true),
        Part::Rows { index, of } => (index * d_out, of * d_out, false),
        Part::Block { index, of } => (index * d_out, of * d_out, true),
    }
}

/// Whether a parameter is a matrix of a block.
fn of_block(info: &ParameterInfo) -> bool {
    info.name.contains("layers.") && info.name.ends_with(".weight") && info.shape.len() == 2
}

impl Adapters {
    /// Adapters for a model. `whole` says which other parameters are trained.
    ///
    /// # Errors
    /// Targets that name no layer of the model.
    pub fn new(
        model: &Model,
        options: AdapterOptions,
        whole: impl Fn(&ParameterInfo) -> bool,
    ) -> Result<Self, TrainError> {
        let table = model.name_table();
        let module = |info: &ParameterInfo| {
            let name = table.place(info).name;
            name.strip_suffix(".weight").unwrap_or(&name).to_owned()
        };
        let last = |module: &str| module.rsplit('.').next().unwrap_or(module).to_owned();
        let parameters = model.parameters();
        let blocks: Vec<&ParameterInfo> = parameters.iter().filter(|info| of_block(info)).collect();
        let targets: Vec<String> = match options.targets.is_empty() {
            true => {
                let usual = blocks.iter().filter(|info| {
                    [".query.weight", ".value.weight"]
                        .iter()
                        .any(|end| info.name.ends_with(end))
                });
                let mut names: Vec<String> = usual.map(|info| last(&module(info))).collect();
                names.sort_unstable();
                names.dedup();
                names
            }
            false => options.targets.clone(),
        };
        for target in &targets {
            if !blocks.iter().any(|info| last(&module(info)) == *target) {
                let mut known: Vec<String> =
                    blocks.iter().map(|info| last(&module(info))).collect();
                known.sort_unstable();
                known.dedup();
                return Err(crate::error::ConfigProblem::new(
                    "tune.lora.targets",
                    format!("layers of this model: {}", known.join(", ")),
                    format!("{target:?}"),
                    "correct the name",
                )
                .into());
            }
        }
        let mut found: BTreeMap<String, Vec<(usize, &ParameterInfo)>> = BTreeMap::new();
        for info in blocks {
            let (module, place) = (module(info), table.place(info));
            if targets.contains(&last(&module)) {
                let (first, ..) = rows(place.part, info.shape[0]);
                found.entry(module).or_default().push((first, info));
            }
        }
        let mut base: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        model.read(|info, values| {
            let adapted = found
                .values()
                .flatten()
                .any(|(_, member)| member.name == info.name);
            if adapted {
                base.insert(info.name.clone(), values.to_vec());
            }
        });
        let mut list = Vec::new();
        for (module, mut members) in found {
            members.sort_by_key(|(first, _)| *first);
            let (d_in, info) = (members[0].1.shape[1], members[0].1);
            let (_, d_out, transposed) = rows(table.place(info).part, info.shape[0]);
            let mut a = vec![0.0; options.rank * d_in];
            let key = Key::new(options.seed, Purpose::Initialisation, 0);
            key.fold_name(&format!("{module}.lora_A"))
                .fill_uniform(0, &mut a);
            // Uniform within 1/√d_in, as a dense layer starts in the published code.
            let bound = 1.0 / (d_in as f32).sqrt();
            a.iter_mut()
                .for_each(|value| *value = (2.0 * *value - 1.0) * bound);
            let rows = members.iter().map(|(_, info)| base[&info.name].as_slice());
            list.push(Adapter {
                base: rows.collect::<Vec<_>>().concat(),
                members: members.iter().map(|(_, info)| info.name.clone()).collect(),
                b: vec![0.0; d_out * options.rank],
                module,
                d_out,
                d_in,
                transposed,
                a,
            });
        }
        let whole = parameters.iter().filter(|info| whole(info));
        let mut whole: Vec<String> = whole
            .map(|info| module(info).trim_end_matches(".bias").to_owned())
            .collect();
        whole.dedup();
        Ok(Self {
            options: AdapterOptions { targets, ..options },
            list,
            whole,
        })
    }

    /// Whether a parameter is changed through an adapter.
    pub fn covers(&self, parameter: &str) -> bool {
        self.list
            .iter()
            .any(|adapter| adapter.members.iter().any(|name| name == parameter))
    }

    /// Parameters of the adapters.
    pub fn n_parameters(&self) -> usize {
        self.list
            .iter()
            .map(|adapter| adapter.a.len() + adapter.b.len())
            .sum()
    }

    fn scale(&self) -> f32 {
        (self.options.alpha / self.options.rank as f64) as f32
    }

    /// Names and shapes of the factors, in the order of [`Adapters::gradients`].
    pub(super) fn parameters(&self) -> Vec<ParameterInfo> {
        let rank = self.options.rank;
        let all = self.list.iter().flat_map(|adapter| {
            let info = |name: &str, shape: [usize; 2]| ParameterInfo {
                name: format!("{}.{name}", adapter.module),
                shape: shape.to_vec(),
            };
            [
                info("lora_A", [rank, adapter.d_in]),
                info("lora_B", [adapter.d_out, rank]),
            ]
        });
        all.collect()
    }

    /// Takes the gradients of adapted weights and gives those of the factors.
    pub(crate) fn gradients(&self, gradients: &mut [NamedGradient]) -> Vec<NamedGradient> {
        let (rank, scale) = (self.options.rank, self.scale());
        let mut names = self.parameters().into_iter();
        let mut out = Vec::with_capacity(2 * self.list.len());
        for adapter in &self.list {
            let mut whole = Vec::with_capacity(adapter.base.len());
            for member in &adapter.members {
                let own = gradients.iter_mut().find(|(info, _)| info.name == *member);
                whole.extend(
                    own.and_then(|(_, gradient)| gradient.take())
                        .unwrap_or_default(),
                );
            }
            let (mut a, mut b) = (vec![0.0; adapter.a.len()], vec![0.0; adapter.b.len()]);
            if whole.len() == adapter.base.len() {
                linear_forward(&whole, &adapter.a, None, adapter.d_in, rank, &mut b);
                linear_backward_weight(&adapter.b, &whole, adapter.d_in, rank, &mut a, false);
            }
            scale_in_place(&mut a, scale);
            scale_in_place(&mut b, scale);
            for gradient in [a, b] {
                out.push((names.next().expect("two a weight"), Some(gradient)));
            }
        }
        out
    }

    /// Moves the factors.
    pub(super) fn update(
        &mut self,
        lr: f64,
        optimizer: &mut Optimizer,
        gradients: &[NamedGradient],
    ) -> Result<(), OptimizerError> {
        for (values, (info, gradient)) in self.factors_mut().into_iter().zip(gradients) {
            let Some(gradient) = gradient else { continue };
            let slot = ParamSlot {
                name: &info.name,
                shape: &info.shape,
                values,
                gradient,
                decay: true,
            };
            optimizer.update(lr, slot)?;
        }
        Ok(())
    }

    /// The factors, in the order of [`Adapters::gradients`].
    pub(crate) fn factors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        let factors = self.list.iter_mut();
        factors
            .flat_map(|adapter| [&mut adapter.a, &mut adapter.b])
            .collect()
    }

    /// The weights that the factors make now, by the name of our parameter.
    pub(super) fn weights(&self) -> BTreeMap<&str, Vec<f32>> {
        let mut weights = BTreeMap::new();
        for adapter in &self.list {
            let mut whole = vec![0.0; adapter.base.len()];
            let rank = self.options.rank;
            linear_backward_input(&adapter.b, &adapter.a, adapter.d_in, rank, &mut whole);
            scale_in_place(&mut whole, self.scale());
            add_in_place(&mut whole, &adapter.base);
            let rows = whole.len() / adapter.members.len();
            for (name, rows) in adapter.members.iter().zip(whole.chunks(rows)) {
                weights.insert(name.as_str(), rows.to_vec());
            }
        }
        weights
    }

    /// The same model with the weights that the factors make.
    pub fn merged(&self, model: Model) -> Model {
        let weights = self.weights();
        model.update(|info, values| {
            if let Some(weight) = weights.get(info.name.as_str()) {
                values.copy_from_slice(weight);
            }
        })
    }

    /// Writes `adapter_config.json` and `adapter_model.safetensors` as `peft` reads them, into a new folder.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn save(&self, dir: &Path, model: &Model) -> Result<(), TrainError> {
        std::fs::create_dir_all(dir).map_err(|error| TrainError::io("create", dir, error))?;
        let published = model.published_tensors();
        let modules: Vec<&str> = published.iter().map(|(name, ..)| module_of(name)).collect();
        let ending = |module: &String| own_ending(module, &self.whole, &modules).to_owned();
        let mut whole: Vec<String> = self.whole.iter().map(ending).collect();
        whole.sort_unstable();
        whole.dedup();
        let transposed = self.list.iter().any(|adapter| adapter.transposed);
        let mut config = json!({
            "peft_type": "LORA", "task_type": self.options.task_type, "base_model_name_or_path": self.options.base,
            "r": self.options.rank, "lora_alpha": self.options.alpha, "lora_dropout": 0.0, "bias": "none",
            "target_modules": self.options.targets, "fan_in_fan_out": transposed, "inference_mode": true,
            "init_lora_weights": true, "use_rslora": false, "use_dora": false,
        });
        config["modules_to_save"] = match whole.is_empty() {
            true => Value::Null,
            false => json!(whole),
        };
        write_json(&dir.join(CONFIG), &config)?;
        let rank = self.options.rank;
        let name = |module: &str, leaf: &str| format!("{PREFIX}{module}.{leaf}.weight");
        let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
        for adapter in &self.list {
            tensors.push((
                name(&adapter.module, "lora_A"),
                vec![rank, adapter.d_in],
                adapter.a.clone(),
            ));
            tensors.push((
                name(&adapter.module, "lora_B"),
                vec![adapter.d_out, rank],
                adapter.b.clone(),
            ));
        }
        for (name, shape, values) in published {
            if self.whole.iter().any(|whole| whole == module_of(&name)) {
                tensors.push((format!("{PREFIX}{name}"), shape, values));
            }
        }
        let tensors: Vec<NamedTensor<'_>> = tensors
            .iter()
            .map(|(name, shape, values)| NamedTensor::new(name.as_str(), shape, values.as_slice()))
            .collect();
        write_safetensors(dir.join(WEIGHTS), &tensors, &[("format", "pt")])?;
        Ok(())
    }

    /// The same with the factors of the checkpoint that a run goes on from, if any.
    ///
    /// # Errors
    /// Those of [`Adapters::load`].
    pub(crate) fn resumed(mut self, checkpoint: Option<&Path>) -> Result<Self, TrainError> {
        if let Some(checkpoint) = checkpoint {
            self.load(&checkpoint.join(FOLDER))?;
        }
        Ok(self)
    }

    /// Takes the factors from files that [`Adapters::save`] wrote. Adapters must have been made for the model before training.
    ///
    /// # Errors
    /// Files that cannot be read or do not fit.
    pub fn load(&mut self, dir: &Path) -> Result<(), TrainError> {
        let tensors = Tensors::open(dir.join(WEIGHTS))?;
        for adapter in &mut self.list {
            for (leaf, values) in [("lora_A", &mut adapter.a), ("lora_B", &mut adapter.b)] {
                let name = format!("{PREFIX}{}.{leaf}.weight", adapter.module);
                let (_, found) = tensors.to_f32(&name)?;
                if found.len() != values.len() {
                    return Err(TrainError::BadState {
                        path: dir.to_path_buf(),
                        problem: format!(
                            "`{name}` has {} values, expected {}",
                            found.len(),
                            values.len()
                        ),
                    });
                }
                *values = found;
            }
        }
        Ok(())
    }
}

/// The layer that a published tensor belongs to.
fn module_of(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(module, _)| module)
}

/// The fewest last parts of a layer's name that name only layers of `whole`: `peft` takes every layer whose name ends with them.
fn own_ending<'a>(module: &'a str, whole: &[String], modules: &[&str]) -> &'a str {
    let starts = module.rmatch_indices('.').map(|(dot, _)| dot + 1);
    let alone = |ending: &&str| {
        let mut ends = modules.iter().filter(|module| module.ends_with(*ending));
        ends.all(|module| whole.iter().any(|own| own == module))
    };
    starts
        .map(|start| &module[start..])
        .find(alone)
        .unwrap_or(module)
}
