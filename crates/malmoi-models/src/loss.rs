//! Losses of every head, with and without gradients, and the outputs of classification heads.

use std::sync::Arc;

use burn::tensor::Tensor;
use malmoi_nn::ops::Projection;
use malmoi_nn::parameters::ParameterInfo;
use malmoi_nn::{PackedBatch, Pass, bridge, host, ops};

use crate::electra::pair;
use crate::error::ModelError;
use crate::head::Head;
use crate::labels::{
    BinaryTargets, ClassTargets, Labels, LossPart, LossReport, ReplacedTokens, SpanTargets,
    VocabularyTargets,
};
use crate::model::Model;
use crate::sentence;

/// A loss `[1]` or `[2]` whose first element counts, and its terms.
type Loss = (Tensor<1>, Vec<LossPart>);

/// A parameter with its gradient; `None` where the loss does not depend on it.
pub type NamedGradient = (ParameterInfo, Option<Vec<f32>>);

impl Model {
    /// The loss, without dropout and without a graph.
    ///
    /// # Errors
    /// A batch or labels that do not fit the model.
    pub fn loss(&self, batch: &PackedBatch, labels: &Labels) -> Result<LossReport, ModelError> {
        if let Some(plain) = self.plain() {
            return plain.loss(batch, labels);
        }
        Ok(self.loss_tensor(batch, labels, &Pass::inference())?.1)
    }

    /// The loss and the gradient of every parameter, in module order.
    ///
    /// # Errors
    /// A batch or labels that do not fit the model.
    ///
    /// # Panics
    /// When the model was opened for inference.
    pub fn loss_and_gradients(
        &self,
        batch: &PackedBatch,
        labels: &Labels,
        pass: &Pass,
    ) -> Result<(LossReport, Vec<NamedGradient>), ModelError> {
        let (loss, report) = self.loss_tensor(batch, labels, pass)?;
        let mut gradients = bridge::backward(&loss);
        drop(loss);
        Ok((report, self.net.gradients(&mut gradients)))
    }

    /// What the head says: classes of each sequence `[B, K]`, classes of each token `[N, K]`, start and end logits of each
    /// token `[N, 2]`, one logit a sequence `[B, 1]`, or one logit a token `[N, 1]`
    /// (replaced or not).
    ///
    /// # Errors
    /// A batch that does not fit, or a model without such a head.
    pub fn outputs(&self, batch: &PackedBatch) -> Result<Vec<f32>, ModelError> {
        if let Some(plain) = self.plain() {
            return plain.outputs(batch);
        }
        self.validate(batch)?;
        let paired = self.net.both_sides().and_then(|head| head.paired(batch));
        let batch = paired.as_ref().unwrap_or(batch);
        let pass = Pass::inference();
        let hidden = self.run(batch, &pass, &mut |_| ())?;
        let outputs = match self.head {
            Head::NextSentence | Head::Pretraining => self.net.next_sentence(hidden, batch, &pass),
            Head::TokenClassification | Head::QuestionAnswering | Head::ReplacedTokens => {
                self.net.token_outputs(hidden, &pass)
            }
            _ => self.net.sequence_outputs(hidden, batch, &pass),
        };
        outputs
            .map(host::values)
            .ok_or_else(|| self.wrong_head("classification", "a classification head"))
    }

    /// Choice logits read at the rows `rows`, one a sequence (GPT-1's second head).
    ///
    /// # Errors
    /// A batch that does not fit, or a model without such a head.
    pub fn choice_logits(&self, batch: &PackedBatch, rows: &[u32]) -> Result<Vec<f32>, ModelError> {
        if let Some(plain) = self.plain() {
            return plain.choice_logits(batch, rows);
        }
        self.validate(batch)?;
        let pass = Pass::inference();
        let hidden = self.run(batch, &pass, &mut |_| ())?;
        Ok(host::values(self.choice_scores(
            hidden,
            &rows.into(),
            &pass,
        )?))
    }

    fn choice_scores(
        &self,
        hidden: Tensor<2>,
        rows: &Arc<[u32]>,
        pass: &Pass,
    ) -> Result<Tensor<2>, ModelError> {
        let rows = ops::gather_rows(hidden, Arc::clone(rows));
        let scores = self.net.choice_scores(rows, pass);
        scores.ok_or_else(|| self.wrong_head("choice scores", "GPT-1's double heads"))
    }

    fn sequence_outputs(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        pass: &Pass,
    ) -> Result<Tensor<2>, ModelError> {
        let outputs = self.net.sequence_outputs(hidden, batch, pass);
        outputs.ok_or_else(|| self.wrong_head("classification", "a classification head"))
    }

