//! Output that follows a grammar: a JSON schema or a regular expression, checked token by token.
//!
//! The grammar's parser says before every token which ones may follow; the others get the logit minus infinity, so that every way
//! of choosing obeys. The end token is allowed where the text is complete.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use malmoi_text::Tokenizer;

use crate::InferError;

/// What a text must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// The whole text matches this regular expression.
    Regex(String),
    /// The whole text is JSON that this schema (as JSON text) accepts.
    JsonSchema(String),
    /// The whole text is a JSON object.
    JsonObject,
}

/// Makes constraints for one tokenizer. Building it walks the vocabulary once.
#[derive(Clone)]
pub struct Grammars {
    factory: Arc<ParserFactory>,
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

/// Where a text stands in its grammar.
pub struct Constraint {
    matcher: Matcher,
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").finish_non_exhaustive()
    }
}

fn failed(error: impl std::fmt::Display) -> InferError {
    InferError::Constraint(error.to_string())
}

impl Grammars {
    /// Prepares a tokenizer whose tokens stand for fixed bytes; `vocab_size` is the model's.
    ///
    /// # Errors
    /// [`InferError::Constraint`] for a tokenizer whose tokens look different beside others, or without an end token.
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize) -> Result<Self, InferError> {
        let end = tokenizer.special().eos.ok_or_else(|| {
            failed("this tokenizer has no end token, with which constrained text would end")
        })?;
        let mut fixed = 0;
        let words: Vec<Vec<u8>> = (0..vocab_size as u32)
            .map(|id| match tokenizer.token_bytes(id) {
                Some(bytes) => {
                    fixed += 1;
                    bytes
                }
                // The trie's mark of tokens that no text can produce.
                None => [b"\xff", format!("[{id}]").as_bytes()].concat(),
            })
            .collect();
        if fixed == 0 {
            return Err(failed(format!(
                "constrained output needs a byte-level BPE or SentencePiece tokenizer, but this one is {}",
                tokenizer.kind()
            )));
        }
        let info = TokRxInfo::new(vocab_size as u32, end);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        let mut factory = ParserFactory::new_simple(&environment).map_err(failed)?;
        factory.quiet();
        Ok(Self {
            factory: Arc::new(factory),
        })
    }

    /// The beginning of a text of this shape.
    ///
    /// # Errors
    /// [`InferError::Constraint`] for a pattern or schema that cannot be used.
    pub fn constraint(&self, shape: &Shape) -> Result<Constraint, InferError> {
        let json = |text: &str| serde_json::from_str(text).map_err(failed);
        let grammar = match shape {
            Shape::Regex(pattern) => TopLevelGrammar::from_regex(pattern),
            Shape::JsonSchema(schema) => TopLevelGrammar::from_json_schema(json(schema)?),
            Shape::JsonObject => TopLevelGrammar::from_json_schema(json(r#"{"type": "object"}"#)?),
        };
        let parser = self.factory.create_parser(grammar).map_err(failed)?;
        Ok(Constraint {
            matcher: Matcher::new(Ok(parser)),
        })
    }
}

impl Constraint {
    /// Removes every token (logit minus infinity) that may not come next.
    ///
    /// # Errors
    /// [`InferError::Constraint`] when the grammar grows beyond the parser's bounds.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), InferError> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(failed)?;
        for (id, logit) in logits.iter_mut().enumerate() {
            if !allowed.is_allowed(id as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// [`InferError::Constraint`] for a token that was not allowed.
    pub fn advance(&mut self, token: u32) -> Result<(), InferError> {
        self.matcher.consume_token(token).map_err(failed)
    }

    /// Whether nothing but the end can follow.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }
}
