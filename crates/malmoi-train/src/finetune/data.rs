//! Cases of a task as training examples.

use malmoi_tasks::{Case, Layout, Sequence, Truth};

use crate::data::{Answer, Example, HeldExamples, Weighted};

/// How cases become examples.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExampleOptions {
    /// The token that a decoder behind an encoder begins with; without one, source and target are a single sequence, of which the target
    /// is predicted.
    pub start: Option<u32>,
    /// Weight of each class; 1 where there is none.
    pub class_weights: Vec<f32>,
    /// Share of a target's weight that all classes get alike.
    pub smoothing: f32,
    /// Weight of the language-model loss beside that of the task (Radford et al. 2018, equation 5).
    pub lm_weight: f32,
}

impl ExampleOptions {
    fn weighted(&self, class: u32) -> Weighted {
        Weighted {
            class,
            weight: self
                .class_weights
                .get(class as usize)
                .copied()
                .unwrap_or(1.0),
            smoothing: self.smoothing,
        }
    }
}

/// A case as examples: one, but for the windows of a question.
pub fn examples(case: &Case, options: &ExampleOptions) -> Vec<Example> {
    if let Some(Truth::Answers(_, spans)) = &case.truth {
        let windows = case.inputs.iter().zip(spans);
        let windows = windows.map(|(input, span)| Example {
            answer: Some(Answer::Span(span.0, span.1)),
            ..inputs(std::slice::from_ref(input))
        });
        return windows.collect();
    }
    let mut example = inputs(&case.inputs);
    match &case.truth {
        None | Some(Truth::Answers(..)) => {}
        Some(Truth::Class(class)) => {
            example.answer = Some(Answer::Class(options.weighted(*class)));
        }
        Some(Truth::Labels(flags)) => {
            let flags = flags.iter().map(|&flag| f32::from(u8::from(flag)));
            example.answer = Some(Answer::Labels(flags.collect()));
        }
        Some(Truth::Value(value)) => example.answer = Some(Answer::Value(*value as f32)),
        Some(Truth::Tags(tags)) => {
            let Layout::Tagged(tagged) = &case.layout else {
                unreachable!("a row with tags has units")
            };
            let counted = tagged.units.iter().zip(tags).filter(|(unit, _)| unit.first);
            let counted =
                counted.filter_map(|(unit, &tag)| Some((unit.token?, options.weighted(tag))));
            example.answer = Some(Answer::Tags(counted.collect()));
        }
        Some(Truth::Text(_, target)) if options.start.is_none() => {
            // The last token of the source predicts the first of the target; the last of the target predicts nothing.
            let first = example.ids.len().saturating_sub(1);
            example.targets = target
                .iter()
                .enumerate()
                .map(|(place, &token)| (first + place, token))
                .collect();
            let seen = target.len().saturating_sub(1);
            example.ids.extend(&target[..seen]);
            example.positions = (0..example.ids.len() as u32).collect();
        }
        Some(Truth::Text(_, target)) => {
            example.decoder = Some(options.start.iter().chain(target).copied().collect());
        }
    }
    if options.lm_weight > 0.0 && example.answer.is_some() {
        let ends = example.starts[1..]
            .iter()
            .copied()
            .chain([example.ids.len()]);
        let sequences = example.starts.iter().zip(ends);
        let targets = sequences.flat_map(|(&start, end)| start..end.saturating_sub(1));
        example.targets = targets.map(|at| (at, example.ids[at + 1])).collect();
        example.auxiliary = options.lm_weight;
    }
    vec![example]
}

/// Sequences as one example.
fn inputs(inputs: &[Sequence]) -> Example {
    let mut example = Example::default();
    let mut segments = Vec::new();
    for input in inputs {
        example.starts.push(example.ids.len());
        example.positions.extend(0..input.ids.len() as u32);
        example.ids.extend(&input.ids);
        segments.extend(&input.segments);
    }
    example.segments = segments
        .iter()
        .any(|&segment| segment > 0)
        .then_some(segments);
    example
}

/// Training examples of a data set.
pub(super) fn held(cases: &[Case], options: &ExampleOptions) -> HeldExamples {
    let each = cases.iter().flat_map(|case| examples(case, options));
    HeldExamples::new(each.collect())
}
