//! Generation for many at once: texts join and leave a running batch at every step.
//!
//! A step reads one piece of one prompt, so that a long prompt holds nobody up for long, and gives every running text its next
//! token in a common pass. What a text becomes depends on its own request and seed alone: prompts are cut at the same places
//! whoever else is there, the common pass has no more rows than a product gives the same bits as alone
//! ([`Model::rows_alike`]), and draws are functions of seed, row and position. (Stated for f32.)
//!
//! Keys and values live in one slab a text, whose size is known when it joins; all together stay within a bound. What is left of
//! it holds the beginnings of earlier prompts, which later ones with the same beginning take over.

mod admit;
mod draft;
mod prefix;
mod read;
mod request;
#[cfg(test)]
mod tests;
mod write;

use std::collections::VecDeque;

use malmoi_models::{KvCache, Model};

use crate::beam::BeamSearch;
use crate::sampling::Sampler;

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
        Self {
            model,
            draft: draft.filter(|draft| draft.config().vocab_size() == sizes.vocab_size),
            options,
            waiting: VecDeque::new(),
            reading: VecDeque::new(),
            groups: Vec::new(),
            beams: Vec::new(),
            prefixes: Prefixes::default(),
            alike: model.rows_alike(),
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
}
