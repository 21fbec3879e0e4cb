//! The heads that published checkpoints put on a base model, by the name in `architectures`.

/// What a model ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// The base model.
    None,
    /// Masked language modelling.
    MaskedLm,
    /// Masked language modelling and two classes of a pair of segments: next sentence (BERT), sentence order (ALBERT).
    Pretraining,
    /// Replaced-token detection (ELECTRA's discriminator).
    ReplacedTokens,
    /// Next-sentence prediction alone.
    NextSentence,
    /// One vector of logits a sequence: classes, values (regression) or independent labels.
    SequenceClassification,
    /// One vector of logits a token.
    TokenClassification,
    /// Start and end logits a token.
    QuestionAnswering,
    /// One logit a sequence, compared across the choices of an example.
    MultipleChoice,
    /// Causal language modelling.
    CausalLm,
    /// Causal language modelling and multiple choice (GPT-1).
    DoubleHeads,
    /// A target text predicted token by token from a source text (T5).
    Seq2SeqLm,
    /// The encoder of an encoder-decoder alone (T5).
    EncoderOnly,
}

impl Head {
    /// Whether it ends in logits over the vocabulary.
    pub fn has_vocabulary(self) -> bool {
        matches!(
            self,
            Self::MaskedLm
                | Self::Pretraining
                | Self::CausalLm
                | Self::DoubleHeads
                | Self::Seq2SeqLm
        )
    }
}

/// How the labels of a sequence classifier are read; `problem_type` in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemType {
    /// Exactly one class: softmax cross-entropy.
    SingleLabel,
    /// Any number of classes: binary cross-entropy.
    MultiLabel,
    /// Values: mean squared error.
    Regression,
}