    fn loss_tensor(
        &self,
        batch: &PackedBatch,
        labels: &Labels,
        pass: &Pass,
    ) -> Result<(Tensor<1>, LossReport), ModelError> {
        self.validate(batch)?;
        if let Labels::ReplacedTokens(labels) = labels {
            return self.replaced_token_loss(batch, labels, pass);
        }
        let paired = self.net.both_sides().and_then(|head| head.paired(batch));
        let batch = paired.as_ref().unwrap_or(batch);
        let hidden = self.run(batch, pass, &mut |_| ())?;
        let (loss, parts) = self.loss_of(hidden, batch, labels, pass)?;
        let value = f64::from(host::values(loss.clone())[0]);
        Ok((loss, LossReport { loss: value, parts }))
    }

    /// The loss of hidden states.
    fn loss_of(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        labels: &Labels,
        pass: &Pass,
    ) -> Result<Loss, ModelError> {
        Ok(match labels {
            Labels::ReplacedTokens(_) => unreachable!("needs two passes, handled by the caller"),
            Labels::WithLanguageModel(labels, vocabulary) => {
                let (loss, mut parts) = self.loss_of(hidden.clone(), batch, labels, pass)?;
                let (lm, part) = self.vocabulary_loss("lm", hidden, vocabulary)?;
                parts.extend(part);
                (ops::weighted_sum(loss, 1.0, lm, 1.0), parts)
            }
            Labels::Replaced(targets) => {
                let (loss, part) =
                    binary_loss("rtd", self.detector_outputs(hidden, pass)?, targets);
                (loss, vec![part])
            }
            Labels::Vocabulary(targets) => {
                let name = if self.config.is_causal() { "lm" } else { "mlm" };
                self.vocabulary_loss(name, hidden, targets)?
            }
            Labels::Pretraining {
                vocabulary,
                next_sentence,
            } => {
                let (mlm, mut parts) = self.vocabulary_loss("mlm", hidden.clone(), vocabulary)?;
                let logits = self.net.next_sentence(hidden, batch, pass);
                let logits = logits.ok_or_else(|| {
                    self.wrong_head("next-sentence prediction", "pretraining heads")
                })?;
                let (nsp, part) =
                    class_loss(self.config.get().pair_loss(), logits, next_sentence, 0.0);
                parts.push(part);
                (ops::weighted_sum(mlm, 1.0, nsp, 1.0), parts)
            }
            Labels::Classes(targets) => {
                let outputs = self.sequence_outputs(hidden, batch, pass)?;
                let (loss, part) = class_loss("class", by_example(outputs, targets), targets, 0.0);
                (loss, vec![part])
            }
            Labels::SmoothedClasses(targets, smoothing) => {
                let outputs = by_example(self.sequence_outputs(hidden, batch, pass)?, targets);
                let (loss, part) = class_loss("class", outputs, targets, *smoothing);
                (loss, vec![part])
            }
            Labels::MultiLabel(targets) => {
                let outputs = self.sequence_outputs(hidden, batch, pass)?;
                single(
                    "labels",
                    ops::binary_cross_entropy(outputs, Arc::clone(targets)),
                )
            }
            Labels::Values(targets) => {
                let outputs = self.sequence_outputs(hidden, batch, pass)?;
                let outputs = added_up(outputs, targets.len());
                single(
                    "value",
                    ops::mean_squared_error(outputs, Arc::clone(targets)),
                )
            }
            Labels::TokenClasses(targets) => {
                let outputs = self.token_outputs(hidden, pass)?;
                token_class_loss(outputs, targets, 0.0)
            }
            Labels::SmoothedTokenClasses(targets, smoothing) => {
                let outputs = self.token_outputs(hidden, pass)?;
                token_class_loss(outputs, targets, *smoothing)
            }
            Labels::Sentences(targets) => {
                let (loss, part) = sentence::loss(hidden, batch, targets);
                (loss, vec![part])
            }
            Labels::Spans(targets) => span_loss(self.token_outputs(hidden, pass)?, batch, targets),
            Labels::DoubleHeads {
                vocabulary,
                choice_rows,
                choices,
                choice_weight,
            } => {
                let (lm, mut parts) = self.vocabulary_loss("lm", hidden.clone(), vocabulary)?;
                let scores = self.choice_scores(hidden, choice_rows, pass)?;
                let (choice, part) =
                    class_loss("choice", by_example(scores, choices), choices, 0.0);
                parts.push(part);
                (ops::weighted_sum(lm, 1.0, choice, *choice_weight), parts)
            }
        })
    }

