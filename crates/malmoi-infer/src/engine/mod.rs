//! Generation for many at once: texts join and leave a running batch at every step.
//!
//! A step reads one piece of one prompt, so that a long prompt holds nobody up for long, and gives every running text its next
//! token in a common pass. What a text becomes depends on its own request and seed alone: prompts are cut at the same places
//! whoever else is there, the common pass has no more rows than a product gives the same bits as alone
//! ([`rows_alike`]), and draws are functions of seed, row and position. (Stated for f32.)
//!
//! Keys and values live in one slab a text, whose size is known when it joins; all together stay within a bound. What is left of
//! it holds the beginnings of earlier prompts, which later ones with the same beginning take over.

mod draft;
mod prefix;
mod request;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use malmoi_kernels::gemm::rows_alike;
use malmoi_models::{Direction, KvCache, Model, PackedBatch};

use crate::InferError;
use crate::beam::BeamSearch;
use crate::constraint::Constraint;
use crate::generate::{FinishReason, Flow, beginnings, check, log_probability};
use crate::sampling::{History, Sampler};

use draft::DraftCache;
pub use draft::{Drafting, look_up};
use prefix::Prefixes;
pub use request::{Choice, Event, Request, Sink, Writing};

/// Bounds of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Texts that run at the same time.
    pub rows: usize,
    /// Bytes of keys and values of all of them, and of remembered beginnings.
    pub cache_bytes: usize,
    /// Tokens of a prompt that are read in one step, and the unit in which beginnings are shared.
    pub prompt_piece: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        // Pieces of 128 tokens: products are near their full speed, and a step stays short.
        Self {
            rows: 32,
            cache_bytes: 1 << 30,
            prompt_piece: 128,
        }
    }
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepReport {
    /// Prompt tokens read.
    pub prompt_tokens: usize,
    /// Prompt tokens whose keys and values were remembered.
    pub reused_tokens: usize,
    /// Tokens written.
    pub new_tokens: usize,
    /// Tokens guessed, and how many of them were right.
    pub guessed: usize,
    /// Right guesses.
    pub accepted: usize,
}

/// A text at work.
struct Row {
    request: Request,
    /// Prompt (or a decoder's start token) and what was written.
    ids: Vec<u32>,
    prompt_len: usize,
    sampler: Sampler,
    bytes: usize,
    draft: Option<DraftCache>,
}

/// A text whose prompt is being read.
struct Reading {
    row: Row,
    cache: KvCache,
}

/// Texts that go through the model together.
struct Group {
    rows: Vec<Row>,
    cache: KvCache,
}

/// A beam search between steps.
struct Beams {
    request: Request,
    search: BeamSearch,
    bytes: usize,
}

/// Texts being written by one model.
pub struct Engine<'m> {
    model: &'m Model,
    draft: Option<&'m Model>,
    options: EngineOptions,
    waiting: VecDeque<Request>,
    reading: VecDeque<Reading>,
    groups: Vec<Group>,
    beams: Vec<Beams>,
    prefixes: Prefixes,
    alike: usize,
}

impl std::fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("waiting", &self.waiting.len())
            .field("active", &self.active())
            .finish_non_exhaustive()
    }
}

impl<'m> Engine<'m> {
    /// An engine without work. A draft model with another vocabulary is left alone.
    pub fn new(model: &'m Model, draft: Option<&'m Model>, options: EngineOptions) -> Self {
        let sizes = model.config().sizes();
        let widths = [sizes.d_model, sizes.d_ff, sizes.n_heads * sizes.d_head];
        let alike = widths.into_iter().map(rows_alike).min().unwrap_or(1);
        Self {
            model,
            draft: draft.filter(|draft| draft.config().vocab_size() == sizes.vocab_size),
            options,
            waiting: VecDeque::new(),
            reading: VecDeque::new(),
            groups: Vec::new(),
            beams: Vec::new(),
            prefixes: Prefixes::default(),
            alike,
        }
    }

    /// Queues a text. What is wrong with it, its sink hears.
    pub fn submit(&mut self, mut request: Request) {
        match self.refuse(&request) {
            Some(error) => {
                request.sink.event(Event::Failed(error));
            }
            None => self.waiting.push_back(request),
        }
    }

    /// Texts that wait for a place.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Texts at work.
    pub fn active(&self) -> usize {
        let running: usize = self.groups.iter().map(|group| group.rows.len()).sum();
        running + self.reading.len() + self.beams.len()
    }

