//! The Hangul doctor: how a tokenizer treats a text, and what to do about it.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::Serialize;

use crate::error::Result;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// Lines looked at together; memory does not grow with the text.
const BATCH: usize = 2_048;
/// The histogram's last slot holds every eojeol with this many tokens or more.
const LAST_SLOT: usize = 10;
/// Distinct difficult words that are remembered.
const WORD_LIMIT: usize = 200_000;
/// Words, and failures, that are listed.
const LISTED: usize = 20;
/// An eojeol with this many tokens is worth listing: Korean WordPiece and unigram vocabularies need about two.
const MANY: usize = 5;

/// What the doctor found. Rates are shares between 0 and 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InspectReport {
    /// Lines with text.
    pub lines: u64,
    /// Code points, white space left out.
    pub characters: u64,
    /// Words between white space.
    pub eojeols: u64,
    /// Tokens, without special ones.
    pub tokens: u64,
    /// Unknown tokens.
    pub unknown: u64,
    /// `unknown / tokens`.
    pub unknown_rate: f64,
    /// Eojeols with an unknown token, as a share of all.
    pub unknown_eojeol_rate: f64,
    /// Tokens for one eojeol, on average.
    pub tokens_per_eojeol: f64,
    /// Tokens for one character, on average.
    pub tokens_per_character: f64,
    /// How many eojeols have 0, 1, 2 … tokens; the last entry counts 10 and more.
    pub fertility: Vec<u64>,
    /// Lines with decomposed Hangul (conjoining jamo, as file names from macOS have them).
    pub nfd_lines: u64,
    /// Conjoining jamo in them.
    pub nfd_characters: u64,
    /// Compatibility jamo such as `ㅋ` and `ㅠ`.
    pub compatibility_jamo: u64,
    /// True when the tokenizer composes decomposed Hangul.
    pub composes_hangul: bool,
    /// True when the tokenizer takes syllables apart, as accent stripping without composition does.
    pub decomposes_hangul: bool,
    /// True when compatibility jamo stay what they are.
    pub keeps_compatibility_jamo: bool,
    /// Lines without an unknown token whose characters do not come back when decoded.
    pub round_trip_failures: u64,
    /// Some of them.
    pub round_trip_examples: Vec<String>,
    /// The words that cost most: unknown ones first, then those with the most tokens; the frequent before the rare.
    pub worst_words: Vec<WordReport>,
    /// What to do.
    pub suggestions: Vec<String>,
}

/// A difficult word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WordReport {
    /// The word, as it stands in the text.
    pub word: String,
    /// How often it occurs.
    pub count: u64,
    /// Its tokens.
    pub tokens: Vec<String>,
    /// How many of them are unknown.
    pub unknown: usize,
}

/// Inspects how `tokenizer` encodes lines of text.
///
/// # Errors
/// The first error of the lines, or of encoding one.
pub fn inspect(
    tokenizer: &Tokenizer,
    lines: impl Iterator<Item = Result<String>>,
) -> Result<InspectReport> {
    let mut sums = Sums::default();
    let mut words: HashMap<String, WordReport> = HashMap::new();
    let mut lines = lines;
    loop {
        let batch: Vec<String> = lines.by_ref().take(BATCH).collect::<Result<_>>()?;
        if batch.is_empty() {
            break;
        }
        let looked: Vec<Result<Line>> =
            batch.par_iter().map(|line| look(tokenizer, line)).collect();
        for (text, line) in batch.into_iter().zip(looked) {
            sums.add(text, line?, &mut words);
        }
    }
    Ok(sums.report(tokenizer, words))
}

/// What one line gives.
#[derive(Default)]
struct Line {
    characters: u64,
    tokens: u64,
    unknown: u64,
    unknown_eojeols: u64,
    fertility: Vec<usize>,
    conjoining: u64,
    compatibility: u64,
    failed: bool,
    difficult: Vec<WordReport>,
}

fn is_conjoining(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11ff}' | '\u{a960}'..='\u{a97f}' | '\u{d7b0}'..='\u{d7ff}')
}