    fn detector_outputs(&self, hidden: Tensor<2>, pass: &Pass) -> Result<Tensor<2>, ModelError> {
        let head =
            (self.head == Head::ReplacedTokens).then(|| self.net.token_outputs(hidden, pass));
        (head.flatten()).ok_or_else(|| {
            self.wrong_head("replaced-token detection", "ELECTRA's discriminator head")
        })
    }

    /// Generator and discriminator: the blanks of the batch are filled by the one and judged by the other.
    fn replaced_token_loss(
        &self,
        batch: &PackedBatch,
        labels: &ReplacedTokens,
        pass: &Pass,
    ) -> Result<(Tensor<1>, LossReport), ModelError> {
        let format = |x| self.in_precision(x);
        let filled = (self.net).fill_blanks(batch, &labels.vocabulary, pass, &format);
        let (states, projection) = filled.ok_or_else(|| {
            self.wrong_head(
                "training with a generator",
                "ELECTRA's discriminator head and a generator",
            )
        })?;
        let sampled = pair::sample(&states, &projection, labels.sample);
        let (mlm, generated) = token_loss("mlm", states, projection, &labels.vocabulary);
        let (corrupted, replaced) = pair::corrupt(batch, labels, &sampled);
        let detection = Labels::Replaced(BinaryTargets {
            rows: (0..batch.n_tokens() as u32).collect(),
            weights: vec![labels.token_weight; replaced.len()].into(),
            targets: replaced.into(),
        });
        let (rtd, report) = self.loss_tensor(&corrupted, &detection, pass)?;
        let loss = ops::weighted_sum(mlm, 1.0, rtd, labels.detection_factor);
        let mut parts = vec![generated];
        parts.extend(report.parts);
        let value = f64::from(host::values(loss.clone())[0]);
        Ok((loss, LossReport { loss: value, parts }))
    }

    fn token_outputs(&self, hidden: Tensor<2>, pass: &Pass) -> Result<Tensor<2>, ModelError> {
        let outputs = self.net.token_outputs(hidden, pass);
        outputs.ok_or_else(|| self.wrong_head("token classification", "a token-level head"))
    }

    fn vocabulary_loss(
        &self,
        name: &'static str,
        hidden: Tensor<2>,
        targets: &VocabularyTargets,
    ) -> Result<Loss, ModelError> {
        let work = "a language-modelling loss";
        // A tied decoder predicts tokens under any head.
        let tied = self.config.is_causal() && self.config.get().common().tied;
        let projection = match tied {
            true => (self.net.projection())
                .ok_or_else(|| self.wrong_head(work, "a language-modelling head"))?,
            false => self.projection(work)?,
        };
        let rows = ops::gather_rows(hidden, Arc::clone(&targets.rows));
        let input = self.net.vocabulary_input(rows);
        let (loss, part) = token_loss(name, input, projection, targets);
        Ok((loss, vec![part]))
    }
}

/// Cross-entropy of `input [M, E]` projected to the vocabulary.
fn token_loss(
    name: &'static str,
    input: Tensor<2>,
    projection: Projection,
    targets: &VocabularyTargets,
) -> (Tensor<1>, LossPart) {
    let loss = ops::linear_cross_entropy(
        input,
        projection,
        Arc::clone(&targets.targets),
        Arc::clone(&targets.weights),
    );
    let values = host::values(loss.clone());
    let part = LossPart {
        name,
        loss: values[0].into(),
        weight: targets.weights.iter().map(|w| f64::from(*w)).sum(),
        correct: Some(values[1].into()),
    };
    // A sum of one term: drops the second element, which carries no gradient.
    (ops::weighted_sum(loss.clone(), 1.0, loss, 0.0), part)
}

/// The outputs of sequences as one row an example: single outputs `[B · C, 1]` are choices, `[B, C]`; others are added up.
fn by_example(outputs: Tensor<2>, targets: &ClassTargets) -> Tensor<2> {
    let [rows, width] = outputs.dims();
    let examples = targets.targets.len();
    if width == 1 {
        return outputs.reshape([examples, rows / examples]);
    }
    added_up(outputs, examples * width)
}

/// Outputs `[B · G, K]` of examples with G sequences each, added up to `[B, K]`, `values` in all.
fn added_up(outputs: Tensor<2>, values: usize) -> Tensor<2> {
    let [rows, width] = outputs.dims();
    let group = rows * width / values.max(1);
    if group <= 1 {
        return outputs;
    }
    let every = |first: usize| -> Arc<[u32]> {
        (first..rows).step_by(group).map(|row| row as u32).collect()
    };
    let parts = (0..group).map(|first| ops::gather_rows(outputs.clone(), every(first)));
    parts.reduce(ops::add).expect("a group has a sequence")
}