    /// Whether nothing waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.active() == 0
    }

    /// Bytes of keys and values set aside for running texts, and held of earlier prompts.
    pub fn cache_bytes(&self) -> usize {
        self.reserved() + self.prefixes.bytes()
    }

    /// Gives up everything that runs; returns what has not begun.
    pub fn abandon(&mut self) -> Vec<Request> {
        let rows = (self.groups.drain(..).flat_map(|group| group.rows))
            .chain(self.reading.drain(..).map(|reading| reading.row));
        let requests = rows.map(|row| row.request);
        let beams = self.beams.drain(..).map(|beams| beams.request);
        for mut request in requests.chain(beams) {
            request.sink.event(Event::Lost);
        }
        self.prefixes = Prefixes::default();
        self.waiting.drain(..).collect()
    }

    /// Reads a piece of a prompt and gives every running text its next token.
    pub fn step(&mut self) -> StepReport {
        let mut report = StepReport::default();
        self.drop_unwanted();
        self.admit(&mut report);
        self.read(&mut report);
        for index in 0..self.groups.len() {
            self.write(index, &mut report);
        }
        self.groups.retain(|group| !group.rows.is_empty());
        self.search(&mut report);
        report
    }

    fn reserved(&self) -> usize {
        let rows = self.groups.iter().flat_map(|group| &group.rows);
        let rows = rows.chain(self.reading.iter().map(|reading| &reading.row));
        let beams = self.beams.iter().map(|beams| beams.bytes);
        rows.map(|row| row.bytes).chain(beams).sum()
    }

    /// Bytes of keys and values of one token.
    fn token_bytes(&self) -> usize {
        let sizes = self.model.config().sizes();
        2 * size_of::<f32>() * sizes.n_layers * sizes.n_kv_heads * sizes.d_head
    }

    /// Tokens that a text may have, prompt included.
    fn room(&self, request: &Request) -> usize {
        let prompt = match self.model.config().decoder_start() {
            Some(_) => 1,
            None => request.prompt.len(),
        };
        (prompt + request.max_new_tokens).min(self.model.config().position_limit())
    }

    fn need(&self, request: &Request) -> usize {
        let source = match self.model.config().direction() {
            Direction::EncoderDecoder => request.prompt.len(),
            _ => 0,
        };
        let beams = match &request.writing {
            Writing::Beams(options) => options.num_beams,
            Writing::Tokens(_) => 1,
        };
        (self.room(request) * beams + source) * self.token_bytes()
    }

    fn refuse(&self, request: &Request) -> Option<InferError> {
        let prompts = std::slice::from_ref(&request.prompt);
        if let Err(error) = check(self.model, prompts, request.max_new_tokens) {
            return Some(error);
        }
        let need = self.need(request);
        (need > self.options.cache_bytes).then(|| InferError::CacheTooSmall {
            tokens: self.room(request),
            need,
            limit: self.options.cache_bytes,
        })
    }

    /// Forgets texts that nobody waits for any more.
    fn drop_unwanted(&mut self) {
        self.waiting.retain(|request| request.sink.is_wanted());
        self.reading
            .retain(|reading| reading.row.request.sink.is_wanted());
        self.beams.retain(|beams| beams.request.sink.is_wanted());
        for group in &mut self.groups {
            let wanted = |row: &Row| row.request.sink.is_wanted();
            let kept: Vec<usize> = (0..group.rows.len())
                .filter(|&i| wanted(&group.rows[i]))
                .collect();
            if kept.len() < group.rows.len() {
                group.cache.select(&kept);
                group.rows.retain(wanted);
            }
        }
        self.groups.retain(|group| !group.rows.is_empty());
    }

    /// Lets waiting texts in, in their order, while there is room.
    fn admit(&mut self, report: &mut StepReport) {
        while let Some(request) = self.waiting.front() {
            if self.active() >= self.options.rows.max(1) {
                return;
            }
            let need = self.need(request);
            while self.cache_bytes() + need > self.options.cache_bytes && self.prefixes.forget() {}
            if self.cache_bytes() + need > self.options.cache_bytes {
                return;
            }
            let Some(request) = self.waiting.pop_front() else {
                return;
            };
            self.begin(request, need, report);
        }
    }

    fn begin(&mut self, mut request: Request, bytes: usize, report: &mut StepReport) {
        let begun = match &request.writing {
            Writing::Beams(options) => {
                report.prompt_tokens += request.prompt.len();
                BeamSearch::new(self.model, &[&request.prompt], options.clone()).map(Err)
            }
            Writing::Tokens(settings) => {
                let sampler = Sampler::new(settings, &request.end_ids, request.seed);
                sampler.map(Ok).map_err(InferError::from)
            }
        };
        match begun {
            Err(error) => {
                request.sink.event(Event::Failed(error));
            }
            Ok(Err(search)) => self.beams.push(Beams {
                request,
                search,
                bytes,
            }),
            Ok(Ok(sampler)) => {
                let ids = beginnings(self.model, std::slice::from_ref(&request.prompt)).remove(0);
                let room = self.room(&request);
                let row = Row {
                    prompt_len: ids.len(),
                    ids,
                    sampler,
                    bytes,
                    draft: match request.drafting {
                        Drafting::Model { .. } => self.draft.map(DraftCache::new),
                        _ => None,
                    },
                    request,
                };
                let cache = self.empty_cache(&row, room, report);
                match cache {
                    Ok(cache) => self.reading.push_back(Reading { row, cache }),
                    Err(error) => {
                        let mut row = row;
                        row.request.sink.event(Event::Failed(error));
                    }
                }
            }
        }
    }

    /// The cache of a text before its prompt has been read; with what others have read already.
    fn empty_cache(
        &mut self,
        row: &Row,
        room: usize,
        report: &mut StepReport,
    ) -> Result<KvCache, InferError> {
        let sizes = self.model.config().sizes();
        if self.model.config().direction() == Direction::EncoderDecoder {
            report.prompt_tokens += row.request.prompt.len();
            let source = PackedBatch::from_sequences(&[&row.request.prompt]);
            return Ok(self.model.read_sources(&source)?);
        }
        // At least one token is read, for the logits behind it.
        let piece = self.options.prompt_piece.max(1);
        let shared = &row.ids[..row.ids.len() - 1];
        if let Some((length, cache)) = self.running_prefix(shared, piece, room) {
            report.reused_tokens += length;
            return Ok(cache);
        }
        if let Some((length, cache)) = self.prefixes.find(shared, piece, room) {
            report.reused_tokens += length;
            return Ok(cache);
        }
        let mut cache = self.model.new_cache(1);
        for sequence in cache.layers.iter_mut().flatten() {
            let values = room * sizes.n_kv_heads * sizes.d_head;
            sequence.k.reserve_exact(values);
            sequence.v.reserve_exact(values);
        }
        Ok(cache)
    }

    /// The longest common beginning with the prompt of a running text, in whole pieces.
    fn running_prefix(&self, ids: &[u32], piece: usize, room: usize) -> Option<(usize, KvCache)> {
        let all = self.groups.iter().flat_map(|group| {
            let rows = group.rows.iter().enumerate();
            rows.map(move |(at, row)| (&group.cache, at, &row.ids[..row.prompt_len]))
        });
        let (length, cache, at) = all
            .map(|(cache, at, prompt)| (prefix::common(prompt, ids) / piece * piece, cache, at))
            .max_by_key(|(length, ..)| *length)
            .filter(|(length, ..)| *length > 0)?;
        Some((length, cache.prefix(at, length, room)))
    }

    /// Reads one piece of the oldest unread prompt.
    fn read(&mut self, report: &mut StepReport) {
        let Some(mut reading) = self.reading.pop_front() else {
            return;
        };
        let row = &mut reading.row;
        let from = reading.cache.lengths()[0];
        let piece = self.options.prompt_piece.max(1);
        // Always at multiples of a piece, wherever reading began.
        let to = ((from / piece + 1) * piece).min(row.ids.len());
        let positions: Vec<u32> = (from as u32..to as u32).collect();
        let batch = PackedBatch::from_sequences(&[&row.ids[from..to]]).with_positions(positions);
        let last = [(to - from) as u32 - 1];
        report.prompt_tokens += to - from;
        let logits = match self.model.advance(&batch, &mut reading.cache, &last) {
            Ok(logits) => logits,
            Err(error) => {
                row.request.sink.event(Event::Failed(error.into()));
                return;
            }
        };
        if to < row.ids.len() {
            self.reading.push_front(reading);
            return;
        }
        if choose(self.model, row, &logits, report).is_none() {
            if let Some((ids, cache)) = self.prefix_of(&reading.row, &reading.cache, 0) {
                self.keep_prefix(&ids, cache);
            }
            return;
        }
        let Reading { row, cache } = reading;
        let place = (self.groups.iter_mut()).find(|group| group.rows.len() < self.alike);
        match place {
            Some(group) => {
                group.rows.push(row);
                group.cache.append(cache);
            }
            None => self.groups.push(Group {
                rows: vec![row],
                cache,
            }),
        }
    }

    /// Gives each text of a group its next token, or as many as were guessed right.
    fn write(&mut self, index: usize, report: &mut StepReport) {
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

    /// Keeps the beginning of a prompt in what running texts leave of the cache, and in a quarter of it at most.
    fn keep_prefix(&mut self, ids: &[u32], cache: KvCache) {
        let free = self.options.cache_bytes.saturating_sub(self.reserved());
        let limit = free.min(self.options.cache_bytes / 4);
        self.prefixes.keep(ids, cache, limit);
    }

    /// The beginning of a text's prompt, in whole pieces, with a copy of its cache.
    fn prefix_of(&self, row: &Row, cache: &KvCache, at: usize) -> Option<(Vec<u32>, KvCache)> {
        let piece = self.options.prompt_piece.max(1);
        let length = row.prompt_len / piece * piece;
        let alone = self.model.config().direction() == Direction::Decoder;
        (alone && length > 0).then(|| {
            let copy = cache.prefix(at, length, length);
            (row.ids[..length].to_vec(), copy)
        })
    }

    /// One step of every beam search.
    fn search(&mut self, report: &mut StepReport) {
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
fn choose(model: &Model, row: &mut Row, logits: &[f32], report: &mut StepReport) -> Option<u32> {
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