fn is_compatibility_jamo(c: char) -> bool {
    matches!(c, '\u{3131}'..='\u{318e}')
}

fn look(tokenizer: &Tokenizer, text: &str) -> Result<Line> {
    let encoding = tokenizer.encode(text, None, &EncodeOptions::plain())?;
    let unknown_id = tokenizer.special().unk;
    let mut line = Line::default();
    let spaces = |c: char| c.is_whitespace();
    for c in text.chars() {
        line.characters += u64::from(!spaces(c));
        line.conjoining += u64::from(is_conjoining(c));
        line.compatibility += u64::from(is_compatibility_jamo(c));
    }
    line.tokens = encoding.len() as u64;
    // Eojeols as byte ranges; each token belongs to the one in which it ends (its beginning may be the space before).
    let mut eojeols: Vec<(std::ops::Range<usize>, Vec<usize>)> = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (start, spaces(c)) {
            (None, false) => start = Some(at),
            (Some(from), true) => {
                eojeols.push((from..at, Vec::new()));
                start = None;
            }
            _ => {}
        }
    }
    for (index, (&(_, end), &id)) in encoding.byte_offsets.iter().zip(&encoding.ids).enumerate() {
        line.unknown += u64::from(Some(id) == unknown_id);
        let after = eojeols.partition_point(|(range, _)| range.start < end);
        if let Some((_, tokens)) = after.checked_sub(1).and_then(|i| eojeols.get_mut(i)) {
            tokens.push(index);
        }
    }
    for (range, tokens) in eojeols {
        let unknown = tokens
            .iter()
            .filter(|&&index| Some(encoding.ids[index]) == unknown_id)
            .count();
        line.fertility.push(tokens.len());
        line.unknown_eojeols += u64::from(unknown > 0);
        if unknown > 0 || tokens.len() >= MANY {
            line.difficult.push(WordReport {
                word: text[range].to_owned(),
                count: 1,
                tokens: tokens.iter().map(|&i| encoding.tokens[i].clone()).collect(),
                unknown,
            });
        }
    }
    if line.unknown == 0 {
        let visible = |text: &str| -> String {
            text.chars()
                .filter(|&c| !c.is_whitespace() && c != '\u{2581}')
                .collect()
        };
        let back = tokenizer.decode(&encoding.ids, false)?;
        line.failed = visible(&back) != visible(&tokenizer.normalize(text)?);
    }
    Ok(line)
}

#[derive(Default)]
struct Sums {
    lines: u64,
    characters: u64,
    eojeols: u64,
    tokens: u64,
    unknown: u64,
    unknown_eojeols: u64,
    fertility: [u64; LAST_SLOT + 1],
    nfd_lines: u64,
    nfd_characters: u64,
    compatibility: u64,
    failures: u64,
    examples: Vec<String>,
}

impl Sums {
    fn add(&mut self, text: String, line: Line, words: &mut HashMap<String, WordReport>) {
        if line.characters == 0 {
            return;
        }
        self.lines += 1;
        self.characters += line.characters;
        self.eojeols += line.fertility.len() as u64;
        self.tokens += line.tokens;
        self.unknown += line.unknown;
        self.unknown_eojeols += line.unknown_eojeols;
        for tokens in line.fertility {
            self.fertility[tokens.min(LAST_SLOT)] += 1;
        }
        self.nfd_lines += u64::from(line.conjoining > 0);
        self.nfd_characters += line.conjoining;
        self.compatibility += line.compatibility;
        if line.failed {
            self.failures += 1;
            if self.examples.len() < LISTED {
                self.examples.push(text);
            }
        }
        for word in line.difficult {
            if let Some(known) = words.get_mut(&word.word) {
                known.count += 1;
            } else if words.len() < WORD_LIMIT {
                words.insert(word.word.clone(), word);
            }
        }
    }

