//! Running texts: the next token of each, guessed ones checked with it, and beams.

use malmoi_models::{Model, PackedBatch};

use crate::InferError;
use crate::constraint::Constraint;
use crate::generate::{FinishReason, Flow, log_probability};
use crate::sampling::History;

use super::{Choice, Drafting, Engine, Event, Row, StepReport, Writing, look_up};

impl Engine<'_> {
    /// Gives each text of a group its next token, or as many as were guessed right.
    pub(super) fn write(&mut self, index: usize, report: &mut StepReport) {
        let vocab_size = self.model.config().vocab_size();
        let group = &mut self.groups[index];
        // Guesses are rows of the common pass as well.
        let mut spare = self.alike.saturating_sub(group.rows.len());
        let mut sequences = Vec::with_capacity(group.rows.len());
        let mut positions = Vec::new();
        for row in &mut group.rows {
            let positions_left =
                (self.model.config().position_limit()).saturating_sub(row.ids.len());
            let most = spare.min(positions_left);
            // A draft model that fails costs guesses, not the text.
            let guesses = row.guesses(self.draft, most).unwrap_or_default();
            spare -= guesses.len();
            report.guessed += guesses.len();
            let first = row.ids.len() as u32 - 1;
            positions.extend(first..=first + guesses.len() as u32);
            let last = row.ids[row.ids.len() - 1];
            sequences.push([&[last][..], &guesses].concat());
        }
        let batch = PackedBatch::from_sequences(&sequences).with_positions(positions);
        let all: Vec<u32> = (0..batch.n_tokens() as u32).collect();
        let logits = match self.model.advance(&batch, &mut group.cache, &all) {
            Ok(logits) => logits,
            Err(_) => {
                // Ids and lengths were checked when the texts came in.
                for mut row in group.rows.drain(..) {
                    row.request.sink.event(Event::Lost);
                }
                return;
            }
        };
        let mut kept = Vec::with_capacity(group.rows.len());
        let mut rows = Vec::with_capacity(group.rows.len());
        let mut done = Vec::new();
        let mut first = 0;
        for (at, (mut row, sequence)) in (group.rows.drain(..).zip(&sequences)).enumerate() {
            let mut goes_on = true;
            for (i, _) in sequence.iter().enumerate() {
                let logits = &logits[(first + i) * vocab_size..(first + i + 1) * vocab_size];
                let Some(token) = choose(self.model, &mut row, logits, report) else {
                    goes_on = false;
                    break;
                };
                // The next logits hold only if the guess was right.
                match sequence.get(i + 1) {
                    Some(&guess) if guess == token => report.accepted += 1,
                    _ => break,
                }
            }
            first += sequence.len();
            group.cache.truncate(at, row.ids.len() - 1);
            if goes_on {
                kept.push(at);
                rows.push(row);
            } else {
                done.push((at, row));
            }
        }
        group.rows = rows;
        for (at, row) in &done {
            if let Some((ids, cache)) = self.prefix_of(row, &self.groups[index].cache, *at) {
                self.keep_prefix(&ids, cache);
            }
        }
        self.groups[index].cache.select(&kept);
    }

    /// One step of every beam search.
    pub(super) fn search(&mut self, report: &mut StepReport) {
        let mut going = Vec::with_capacity(self.beams.len());
        for mut beams in self.beams.drain(..) {
            report.new_tokens += 1;
            match beams.search.step(self.model) {
                Ok(true) => going.push(beams),
                Ok(false) => {
                    let found = beams.search.finish().pop().unwrap_or_default();
                    beams.request.sink.event(Event::Found(found));
                }
                Err(error) => {
                    beams.request.sink.event(Event::Failed(error));
                }
            }
        }
        self.beams = going;
    }
}

impl Row {
    /// Tokens that may come next, at most `spare`; only where the most probable one will be taken.
    fn guesses(&mut self, draft: Option<&Model>, spare: usize) -> Result<Vec<u32>, InferError> {
        let greedy = matches!(&self.request.writing, Writing::Tokens(s) if !s.do_sample);
        let left = (self.request.max_new_tokens + self.prompt_len).saturating_sub(self.ids.len());
        // The last token needs no guess behind it.
        let most = spare.min(left.saturating_sub(1));
        if !greedy || most == 0 || self.request.constraint.is_some() {
            return Ok(Vec::new());
        }
        match self.request.drafting {
            Drafting::Off => Ok(Vec::new()),
            Drafting::LookUp { tokens } => Ok(look_up(&self.ids, tokens.min(most))),
            Drafting::Model { tokens } => match (draft, &mut self.draft) {
                (Some(draft), Some(cache)) => cache.guess(draft, &self.ids, tokens.min(most)),
                _ => Ok(Vec::new()),
            },
        }
    }
}

/// Chooses a row's next token from its logits (`[V]`) and tells its sink; the token when the text goes on.
pub(super) fn choose(
    model: &Model,
    row: &mut Row,
    logits: &[f32],
    report: &mut StepReport,
) -> Option<u32> {
    let history = History {
        ids: &row.ids,
        prompt_len: row.prompt_len,
    };
    let request = &mut row.request;
    let chosen = match &mut request.constraint {
        None => (row.sampler.choose(logits, &history, request.stream)).map_err(InferError::from),
        Some(constraint) => {
            let mut allowed = logits.to_vec();
            constraint.mask(&mut allowed).and_then(|()| {
                let token = row.sampler.choose(&allowed, &history, request.stream)?;
                constraint.advance(token)?;
                Ok(token)
            })
        }
    };
    let token = match chosen {
        Ok(token) => token,
        Err(error) => {
            request.sink.event(Event::Failed(error));
            return None;
        }
    };
    report.new_tokens += 1;
    let choice = Choice {
        token,
        log_probability: (request.top.is_some()).then(|| log_probability(logits, token)),
        top: match request.top {
            None | Some(0) => Vec::new(),
            Some(k) => crate::fill_mask::top(logits, k, &[]),
        },
    };
    row.ids.push(token);
    let flow = request.sink.event(Event::Token(choice));
    let written = row.ids.len() - row.prompt_len;
    let complete = |constraint: &mut Constraint| constraint.is_complete();
    let reason = if flow == Flow::Cancel {
        Some(FinishReason::Cancelled)
    } else if flow == Flow::Stop
        || request.end_ids.contains(&token)
        || request.constraint.as_mut().is_some_and(complete)
    {
        Some(FinishReason::Stop)
    } else if written >= request.max_new_tokens || row.ids.len() >= model.config().position_limit()
    {
        Some(FinishReason::Length)
    } else {
        None
    };
    match reason {
        None => Some(token),
        Some(reason) => {
            request.sink.event(Event::Finished(reason));
            None
        }
    }
}
