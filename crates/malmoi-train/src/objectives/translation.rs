//! Translation language modelling (Conneau and Lample 2019): a sentence and its translation in one sequence.

/// One packed sentence pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranslationPair {
    /// `</s> source </s> </s> target </s>`.
    pub ids: Vec<u32>,
    /// Positions, counted anew from the target's first token.
    pub positions: Vec<u32>,
    /// Language id of every token.
    pub languages: Vec<u32>,
}

/// Packs a sentence and its translation, each with its language id.
pub fn pack(source: (&[u32], u32), target: (&[u32], u32), end_id: u32) -> TranslationPair {
    let mut pair = TranslationPair {
        ids: Vec::new(),
        positions: Vec::new(),
        languages: Vec::new(),
    };
    for (tokens, language) in [source, target] {
        pair.ids.push(end_id);
        pair.ids.extend(tokens);
        pair.ids.push(end_id);
        pair.positions.extend(0..tokens.len() as u32 + 2);
        pair.languages.resize(pair.ids.len(), language);
    }
    pair
}
