//! From padded fixtures to packed batches and back: the only place where padding exists.

use std::sync::Arc;

use malmoi_models::{
    BinaryTargets, ClassTargets, Direction, Head, KeyRows, Labels, PackedBatch, ProblemType,
    SpanTargets, VocabularyTargets,
};

use super::{CaseError, Subject};

/// Label of a position that is not counted.
const IGNORED: i64 = -100;

/// A padded batch `[B, T]` (or `[B, C, T]`, flattened to rows) and its packed form.
pub(crate) struct Padded {
    /// Tokens of a padded row.
    pub t: usize,
    /// Which positions hold real tokens, `[B · T]`.
    pub real: Vec<bool>,
    /// The packed batch.
    pub batch: PackedBatch,
    /// Packed row of each padded position.
    row_of: Vec<Option<u32>>,
    /// What the encoder reads, when this is the decoder's part.
    pub source: Option<Box<Padded>>,
}

/// Ids `[B, T]` of one part of a case and which of them count.
struct Tokens {
    ids: Vec<u32>,
    t: usize,
    real: Vec<bool>,
}

impl Padded {
    /// Reads the inputs of a case; of an encoder-decoder, what the decoder reads with the source beside it (or the source alone, when
    /// the case only generates).
    pub fn read(subject: &Subject<'_>, case: &str) -> Result<Self, CaseError> {
        let own = Self::pack(
            subject,
            case,
            tokens(subject, case, "input_ids", "attention_mask")?,
        )?;
        if subject.model.direction() != Direction::EncoderDecoder {
            return Ok(own);
        }
        let has = |input: &str| subject.fixture.has(&format!("{case}.in.{input}"));
        let target = if has("decoder_input_ids") {
            tokens(subject, case, "decoder_input_ids", "decoder_attention_mask")?
        } else if has("labels") && subject.head.has_vocabulary() {
            shifted(subject, case)?
        } else {
            return Ok(own);
        };
        let mut target = Self::pack(subject, case, target)?;
        let (targets, sources) = (target.batch.n_sequences(), own.batch.n_sequences());
        if targets != sources {
            let why = format!("{targets} sequences of the decoder for {sources} of the encoder");
            return Err(CaseError::Unsupported(why));
        }
        target.batch = target.batch.with_source(own.batch.clone());
        target.source = Some(Box::new(own));
        Ok(target)
    }

    fn pack(subject: &Subject<'_>, case: &str, tokens: Tokens) -> Result<Self, CaseError> {
        let fixture = subject.fixture;
        let input = |name: &str| {
            let name = format!("{case}.in.{name}");
            fixture.has(&name).then_some(name)
        };
        let Tokens { ids, t, real } = tokens;
        let positions: Vec<u32> = match input("position_ids") {
            Some(name) => {
                let given = fixture.i64s(&name)?;
                (0..ids.len())
                    .map(|i| given[i % given.len()] as u32)
                    .collect()
            }
            None => (0..ids.len()).map(|i| (i % t) as u32).collect(),
        };
        // The span loss of published code runs over padding too, as queries that no one attends to.
        let keep_padding = subject.head == Head::QuestionAnswering;
        let mut row_of = vec![None; ids.len()];
        let mut kept = Vec::new();
        let (mut cu_seqlens, mut keys, mut cu_keys) = (vec![0], Vec::new(), vec![0]);
        for sequence in 0..ids.len() / t {
            for position in sequence * t..(sequence + 1) * t {
                if real[position] || keep_padding {
                    row_of[position] = Some(kept.len() as u32);
                    if real[position] {
                        keys.push(kept.len() as u32);
                    }
                    kept.push(position);
                }
            }
            cu_seqlens.push(kept.len() as u32);
            cu_keys.push(keys.len() as u32);
        }
        let pick = |values: &[u32]| kept.iter().map(|i| values[*i]).collect::<Arc<[u32]>>();
        let stream = |name: &str| -> Result<Option<Arc<[u32]>>, CaseError> {
            let Some(name) = input(name) else {
                return Ok(None);
            };
            let given: Vec<u32> = fixture.i64s(&name)?.iter().map(|id| *id as u32).collect();
            Ok(Some(pick(&given)))
        };
        let segments = stream("token_type_ids")?;
        // Published code passes over languages that a model has no vectors for; ours refuses them.
        let spoken = subject.config.n_languages() > 0;
        let languages = stream("langs")?.filter(|_| spoken);
        let padded = real.iter().any(|real| !real);
        let batch = PackedBatch {
            ids: pick(&ids),
            cu_seqlens: cu_seqlens.into(),
            positions: pick(&positions),
            segments,
            languages,
            source: None,
            keys: (keep_padding && padded).then(|| KeyRows {
                rows: keys.into(),
                cu_seqlens: cu_keys.into(),
            }),
        };
        Ok(Self {
            t,
            real,
            batch,
            row_of,
            source: None,
        })
    }

