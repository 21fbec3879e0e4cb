//! Regular expressions over the bytes of a text, one state a byte.

use llguidance::derivre::{NextByte, Regex, StateID};
use llguidance::toktrie::{Recognizer, SimpleVob, TokTrie};

/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 4096;
/// Bound on the expression's states, in bytes of its tables. Patterns with nested counts can have states without end.
const MAX_TABLES: usize = 64 << 20;

/// Where a text stands in an expression that all of it matches.
pub(super) struct Expression {
    regex: Regex,
    state: StateID,
    /// States behind the bytes that the walk over the vocabulary has pushed.
    walked: Vec<StateID>,
}

impl Expression {
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN {
            return Err(format!(
                "the expression has {} bytes, at most {MAX_PATTERN} are read",
                pattern.len()
            ));
        }
        let mut regex = Regex::new(pattern).map_err(|error| error.to_string())?;
        let state = regex.initial_state();
        if state.is_dead() {
            return Err("no text matches the expression".into());
        }
        Ok(Self {
            regex,
            state,
            walked: Vec::new(),
        })
    }

    /// The tokens that may come next.
    pub(super) fn allowed(&mut self, trie: &TokTrie) -> Result<SimpleVob, String> {
        let mut allowed = trie.alloc_token_set();
        self.walked.clear();
        trie.add_bias(self, &mut allowed, &[]);
        if self.regex.num_bytes() > MAX_TABLES {
            return Err("the expression has too many states: write it simpler".into());
        }
        if self.regex.is_accepting(self.state) {
            allowed.allow_token(trie.eos_token());
        }
        Ok(allowed)
    }

    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.state = self.regex.transition_bytes(self.state, bytes);
        match self.state.is_dead() {
            true => Err("a token that the expression does not allow".into()),
            false => Ok(()),
        }
    }

    pub(super) fn is_complete(&mut self) -> bool {
        self.regex.next_byte(self.state) == NextByte::ForcedEOI
    }
}

impl Recognizer for Expression {
    fn pop_bytes(&mut self, count: usize) {
        self.walked.truncate(self.walked.len() - count);
    }

    fn collapse(&mut self) {}

    fn trie_finished(&mut self) {
        self.walked.clear();
    }

    fn byte_allowed(&mut self, byte: u8) -> bool {
        let state = self.walked.last().copied().unwrap_or(self.state);
        !self.regex.transition(state, byte).is_dead()
    }

    fn try_push_byte(&mut self, byte: u8) -> bool {
        let state = self.walked.last().copied().unwrap_or(self.state);
        let next = self.regex.transition(state, byte);
        if !next.is_dead() {
            self.walked.push(next);
        }
        !next.is_dead()
    }

    fn get_error(&mut self) -> Option<String> {
        None
    }
}
