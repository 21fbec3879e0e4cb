//! Who comes in: what a text needs of the cache, and what it takes over from others.

use malmoi_models::{Direction, KvCache, PackedBatch, Precision};

use crate::InferError;
use crate::beam::BeamSearch;
use crate::generate::{beginnings, check};
use crate::sampling::Sampler;

use super::draft::DraftCache;
use super::{Beams, Drafting, Engine, Event, Reading, Request, Row, StepReport, Writing, prefix};

impl Engine<'_> {
    pub(super) fn reserved(&self) -> usize {
        let rows = self.groups.iter().flat_map(|group| &group.rows);
        let rows = rows.chain(self.reading.iter().map(|reading| &reading.row));
        let beams = self.beams.iter().map(|beams| beams.bytes);
        rows.map(|row| row.bytes).chain(beams).sum()
    }

    /// Bytes of keys and values of one token.
    fn token_bytes(&self) -> usize {
        let sizes = self.model.config().sizes();
        let width = match self.model.precision() {
            Precision::F32 => size_of::<f32>(),
            Precision::Bf16 => size_of::<f32>() / 2,
        };
        2 * width * sizes.n_layers * sizes.n_kv_heads * sizes.d_head
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

    pub(super) fn refuse(&self, request: &Request) -> Option<InferError> {
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

    /// Lets waiting texts in, in their order, while there is room.
    pub(super) fn admit(&mut self, report: &mut StepReport) {
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
        let narrow = self.model.precision() == Precision::Bf16;
        cache.reserve(room * sizes.n_kv_heads * sizes.d_head, narrow);
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
}
