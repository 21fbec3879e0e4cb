//! Words made of sub-word tokens, for whole-word masking.

/// How a tokenizer marks that a token continues a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordScheme {
    /// A leading `##` continues (WordPiece).
    WordPiece,
    /// A token without a leading `Ġ` continues (byte-level BPE; `Ġ` stands for the space).
    ByteLevel,
    /// A token without a leading `▁` continues (SentencePiece).
    SentencePiece,
}

impl WordScheme {
    /// True when the token starts a word.
    pub fn starts_word(self, token: &str) -> bool {
        match self {
            Self::WordPiece => !token.starts_with("##"),
            Self::ByteLevel => token.starts_with('Ġ'),
            Self::SentencePiece => token.starts_with('▁'),
        }
    }
}

/// Positions of the tokens of each word, in order. `special[i]` marks tokens that belong to no word and end the one before them;
/// a token that continues nothing starts a word. Entries of `special` beyond the tokens are ignored, missing ones are false.
pub fn whole_word_groups<T: AsRef<str>>(
    scheme: WordScheme,
    tokens: &[T],
    special: &[bool],
) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut open = false;
    for (position, token) in tokens.iter().enumerate() {
        if special.get(position).copied().unwrap_or(false) {
            open = false;
            continue;
        }
        match groups.last_mut() {
            Some(word) if open && !scheme.starts_word(token.as_ref()) => word.push(position),
            _ => groups.push(vec![position]),
        }
        open = true;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_special_token_ends_a_word() {
        let tokens = ["a", "[SEP]", "##b", "##c"];
        let groups =
            whole_word_groups(WordScheme::WordPiece, &tokens, &[false, true, false, false]);
        assert_eq!(groups, [vec![0], vec![2, 3]]);
    }
}