    /// Packed row of a padded position.
    pub fn row(&self, position: usize) -> Result<u32, CaseError> {
        self.row_of[position]
            .ok_or_else(|| CaseError::Unsupported(format!("a label at padded position {position}")))
    }

    /// Packed values `[N, W]` laid out as `[B, T, W]`, zero where there is padding.
    pub fn unpack(&self, packed: &[f32]) -> Vec<f32> {
        let width = packed.len() / self.batch.n_tokens();
        let mut out = vec![0.0; self.row_of.len() * width];
        for (position, row) in self.row_of.iter().enumerate() {
            if let Some(row) = row {
                let row = *row as usize;
                out[position * width..(position + 1) * width]
                    .copy_from_slice(&packed[row * width..(row + 1) * width]);
            }
        }
        out
    }

    /// Probabilities of packed sequences (`[heads, nq, nk]` one after another) for keys of `keys` laid out as `[B, heads, Tq, Tk]`, and
    /// how many heads there are: an encoder may have another number than its decoder.
    pub fn unpack_attention(&self, keys: &Padded, packed: &[f32]) -> (Vec<f32>, usize) {
        let (tq, tk) = (self.t, keys.t);
        let sequences = 0..self.row_of.len() / tq;
        let pairs = |sequence| self.kept(sequence).count() * keys.kept(sequence).count();
        let heads = packed.len() / sequences.map(pairs).sum::<usize>().max(1);
        let mut out = vec![0.0; self.row_of.len() * heads * tk];
        let mut values = packed.iter();
        for sequence in 0..self.row_of.len() / tq {
            for head in 0..heads {
                for q in self.kept(sequence) {
                    for k in keys.kept(sequence) {
                        out[((sequence * heads + head) * tq + q) * tk + k] =
                            *values.next().expect("a probability a query and key");
                    }
                }
            }
        }
        (out, heads)
    }

    /// Places of a sequence that hold packed tokens.
    fn kept(&self, sequence: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.t).filter(move |i| self.row_of[sequence * self.t + i].is_some())
    }

    /// All packed rows.
    pub fn all_rows(&self) -> Vec<u32> {
        (0..self.batch.n_tokens() as u32).collect()
    }

    /// Labels of a case, or none when it has no labels.
    pub fn labels(&self, subject: &Subject<'_>, case: &str) -> Result<Option<Labels>, CaseError> {
        let fixture = subject.fixture;
        let name = |input: &str| format!("{case}.in.{input}");
        let has = |input: &str| fixture.has(&name(input));
        let classes = |input: &str| -> Result<ClassTargets, CaseError> {
            let targets: Vec<u32> = fixture
                .i64s(&name(input))?
                .iter()
                .map(|x| *x as u32)
                .collect();
            Ok(ClassTargets::mean(targets))
        };
        let shift = usize::from(subject.config.shifts_labels());
        Ok(Some(match subject.head {
            Head::MaskedLm | Head::CausalLm | Head::Seq2SeqLm if has("labels") => {
                Labels::Vocabulary(self.vocabulary(fixture.i64s(&name("labels"))?, shift)?)
            }
            Head::Pretraining if has("labels") => Labels::Pretraining {
                vocabulary: self.vocabulary(fixture.i64s(&name("labels"))?, shift)?,
                next_sentence: classes(if has("sentence_order_label") {
                    "sentence_order_label"
                } else {
                    "next_sentence_label"
                })?,
            },
            Head::ReplacedTokens if has("labels") => {
                Labels::Replaced(self.replaced(fixture.i64s(&name("labels"))?))
            }
            Head::NextSentence | Head::MultipleChoice if has("labels") => {
                Labels::Classes(classes("labels")?)
            }
            Head::SequenceClassification if has("labels") => {
                match fixture.f32s(&name("labels")) {
                    // Whole numbers are classes; fractions are values, or one truth value a label.
                    Err(_) => Labels::Classes(classes("labels")?),
                    Ok(values) if subject.config.problem_type() == ProblemType::Regression => {
                        Labels::Values(values.into())
                    }
                    Ok(values) => Labels::MultiLabel(values.into()),
                }
            }
            Head::TokenClassification if has("labels") => {
                Labels::TokenClasses(self.vocabulary(fixture.i64s(&name("labels"))?, 0)?)
            }
            Head::QuestionAnswering if has("start_positions") => Labels::Spans(SpanTargets {
                starts: self.spans(fixture.i64s(&name("start_positions"))?),
                ends: self.spans(fixture.i64s(&name("end_positions"))?),
            }),
            Head::DoubleHeads if has("labels") && has("mc_labels") => Labels::DoubleHeads {
                vocabulary: self.vocabulary(fixture.i64s(&name("labels"))?, shift)?,
                choice_rows: self
                    .choice_rows(fixture.i64s(&name("mc_token_ids"))?)?
                    .into(),
                choices: classes("mc_labels")?,
                // The published objective of the fixtures: loss + 2 · mc_loss.
                choice_weight: 2.0,
            },
            _ => return Ok(None),
        }))
    }

    /// Packed rows at which the sequences are scored.
    pub fn choice_rows(&self, token_ids: &[i64]) -> Result<Vec<u32>, CaseError> {
        let rows = token_ids.iter().enumerate();
        rows.map(|(sequence, token)| self.row(sequence * self.t + *token as usize))
            .collect()
    }

    /// Truth values of equal weight at every real position.
    fn replaced(&self, labels: &[i64]) -> BinaryTargets {
        let rows = self.row_of.iter().zip(labels);
        let (rows, targets): (Vec<u32>, Vec<f32>) = rows
            .filter_map(|(row, label)| Some(((*row)?, *label as f32)))
            .unzip();
        let weights = vec![1.0 / rows.len() as f32; rows.len()];
        BinaryTargets {
            rows: rows.into(),
            targets: targets.into(),
            weights: weights.into(),
        }
    }

    fn spans(&self, positions: &[i64]) -> Vec<Option<u32>> {
        // Published code clamps into [0, T] and leaves T out of the mean.
        positions
            .iter()
            .map(|p| {
                u32::try_from((*p).max(0))
                    .ok()
                    .filter(|p| (*p as usize) < self.t)
            })
            .collect()
    }

    /// Targets of equal weight at every counted label; with `shift` 1 a position predicts the label after it.
    fn vocabulary(&self, labels: &[i64], shift: usize) -> Result<VocabularyTargets, CaseError> {
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (position, label) in labels.iter().enumerate() {
            if *label != IGNORED && position % self.t >= shift {
                rows.push(self.row(position - shift)?);
                targets.push(*label as u32);
            }
        }
        let weights = vec![1.0 / rows.len() as f32; rows.len()];
        Ok(VocabularyTargets {
            rows: rows.into(),
            targets: targets.into(),
            weights: weights.into(),
        })
    }
}

