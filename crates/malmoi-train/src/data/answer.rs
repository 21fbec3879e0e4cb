//! What an example of a task is measured against, and how answers of a batch become labels.

use malmoi_models::{ClassTargets, Labels, SpanTargets, VocabularyTargets};

/// What an example of a task is measured against.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// One class, with the weight of its row in a mean.
    Class(Weighted),
    /// 1 for every label that applies, 0 for the others.
    Labels(Vec<f32>),
    /// A value.
    Value(f32),
    /// Classes of some tokens: place in the example and class.
    Tags(Vec<(usize, Weighted)>),
    /// First and last token of an answer.
    Span(u32, u32),
}

/// A class and what it counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighted {
    /// The class.
    pub class: u32,
    /// Its weight in a weighted mean.
    pub weight: f32,
    /// Share of the target's weight that all classes get alike.
    pub smoothing: f32,
}

impl Weighted {
    /// A class of weight 1 without smoothing.
    pub fn plain(class: u32) -> Self {
        Self {
            class,
            weight: 1.0,
            smoothing: 0.0,
        }
    }
}

impl Answer {
    /// What it counts in the mean over a step.
    pub(super) fn weight(&self) -> f64 {
        match self {
            Self::Class(class) => f64::from(class.weight),
            Self::Tags(tags) => tags.iter().map(|(_, tag)| f64::from(tag.weight)).sum(),
            Self::Labels(_) | Self::Value(_) | Self::Span(..) => 1.0,
        }
    }

    /// The same answer where the parts of token `n` are at `places[n]..places[n + 1]`.
    pub(super) fn spread(&self, places: &[usize]) -> Self {
        match self {
            Self::Tags(tags) => Self::Tags(
                tags.iter()
                    .map(|&(place, tag)| (places[place], tag))
                    .collect(),
            ),
            Self::Span(first, last) => Self::Span(
                places[*first as usize] as u32,
                places[*last as usize + 1] as u32 - 1,
            ),
            other => other.clone(),
        }
    }

    /// The same answer in a batch whose tokens before its example are `base`.
    pub(super) fn moved(&self, base: usize) -> Self {
        match self {
            Self::Tags(tags) => Self::Tags(
                tags.iter()
                    .map(|&(place, tag)| (base + place, tag))
                    .collect(),
            ),
            other => other.clone(),
        }
    }

    /// Whether labels carry weights, so that micro-batches add up; a plain mean over the micro-batch is taken otherwise.
    fn weighs(&self) -> bool {
        matches!(self, Self::Class(_) | Self::Tags(_))
    }
}

/// Labels of answers of one kind, weighted by their share of `total`. `None` without answers.
pub(super) fn labels(answers: &[Answer], total: f64) -> Option<Labels> {
    let share = |weight: f32| (f64::from(weight) / total) as f32;
    let classes = |list: &[Weighted]| ClassTargets {
        targets: list.iter().map(|one| one.class).collect(),
        weights: list.iter().map(|one| share(one.weight)).collect(),
    };
    let first = answers.first()?;
    Some(match first {
        Answer::Class(one) => {
            let list: Vec<Weighted> = answers.iter().filter_map(Answer::class).collect();
            match one.smoothing {
                0.0 => Labels::Classes(classes(&list)),
                smoothing => Labels::SmoothedClasses(classes(&list), smoothing),
            }
        }
        Answer::Labels(_) => {
            let flags = answers.iter().filter_map(|answer| match answer {
                Answer::Labels(flags) => Some(flags),
                _ => None,
            });
            Labels::MultiLabel(flags.flatten().copied().collect())
        }
        Answer::Value(_) => {
            let values = answers.iter().filter_map(|answer| match answer {
                Answer::Value(value) => Some(*value),
                _ => None,
            });
            Labels::Values(values.collect())
        }
        Answer::Tags(_) => {
            let all = answers.iter().filter_map(|answer| match answer {
                Answer::Tags(tags) => Some(tags),
                _ => None,
            });
            let all: Vec<(usize, Weighted)> = all.flatten().copied().collect();
            let targets = VocabularyTargets {
                rows: all.iter().map(|(row, _)| *row as u32).collect(),
                targets: all.iter().map(|(_, tag)| tag.class).collect(),
                weights: all.iter().map(|(_, tag)| share(tag.weight)).collect(),
            };
            match all.first().map_or(0.0, |(_, tag)| tag.smoothing) {
                0.0 => Labels::TokenClasses(targets),
                smoothing => Labels::SmoothedTokenClasses(targets, smoothing),
            }
        }
        Answer::Span(..) => {
            let spans = || {
                answers.iter().filter_map(|answer| match answer {
                    Answer::Span(start, end) => Some((*start, *end)),
                    _ => None,
                })
            };
            Labels::Spans(SpanTargets {
                starts: spans().map(|span| Some(span.0)).collect(),
                ends: spans().map(|span| Some(span.1)).collect(),
            })
        }
    })
}

/// Factor on the loss of a micro-batch with these answers in a step of weight `total`.
pub(super) fn share(answers: &[Answer], total: f64) -> f64 {
    match answers.first() {
        Some(first) if !first.weighs() => answers.len() as f64 / total.max(1.0),
        _ => 1.0,
    }
}

impl Answer {
    fn class(&self) -> Option<Weighted> {
        match self {
            Self::Class(class) => Some(*class),
            _ => None,
        }
    }
}
