//! Vectors of sentences: how token states become one vector, the losses that train them, and the layout in which
//! sentence-transformers (Reimers and Gurevych 2019) keeps such models.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use burn::tensor::Tensor;
use malmoi_checkpoint::{ConfigError, read_json};
use malmoi_nn::{PackedBatch, host, ops};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::labels::LossPart;

/// How the token vectors of a text become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Their mean, special tokens included (Reimers and Gurevych 2019).
    #[default]
    Mean,
    /// The vector of the first token.
    Cls,
    /// The vector of the last token, which is the one that has seen the whole text in a decoder.
    Last,
    /// The largest value of each dimension.
    Max,
    /// Their sum, divided by the root of their number.
    MeanSqrtLen,
    /// Their mean with the weights 1, 2, 3, … (Muennighoff 2022), for decoders.
    WeightedMean,
}

/// Published names: key of old files, name in new ones.
const PUBLISHED: [(Pooling, &str, &str); 6] = [
    (Pooling::Cls, "pooling_mode_cls_token", "cls"),
    (Pooling::Mean, "pooling_mode_mean_tokens", "mean"),
    (Pooling::Max, "pooling_mode_max_tokens", "max"),
    (
        Pooling::MeanSqrtLen,
        "pooling_mode_mean_sqrt_len_tokens",
        "mean_sqrt_len_tokens",
    ),
    (
        Pooling::WeightedMean,
        "pooling_mode_weightedmean_tokens",
        "weightedmean",
    ),
    (Pooling::Last, "pooling_mode_lasttoken", "lasttoken"),
];

impl Pooling {
    /// Names on the command line.
    const NAMES: [(Self, &'static str); 6] = [
        (Self::Mean, "mean"),
        (Self::Cls, "cls"),
        (Self::Last, "last"),
        (Self::Max, "max"),
        (Self::MeanSqrtLen, "mean-sqrt-len"),
        (Self::WeightedMean, "weighted-mean"),
    ];

    /// The one way of pooling that sentence-transformers' `1_Pooling/config.json` names; the mean when it names none.
    pub fn published(config: &Value) -> Option<Self> {
        if let Some(name) = config["pooling_mode"].as_str() {
            let found = PUBLISHED.iter().find(|(_, _, known)| *known == name);
            return found.map(|(mode, _, _)| *mode);
        }
        let mut named = (PUBLISHED.iter()).filter(|(_, key, _)| config[*key] == json!(true));
        match (named.next(), named.next()) {
            (Some((mode, _, _)), None) => Some(*mode),
            (None, _) if config["pooling_mode"].is_null() => Some(Self::Mean),
            _ => None,
        }
    }

    /// Pools the states of one text, `[T, D]` with T at least 1.
    pub fn pool(self, hidden: &[f32], d: usize) -> Vec<f32> {
        let n = hidden.len() / d;
        let weighted = |weight: &dyn Fn(usize) -> f64, total: f64| {
            let mut sums = vec![0f64; d];
            for (t, row) in hidden.chunks_exact(d).enumerate() {
                let weight = weight(t);
                let each = sums.iter_mut().zip(row);
                each.for_each(|(sum, x)| *sum += weight * f64::from(*x));
            }
            sums.into_iter().map(|sum| (sum / total) as f32).collect()
        };
        match self {
            Self::Cls => hidden[..d].to_vec(),
            Self::Last => hidden[hidden.len() - d..].to_vec(),
            Self::Mean => weighted(&|_| 1.0, n as f64),
            Self::MeanSqrtLen => weighted(&|_| 1.0, (n as f64).sqrt()),
            Self::WeightedMean => weighted(&|t| (t + 1) as f64, (n * (n + 1)) as f64 / 2.0),
            Self::Max => {
                let mut largest = hidden[..d].to_vec();
                for row in hidden.chunks_exact(d) {
                    let each = largest.iter_mut().zip(row);
                    each.for_each(|(largest, x)| *largest = largest.max(*x));
                }
                largest
            }
        }
    }

    /// Whether training can go through it.
    pub fn is_trainable(self) -> bool {
        matches!(self, Self::Mean | Self::Cls | Self::Last)
    }
}

impl FromStr for Pooling {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, known)| *known == name);
        found.map(|(pooling, _)| *pooling).ok_or_else(|| {
            let known = Self::NAMES.map(|(_, name)| name).join(", ");
            format!("unknown pooling {name:?}; expected one of {known}")
        })
    }
}

/// What the vectors of sentences are trained for.
#[derive(Debug, Clone, PartialEq)]
pub enum SentenceLoss {
    /// The first sentence of an example finds the second one among those of the batch; further ones are wrong.
    InBatchNegatives {
        /// Factor on the cosines.
        scale: f64,
    },
    /// The cosine of a pair is its target.
    CosineRegression(Arc<[f32]>),
    /// The cosines of pairs have the order of their targets.
    CosineOrder {
        /// One a pair.
        targets: Arc<[f32]>,
        /// Factor on the cosines.
        scale: f64,
    },
}

