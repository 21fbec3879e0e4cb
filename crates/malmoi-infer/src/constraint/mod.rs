//! Output that follows a grammar: a JSON schema or a regular expression, checked token by token.
//!
//! The grammar's parser says before every token which ones may follow; the others get the logit minus infinity, so that every way
//! of choosing obeys. The end token is allowed where the text is complete.

mod expression;

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use malmoi_text::Tokenizer;
use serde_json::json;

use crate::InferError;
use expression::Expression;

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
    way: Way,
}

enum Way {
    Grammar(Box<Matcher>),
    Expression(Box<Expression>, TokEnv),
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").finish_non_exhaustive()
    }
}

fn failed(error: impl std::fmt::Display) -> InferError {
    InferError::Constraint(error.to_string())
}

/// JSON without white space between its parts: a model that likes spaces would write them without end.
fn compact(mut schema: serde_json::Value) -> TopLevelGrammar {
    if let Some(object) = schema.as_object_mut() {
        object.insert("x-guidance".into(), json!({"whitespace_flexible": false}));
    }
    TopLevelGrammar::from_json_schema(schema)
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
        let parsed = |text: &str| serde_json::from_str(text).map_err(failed);
        let grammar = match shape {
            Shape::Regex(pattern) => {
                let expression = Expression::new(pattern).map_err(failed)?;
                let environment = self.factory.tok_env().clone();
                return Ok(Constraint {
                    way: Way::Expression(Box::new(expression), environment),
                });
            }
            Shape::JsonSchema(schema) => compact(parsed(schema)?),
            Shape::JsonObject => compact(parsed(r#"{"type": "object"}"#)?),
        };
        let parser = self.factory.create_parser(grammar).map_err(failed)?;
        Ok(Constraint {
            way: Way::Grammar(Box::new(Matcher::new(Ok(parser)))),
        })
    }
}

impl Constraint {
    /// Removes every token (logit minus infinity) that may not come next.
    ///
    /// # Errors
    /// [`InferError::Constraint`] when the grammar grows beyond the parser's bounds.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), InferError> {
        let allowed = match &mut self.way {
            Way::Grammar(matcher) => matcher.compute_mask_or_eos().map_err(failed)?,
            Way::Expression(expression, environment) => {
                expression.allowed(environment.tok_trie()).map_err(failed)?
            }
        };
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
        match &mut self.way {
            Way::Grammar(matcher) => matcher.consume_token(token).map_err(failed),
            Way::Expression(expression, environment) => {
                let trie = environment.tok_trie();
                match token == trie.eos_token() {
                    true => Ok(()),
                    false => expression.advance(trie.token(token)).map_err(failed),
                }
            }
        }
    }

    /// Whether nothing but the end can follow.
    pub fn is_complete(&mut self) -> bool {
        match &mut self.way {
            Way::Grammar(matcher) => matcher.is_stopped(),
            Way::Expression(expression, _) => expression.is_complete(),
        }
    }
}

#[cfg(test)]
mod tests {
    use malmoi_text::{Algorithm, TrainOptions, train_from_iter};

    use super::*;

    fn tokenizer() -> Tokenizer {
        let lines = [
            "{\"이름\": \"말모이\", \"수\": 12}",
            "낱말 345 678",
            "abc 90",
        ];
        let lines = lines.iter().map(|line| Ok(line.to_string()));
        let options = TrainOptions::new(Algorithm::Bpe, 320);
        train_from_iter(lines, &options, &mut |_| {})
            .unwrap()
            .tokenizer
    }

    /// Follows a shape, taking at each place the allowed token with the largest of some fixed values.
    fn written(shape: &Shape, prefer: impl Fn(u32) -> f32) -> String {
        let tokenizer = tokenizer();
        let size = tokenizer.vocab_size();
        let grammars = Grammars::new(&tokenizer, size).unwrap();
        let mut constraint = grammars.constraint(shape).unwrap();
        let mut ids = Vec::new();
        while !constraint.is_complete() && ids.len() < 200 {
            let mut logits: Vec<f32> = (0..size as u32).map(&prefer).collect();
            constraint.mask(&mut logits).unwrap();
            let best = (0..size)
                .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
                .unwrap() as u32;
            assert!(logits[best as usize] > f32::NEG_INFINITY);
            constraint.advance(best).unwrap();
            ids.push(best);
        }
        tokenizer.decode(&ids, true).unwrap()
    }

    #[test]
    fn every_text_matches_its_expression() {
        let shape = Shape::Regex("(말|모이)-[0-9]{3}".into());
        let pattern = |text: &str| {
            let rest = text
                .strip_prefix("말-")
                .or_else(|| text.strip_prefix("모이-"));
            rest.is_some_and(|rest| rest.len() == 3 && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        for seed in 0..8u32 {
            let text = written(&shape, |id| ((id * 37 + seed * 101) % 211) as f32);
            assert!(pattern(&text), "{text:?}");
        }
    }

    #[test]
    fn every_text_is_json_of_its_schema() {
        let schema = r#"{"type": "object", "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 2]}},
            "required": ["ok", "n"], "additionalProperties": false}"#;
        for seed in 0..4u32 {
            let text = written(&Shape::JsonSchema(schema.into()), |id| {
                ((id * 53 + seed * 17) % 199) as f32
            });
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(value["ok"].is_boolean() && value["n"].as_u64().is_some_and(|n| n < 3));
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        let tokenizer = tokenizer();
        let grammars = Grammars::new(&tokenizer, tokenizer.vocab_size()).unwrap();
        assert!(grammars.constraint(&Shape::Regex("(".into())).is_err());
        assert!(
            grammars
                .constraint(&Shape::Regex("a".repeat(5000)))
                .is_err()
        );
        assert!(grammars.constraint(&Shape::JsonSchema("{".into())).is_err());
        let options = TrainOptions::new(Algorithm::WordPiece, 60);
        let lines = ["가 나 다"].iter().map(|line| Ok(line.to_string()));
        let words = train_from_iter(lines, &options, &mut |_| {})
            .unwrap()
            .tokenizer;
        assert!(Grammars::new(&words, words.vocab_size()).is_err());
    }
}