/// One part of a case, padded; without a mask every position counts.
fn tokens(subject: &Subject<'_>, case: &str, ids: &str, mask: &str) -> Result<Tokens, CaseError> {
    let fixture = subject.fixture;
    let name = format!("{case}.in.{ids}");
    let Some(&t) = fixture.shape(&name)?.last() else {
        return Err(CaseError::Unsupported(format!("{ids} without dimensions")));
    };
    let ids: Vec<u32> = (fixture.i64s(&name)?.iter()).map(|id| *id as u32).collect();
    let (mask, lengths) = (format!("{case}.in.{mask}"), format!("{case}.in.lengths"));
    let real = if fixture.has(&mask) {
        fixture.i64s(&mask)?.iter().map(|mask| *mask != 0).collect()
    } else if fixture.has(&lengths) {
        let lengths = fixture.i64s(&lengths)?;
        (0..ids.len())
            .map(|i| ((i % t) as i64) < lengths[i / t])
            .collect()
    } else if subject.config.model_type() == "xlm" {
        // Published code of this family takes a row to be as long as it has tokens that are not padding.
        let rows = ids.chunks(t).map(|row| {
            let padding = subject.config.pad_token();
            row.iter().filter(|id| Some(**id) != padding).count()
        });
        rows.flat_map(|n| (0..t).map(move |i| i < n)).collect()
    } else {
        vec![true; ids.len()]
    };
    Ok(Tokens { ids, t, real })
}

/// What a decoder reads to predict labels: its start token and all labels but the last, padding for those that are not counted.
fn shifted(subject: &Subject<'_>, case: &str) -> Result<Tokens, CaseError> {
    let name = format!("{case}.in.labels");
    let (labels, shape) = (
        subject.fixture.i64s(&name)?,
        subject.fixture.shape(&name)?.to_vec(),
    );
    let (Some(&t), Some(start)) = (shape.last(), subject.config.decoder_start()) else {
        return Err(CaseError::Unsupported(
            "labels without a decoder start".into(),
        ));
    };
    let padding = subject.config.pad_token().unwrap_or(start);
    let ids = (0..labels.len()).map(|i| match i % t {
        0 => start,
        _ => u32::try_from(labels[i - 1]).unwrap_or(padding),
    });
    let mask = format!("{case}.in.decoder_attention_mask");
    let real = match subject.fixture.has(&mask) {
        true => (subject.fixture.i64s(&mask)?.iter().map(|mask| *mask != 0)).collect(),
        false => vec![true; labels.len()],
    };
    Ok(Tokens {
        ids: ids.collect(),
        t,
        real,
    })
}