/// A batch in which every example is `group` sequences.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceTargets {
    /// Sequences of an example.
    pub group: usize,
    /// How a sequence becomes a vector; one that [is trainable](Pooling::is_trainable).
    pub pooling: Pooling,
    /// What is trained.
    pub loss: SentenceLoss,
}

/// The loss of hidden states `[N, D]`.
pub(crate) fn loss(
    hidden: Tensor<2>,
    batch: &PackedBatch,
    targets: &SentenceTargets,
) -> (Tensor<1>, LossPart) {
    let vectors = match targets.pooling {
        Pooling::Cls => {
            let first: Arc<[u32]> = batch.cu_seqlens[..batch.n_sequences()].into();
            ops::gather_rows(hidden, first)
        }
        Pooling::Last => {
            let last: Arc<[u32]> = batch.cu_seqlens[1..].iter().map(|end| end - 1).collect();
            ops::gather_rows(hidden, last)
        }
        _ => ops::sequence_means(hidden, Arc::clone(&batch.cu_seqlens)),
    };
    let (name, loss) = match &targets.loss {
        SentenceLoss::InBatchNegatives { scale } => (
            "contrastive",
            ops::in_batch_negatives(vectors, targets.group, *scale),
        ),
        SentenceLoss::CosineRegression(values) => (
            "cosine",
            ops::cosine_regression(vectors, Arc::clone(values)),
        ),
        SentenceLoss::CosineOrder { targets, scale } => (
            "cosent",
            ops::cosine_order(vectors, Arc::clone(targets), *scale),
        ),
    };
    let part = LossPart {
        name,
        loss: f64::from(host::values(loss.clone())[0]),
        weight: 1.0,
        correct: None,
    };
    (loss, part)
}

/// How a model makes a vector of a sentence, as sentence-transformers keeps it beside the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentenceLayout {
    /// How token vectors become one.
    pub pooling: Pooling,
    /// Whether the vector is divided by its length.
    pub normalize: bool,
    /// Tokens of a text; the model's own bound where absent.
    pub max_len: Option<usize>,
}

const MODULES: &str = "modules.json";
const TRANSFORMER: &str = "sentence_bert_config.json";
const TYPES: &str = "sentence_transformers.models.";

impl SentenceLayout {
    /// Reads the layout of a model directory; `None` for a directory without one.
    ///
    /// # Errors
    /// Files that cannot be read, and modules or settings that would change the vectors and are not here.
    pub fn read(dir: &Path) -> Result<Option<Self>, ModelError> {
        let path = dir.join(MODULES);
        if !path.is_file() {
            return Ok(None);
        }
        let unsupported = |key: &str, found: &Value, expected: &str| {
            ModelError::Config(ConfigError::Unsupported {
                model_type: "sentence-transformers".into(),
                key: key.to_owned(),
                found: found.to_string(),
                expected: expected.to_owned(),
            })
        };
        let modules = read_json(&path)?;
        let mut layout = Self {
            pooling: Pooling::Mean,
            normalize: false,
            max_len: None,
        };
        let mut kinds = Vec::new();
        for module in modules.as_array().into_iter().flatten() {
            let kind = module["type"].as_str().unwrap_or_default();
            let kind = kind.rsplit('.').next().unwrap_or_default();
            let folder = dir.join(module["path"].as_str().unwrap_or_default());
            match kind {
                "Transformer" if folder == dir => {}
                "Pooling" => {
                    let config = read_json(&folder.join("config.json"))?;
                    layout.pooling = Pooling::published(&config).ok_or_else(|| {
                        unsupported("pooling_mode", &config, "one known way of pooling")
                    })?;
                }
                "Normalize" => layout.normalize = true,
                _ => {
                    return Err(unsupported(
                        MODULES,
                        module,
                        "a Transformer in the folder itself, a Pooling and perhaps a Normalize",
                    ));
                }
            }
            kinds.push(kind);
        }
        if kinds.first() != Some(&"Transformer") || !kinds.contains(&"Pooling") {
            return Err(unsupported(
                MODULES,
                &modules,
                "a Transformer and a Pooling",
            ));
        }
        let path = dir.join(TRANSFORMER);
        if path.is_file() {
            let config = read_json(&path)?;
            if config["do_lower_case"] == json!(true) {
                let found = &config["do_lower_case"];
                let expected = "false: the tokenizer says what becomes of capitals";
                return Err(unsupported("do_lower_case", found, expected));
            }
            layout.max_len = config["max_seq_length"].as_u64().map(|n| n as usize);
        }
        let path = dir.join("config_sentence_transformers.json");
        if path.is_file() {
            let config = read_json(&path)?;
            let prompt = &config["default_prompt_name"];
            if !prompt.is_null() {
                let expected = "null: write the prompt in front of your texts";
                return Err(unsupported("default_prompt_name", prompt, expected));
            }
        }
        Ok(Some(layout))
    }