    fn report(self, tokenizer: &Tokenizer, words: HashMap<String, WordReport>) -> InspectReport {
        let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        let mut worst: Vec<WordReport> = words.into_values().collect();
        worst.sort_by(|a, b| {
            let cost =
                |word: &WordReport| (word.unknown > 0, word.count * word.tokens.len() as u64);
            cost(b).cmp(&cost(a)).then_with(|| a.word.cmp(&b.word))
        });
        worst.truncate(LISTED);
        let normalized = |text: &str| tokenizer.normalize(text).unwrap_or_default();
        // U+1112 U+1161 U+11AB is the decomposed form of 한.
        let composes = normalized("\u{1112}\u{1161}\u{11ab}").contains('한');
        let mut report = InspectReport {
            lines: self.lines,
            characters: self.characters,
            eojeols: self.eojeols,
            tokens: self.tokens,
            unknown: self.unknown,
            unknown_rate: ratio(self.unknown, self.tokens),
            unknown_eojeol_rate: ratio(self.unknown_eojeols, self.eojeols),
            tokens_per_eojeol: ratio(self.tokens, self.eojeols),
            tokens_per_character: ratio(self.tokens, self.characters),
            fertility: self.fertility.to_vec(),
            nfd_lines: self.nfd_lines,
            nfd_characters: self.nfd_characters,
            compatibility_jamo: self.compatibility,
            composes_hangul: composes,
            decomposes_hangul: normalized("한").chars().any(is_conjoining),
            keeps_compatibility_jamo: normalized("ㅋㅠ").contains("ㅋㅠ"),
            round_trip_failures: self.failures,
            round_trip_examples: self.examples,
            worst_words: worst,
            suggestions: Vec::new(),
        };
        report.suggestions = report.suggest();
        report
    }
}

impl InspectReport {
    fn suggest(&self) -> Vec<String> {
        let mut list = Vec::new();
        let percent = |share: f64| 100.0 * share;
        if self.lines == 0 {
            return vec!["The file holds no text.".into()];
        }
        if self.decomposes_hangul {
            list.push(
                "This tokenizer takes Hangul syllables apart (accent stripping without composition): turn strip_accents \
                 off, or train one with the Hangul-safe normaliser."
                    .into(),
            );
        }
        if self.nfd_lines > 0 && !self.composes_hangul {
            list.push(format!(
                "{} lines hold decomposed Hangul (NFD) and this tokenizer does not compose it: convert the text to NFC.",
                self.nfd_lines
            ));
        }
        if self.compatibility_jamo > 0 && !self.keeps_compatibility_jamo {
            list.push(
                "Jamo such as ㅋ and ㅠ are turned into other characters (NFKC): use NFC instead."
                    .into(),
            );
        }
        // One unknown word in a hundred is what a masked model starts to feel; ten is a vocabulary for another language.
        if self.unknown_eojeol_rate > 0.1 {
            list.push(format!(
                "{:.1} % of the words hold unknown tokens: this vocabulary was not made for such text; train one on it.",
                percent(self.unknown_eojeol_rate)
            ));
        } else if self.unknown_eojeol_rate > 0.01 {
            list.push(format!(
                "{:.1} % of the words hold unknown tokens: train with more characters (limit_alphabet), or choose bpe or \
                 unigram with byte_fallback, which know every character.",
                percent(self.unknown_eojeol_rate)
            ));
        }
        // A syllable is a character here: more tokens than characters means bytes or jamo.
        if self.tokens_per_character > 1.0 {
            list.push(format!(
                "{:.2} tokens for each character: words are cut finer than syllables; sequences get long, and a vocabulary \
                 trained on Korean needs about a third of that.",
                self.tokens_per_character
            ));
        } else if self.tokens_per_eojeol > 3.5 {
            list.push(format!(
                "{:.2} tokens for each eojeol: a larger vocabulary, or one trained on such text, makes sequences shorter.",
                self.tokens_per_eojeol
            ));
        }
        if self.round_trip_failures > 0 {
            list.push(format!(
                "{} lines do not come back when decoded: fine for classification, not for generation.",
                self.round_trip_failures
            ));
        }
        if list.is_empty() {
            list.push("This tokenizer fits the text.".into());
        }
        list
    }
}
