//! How an architecture is published: names, not numbers.

use crate::head::Head;

/// What the files of an architecture call things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The `model_type`.
    pub model_type: &'static str,
    /// Heads and the class names they are published under; the bare model first.
    pub heads: &'static [(Head, &'static str)],
    /// What files with a head put before the names of the base model.
    pub prefix: &'static str,
    /// Names that start with one of these carry no prefix: the heads.
    pub unprefixed: &'static [&'static str],
    /// Parameters of ours and the published tensors that repeat them where the projection is tied.
    pub tied: &'static [(&'static str, &'static str)],
    /// Ends of the names of tensors that no computation reads: buffers of old files, and copies.
    pub redundant: &'static [&'static str],
}

/// What published class names end in.
macro_rules! class_end {
    (None) => {
        "Model"
    };
    (MaskedLm) => {
        "ForMaskedLM"
    };
    (Pretraining) => {
        "ForPreTraining"
    };
    (ReplacedTokens) => {
        "ForPreTraining"
    };
    (NextSentence) => {
        "ForNextSentencePrediction"
    };
    (SequenceClassification) => {
        "ForSequenceClassification"
    };
    (TokenClassification) => {
        "ForTokenClassification"
    };
    (QuestionAnswering) => {
        "ForQuestionAnswering"
    };
    (MultipleChoice) => {
        "ForMultipleChoice"
    };
    (CausalLm) => {
        "ForCausalLM"
    };
    (Seq2SeqLm) => {
        "ForConditionalGeneration"
    };
    (EncoderOnly) => {
        "EncoderModel"
    };
    (DoubleHeads) => {
        "DoubleHeadsModel"
    };
    ($head:ident $end:literal) => {
        $end
    };
}

/// The heads of an architecture under the class names that begin with its name: `heads!("Bert": None, MaskedLm)`. An end that is not
/// the usual one stands in parentheses: `CausalLm("LMHeadModel")`.
macro_rules! heads {
    ($class:literal: $($head:ident $(($end:literal))?),+ $(,)?) => {
        &[$((
            $crate::head::Head::$head,
            concat!($class, $crate::published::class_end!($head $($end)?)),
        )),+]
    };
}

pub(crate) use {class_end, heads};