    /// The files of the layout beside those of a model whose states are `d_model` wide: path in the directory, and content.
    pub fn files(&self, d_model: usize) -> Vec<(&'static str, Value)> {
        let mut modules = vec![("", "Transformer"), ("1_Pooling", "Pooling")];
        if self.normalize {
            modules.push(("2_Normalize", "Normalize"));
        }
        let modules: Vec<Value> = (modules.into_iter().enumerate())
            .map(|(i, (path, kind))| {
                let kind = format!("{TYPES}{kind}");
                json!({"idx": i, "name": i.to_string(), "path": path, "type": kind})
            })
            .collect();
        let mut pooling = Map::new();
        pooling.insert("word_embedding_dimension".into(), json!(d_model));
        for (mode, key, _) in PUBLISHED {
            pooling.insert(key.into(), json!(mode == self.pooling));
        }
        pooling.insert("include_prompt".into(), json!(true));
        vec![
            (MODULES, Value::Array(modules)),
            ("1_Pooling/config.json", Value::Object(pooling)),
            (
                TRANSFORMER,
                json!({"max_seq_length": self.max_len, "do_lower_case": false}),
            ),
            (
                "config_sentence_transformers.json",
                json!({"prompts": {}, "default_prompt_name": null, "similarity_fn_name": "cosine"}),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, files: &[(&str, Value)]) {
        std::fs::create_dir_all(dir.join("1_Pooling")).unwrap();
        for (name, value) in files {
            malmoi_checkpoint::write_json(&dir.join(name), value).unwrap();
        }
    }

    #[test]
    fn pooling_takes_what_it_says() {
        let hidden = [1.0, 2.0, 3.0, 6.0];
        for (mode, expected) in [
            (Pooling::Mean, [2.0, 4.0]),
            (Pooling::Cls, [1.0, 2.0]),
            (Pooling::Last, [3.0, 6.0]),
            (Pooling::Max, [3.0, 6.0]),
            (Pooling::WeightedMean, [7.0 / 3.0, 14.0 / 3.0]),
            (Pooling::MeanSqrtLen, [2f32.sqrt() * 2.0, 2f32.sqrt() * 4.0]),
        ] {
            assert_eq!(mode.pool(&hidden, 2), expected, "{mode:?}");
        }
    }

    #[test]
    fn every_pooling_has_a_name() {
        for (mode, _, _) in PUBLISHED {
            let name = Pooling::NAMES
                .iter()
                .find(|(known, _)| *known == mode)
                .unwrap()
                .1;
            assert_eq!(name.parse(), Ok(mode));
            assert_eq!(serde_json::to_value(mode).unwrap(), json!(name));
        }
        assert!(
            "middle"
                .parse::<Pooling>()
                .unwrap_err()
                .contains("weighted-mean")
        );
    }

    #[test]
    fn a_layout_is_read_as_it_was_written() {
        for (mode, _, _) in PUBLISHED {
            for (normalize, max_len) in [(false, None), (true, Some(128))] {
                let layout = SentenceLayout {
                    pooling: mode,
                    normalize,
                    max_len,
                };
                let dir = tempfile::tempdir().unwrap();
                assert_eq!(SentenceLayout::read(dir.path()).unwrap(), None);
                write(dir.path(), &layout.files(8));
                assert_eq!(SentenceLayout::read(dir.path()).unwrap(), Some(layout));
            }
        }
    }

    #[test]
    fn what_would_change_the_vectors_is_refused() {
        let layout = SentenceLayout {
            pooling: Pooling::Mean,
            normalize: false,
            max_len: None,
        };
        let refused = |name: &'static str, value: Value| {
            let dir = tempfile::tempdir().unwrap();
            let mut files = layout.files(8);
            files.retain(|(known, _)| *known != name);
            files.push((name, value));
            write(dir.path(), &files);
            SentenceLayout::read(dir.path()).unwrap_err().to_string()
        };
        let dense = json!([
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        ]);
        assert!(refused("modules.json", dense).contains("Dense"));
        let two = json!({"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true});
        assert!(refused("1_Pooling/config.json", two).contains("pooling_mode"));
        let lower = json!({"do_lower_case": true});
        assert!(refused("sentence_bert_config.json", lower).contains("do_lower_case"));
        let new = json!({"pooling_mode": "cls", "embedding_dimension": 8});
        let dir = tempfile::tempdir().unwrap();
        let mut files = layout.files(8);
        files[1].1 = new;
        write(dir.path(), &files);
        let read = SentenceLayout::read(dir.path()).unwrap().unwrap();
        assert_eq!(read.pooling, Pooling::Cls);
    }
}
