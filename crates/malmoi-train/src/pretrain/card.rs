//! The model card of a checkpoint.

use malmoi_checkpoint::ModelCard;
use malmoi_models::{Head, Model};

use crate::training::TrainerState;

/// The card of a model, from what the run knows about it.
pub(super) fn card(model: &Model, state: &TrainerState) -> String {
    let (tag, what) = match model.head() {
        Head::CausalLm => ("text-generation", "causal language modelling"),
        Head::ReplacedTokens => ("feature-extraction", "replaced-token detection"),
        Head::Seq2SeqLm => (
            "text2text-generation",
            "text to text, span corruption included where it was asked for",
        ),
        Head::Pretraining => (
            "fill-mask",
            "masked language modelling with next-sentence prediction",
        ),
        _ => ("fill-mask", "masked language modelling"),
    };
    let mut results = vec![
        ("Steps".to_string(), state.step.to_string()),
        ("Training tokens".to_string(), state.tokens.to_string()),
    ];
    if let Some(last) = &state.last_evaluation {
        let found = &last.found;
        for (name, value) in found.all() {
            results.push((format!("Validation {name}"), format!("{value:.4}")));
        }
    }
    ModelCard {
        name: format!("{} pretrained from scratch", model.config().architecture_name(model.head())),
        model_type: model.config().model_type().to_string(),
        parameters: Some(model.parameters().iter().map(|info| info.len() as u64).sum()),
        pipeline_tag: Some(tag.to_string()),
        paragraphs: vec![format!(
            "Objective: {what}. Seed {}. The folder also holds the optimiser's state, from which the run can be resumed.",
            state.seed
        )],
        results,
        ..ModelCard::default()
    }
    .render()
}
