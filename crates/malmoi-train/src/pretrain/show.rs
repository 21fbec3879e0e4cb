//! Training examples as the model sees them, for people.

use std::fmt::Write;
use std::path::Path;

use malmoi_text::Tokenizer;

use super::prepare::prepare;
use super::tokenizer::Scratch;
use crate::config::{Objective, PretrainConfig};
use crate::data::{Example, PairKind};
use crate::error::TrainError;
use crate::training::Observer;

/// Renders the first `n` training examples. `out` is the run directory, whose tokenizer and tokenised text are used where they
/// exist; otherwise they are made in a temporary directory.
///
/// Each piece is written as readable text. What is predicted stands in brackets: `[seen→target]`, so `[[MASK]→영화]` is a hidden
/// word, and `[가→영화]` one that was replaced. For causal models, whose every piece is predicted from those before it, the
/// text is shown with `│` between pieces, `¶` for a line end and `‖` where a sequence of its own begins. Byte-level pieces that
/// only together make a character are shown as that character with their number: `좋(2)`. For an encoder with a decoder, input and
/// target stand on a line each, with sentinels where spans are hidden.
///
/// # Errors
/// As [`super::run`] before its first step.
pub fn show(
    config: &PretrainConfig,
    out: Option<&Path>,
    n: u64,
    observer: &mut dyn Observer,
) -> Result<Vec<String>, TrainError> {
    config.validate()?;
    let scratch = Scratch::new("show")?;
    let dir = out
        .filter(|out| out.join("run.json").is_file())
        .unwrap_or(scratch.path());
    let prepared = prepare(config, dir, observer)?;
    (0..n)
        .map(|number| {
            let example = prepared.train.training(config.seed, number)?;
            let tokenizer = &prepared.tokenizer;
            Ok(match &config.objective {
                Objective::Clm(_) => causal(&example, tokenizer),
                Objective::Mlm(mlm) => {
                    masked(&example, pair_kind(&example, mlm.pairs()), tokenizer)
                }
                Objective::Rtd(_) => {
                    masked(&example, "; the generator fills what is hidden", tokenizer)
                }
                Objective::Tlm(_) => masked(&example, "", tokenizer),
                Objective::SpanCorruption(_)
                | Objective::Denoising(_)
                | Objective::Text2text(_) => text_to_text(&example, tokenizer),
            })
        })
        .collect()
}

/// A piece as text: Hangul instead of bytes, line ends as `¶`.
fn piece(tokenizer: &Tokenizer, id: u32) -> String {
    let written = tokenizer
        .id_to_token(id)
        .unwrap_or_else(|| format!("<{id}>"));
    if tokenizer.is_special(id) || written.starts_with("##") {
        return written;
    }
    let text = tokenizer.decode(&[id], false).unwrap_or_default();
    // A part of a character has no text of its own.
    let text = if text.is_empty() || text.contains('\u{FFFD}') {
        written
    } else {
        text
    };
    text.replace('\n', "¶")
}

/// What is to be said about the two segments.
fn pair_kind(example: &Example, kind: PairKind) -> &'static str {
    match (kind, example.next_sentence) {
        (PairKind::None, _) | (_, None) => "",
        (PairKind::NextSentence, Some(0)) => "; the second segment follows the first",
        (PairKind::NextSentence, Some(_)) => "; the second segment comes from another document",
        (PairKind::SentenceOrder, Some(0)) => "; the segments stand in their order",
        (PairKind::SentenceOrder, Some(_)) => "; the segments are swapped",
    }
}

/// Source and target of an encoder with a decoder; both as the model sees them, piece by piece.
fn text_to_text(example: &Example, tokenizer: &Tokenizer) -> String {
    // The start token is the decoder's own.
    let target = example.decoder.as_deref().unwrap_or_default();
    let target = target.get(1..).unwrap_or_default();
    let line = |ids: &[u32]| -> String {
        let pieces: Vec<String> = ids.iter().map(|&id| piece(tokenizer, id)).collect();
        pieces.join(" ")
    };
    format!(
        "{} tokens in, {} out\n    in:  {}\n    out: {}",
        example.ids.len(),
        target.len(),
        line(&example.ids),
        line(target)
    )
}

fn masked(example: &Example, kind: &str, tokenizer: &Tokenizer) -> String {
    let mut text = String::new();
    let mut targets = example.targets.iter().peekable();
    // Segments, or languages where the two texts are told apart by them, stand on lines of their own.
    let parts = example.segments.as_ref().or(example.languages.as_ref());
    let mut segment = 0;
    for (place, &id) in example.ids.iter().enumerate() {
        let now = parts.map_or(0, |parts| parts[place]);
        if place > 0 {
            text.push_str(if now == segment { " " } else { "\n    " });
        }
        segment = now;
        match targets.next_if(|target| target.0 == place) {
            // Writing to a String can't fail.
            Some(&(_, target)) => {
                let _ = write!(
                    text,
                    "[{}→{}]",
                    piece(tokenizer, id),
                    piece(tokenizer, target)
                );
            }
            None => text.push_str(&piece(tokenizer, id)),
        }
    }
    format!(
        "{} tokens, {} predicted{kind}\n    {text}",
        example.ids.len(),
        example.targets.len()
    )
}

fn causal(example: &Example, tokenizer: &Tokenizer) -> String {
    let mut text = String::new();
    let mut place = 0;
    while place < example.ids.len() {
        if place > 0 {
            let border = example.starts.contains(&place);
            text.push_str(if border { " ‖ " } else { "│" });
        }
        let (written, pieces) = readable(example, tokenizer, place);
        text.push_str(&written);
        if pieces > 1 {
            // Writing to a String can't fail.
            let _ = write!(text, "({pieces})");
        }
        place += pieces;
    }
    let last = example
        .targets
        .last()
        .map(|&(_, target)| piece(tokenizer, target))
        .unwrap_or_default();
    format!(
        "{} tokens in {} sequence{}, {} predicted, the last is [{last}]\n    {text}",
        example.ids.len(),
        example.starts.len(),
        if example.starts.len() == 1 { "" } else { "s" },
        example.targets.len()
    )
}

/// Most pieces that are joined to make a character readable: a character has at most four bytes, of which a piece holds one or more.
const MAX_JOINED: usize = 4;

/// The piece at `place` as text, joined with those after it when it ends in the middle of a character; and how many pieces that
/// took.
fn readable(example: &Example, tokenizer: &Tokenizer, place: usize) -> (String, usize) {
    let broken = |text: &str| text.contains('\u{FFFD}');
    let border = example.starts.iter().find(|&&start| start > place);
    let end = border.map_or(example.ids.len(), |&start| start);
    for pieces in 2..=MAX_JOINED.min(end - place) {
        let ids = &example.ids[place..place + pieces];
        let shorter = tokenizer.decode(&ids[..pieces - 1], false);
        if tokenizer.is_special(ids[pieces - 1]) || !shorter.is_ok_and(|text| broken(&text)) {
            break;
        }
        match tokenizer.decode(ids, false) {
            Ok(text) if !broken(&text) => return (text.replace('\n', "¶"), pieces),
            _ => {}
        }
    }
    (piece(tokenizer, example.ids[place]), 1)
}