/// Cross-entropy of the rows that have a class.
fn token_class_loss(outputs: Tensor<2>, targets: &VocabularyTargets, smoothing: f32) -> Loss {
    let rows = ops::gather_rows(outputs, Arc::clone(&targets.rows));
    let classes = ClassTargets {
        targets: Arc::clone(&targets.targets),
        weights: Arc::clone(&targets.weights),
    };
    let (loss, part) = class_loss("token", rows, &classes, smoothing);
    (loss, vec![part])
}

fn class_loss(
    name: &'static str,
    logits: Tensor<2>,
    targets: &ClassTargets,
    smoothing: f32,
) -> (Tensor<1>, LossPart) {
    let [rows, width] = logits.dims();
    let values = host::values(logits.clone());
    let top = (0..rows).map(|row| argmax(&values[row * width..(row + 1) * width]));
    let hits = top
        .zip(&*targets.targets)
        .zip(&*targets.weights)
        .filter(|((top, target), _)| top == *target);
    let correct = hits.map(|(_, weight)| f64::from(*weight)).sum();
    let (classes, weights) = (Arc::clone(&targets.targets), Arc::clone(&targets.weights));
    let loss = match smoothing {
        0.0 => ops::cross_entropy(logits, classes, weights),
        _ => ops::smoothed_cross_entropy(logits, classes, weights, smoothing),
    };
    let weight = targets.weights.iter().map(|w| f64::from(*w)).sum();
    let value = f64::from(host::values(loss.clone())[0]);
    (
        loss,
        LossPart {
            name,
            loss: value,
            weight,
            correct: Some(correct),
        },
    )
}

/// Binary cross-entropy over rows of `logits [N, 1]`; a row is right where its logit falls on the side of its target.
fn binary_loss(
    name: &'static str,
    logits: Tensor<2>,
    targets: &BinaryTargets,
) -> (Tensor<1>, LossPart) {
    let rows = ops::gather_rows(logits, Arc::clone(&targets.rows));
    let values = host::values(rows.clone());
    let hits = values
        .iter()
        .zip(&*targets.targets)
        .zip(&*targets.weights)
        .filter(|((logit, target), _)| (**logit > 0.0) == (**target > 0.5));
    let correct = hits.map(|(_, weight)| f64::from(*weight)).sum();
    let loss = ops::weighted_binary_cross_entropy(
        rows,
        Arc::clone(&targets.targets),
        Arc::clone(&targets.weights),
    );
    let part = LossPart {
        name,
        loss: f64::from(host::values(loss.clone())[0]),
        weight: targets.weights.iter().map(|w| f64::from(*w)).sum(),
        correct: Some(correct),
    };
    (loss, part)
}

fn single(name: &'static str, loss: Tensor<1>) -> Loss {
    let value = f64::from(host::values(loss.clone())[0]);
    (
        loss,
        vec![LossPart {
            name,
            loss: value,
            weight: 1.0,
            correct: None,
        }],
    )
}

/// Half the sum of the mean cross-entropies of start and end, each a softmax over the tokens of its sequence.
fn span_loss(outputs: Tensor<2>, batch: &PackedBatch, targets: &SpanTargets) -> Loss {
    let mut total: Option<Tensor<1>> = None;
    for (column, positions) in [&targets.starts, &targets.ends].into_iter().enumerate() {
        let counted = positions.iter().flatten().count().max(1) as f32;
        for (rows, position) in batch.sequences().zip(positions) {
            let Some(position) = position else { continue };
            let logits = outputs
                .clone()
                .slice([rows.clone(), column..column + 1])
                .reshape([1, rows.len()]);
            let weight = 0.5 / counted;
            let loss = ops::cross_entropy(logits, [*position].into(), [weight].into());
            total = Some(match total {
                None => loss,
                Some(sum) => ops::weighted_sum(sum, 1.0, loss, 1.0),
            });
        }
    }
    // Every answer out of range: nothing to learn from this batch.
    let total = total.unwrap_or_else(|| outputs.slice([0..1, 0..1]).reshape([1]).mul_scalar(0.0));
    single("span", total)
}

fn argmax(row: &[f32]) -> u32 {
    let best = row
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (i, &x)| {
            if x > best.1 { (i, x) } else { best }
        });
    best.0 as u32
}
