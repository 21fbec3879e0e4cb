//! Prompts: read in pieces, their beginnings remembered.

use malmoi_models::{Direction, KvCache, PackedBatch};

use super::write::choose;
use super::{Engine, Event, Group, Reading, Row, StepReport};

impl Engine<'_> {
    /// Reads one piece of the oldest unread prompt.
    pub(super) fn read(&mut self, report: &mut StepReport) {
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

    /// Keeps the beginning of a prompt in what running texts leave of the cache, and in a quarter of it at most.
    pub(super) fn keep_prefix(&mut self, ids: &[u32], cache: KvCache) {
        let free = self.options.cache_bytes.saturating_sub(self.reserved());
        let limit = free.min(self.options.cache_bytes / 4);
        self.prefixes.keep(ids, cache, limit);
    }

    /// The beginning of a text's prompt, in whole pieces, with a copy of its cache.
    pub(super) fn prefix_of(
        &self,
        row: &Row,
        cache: &KvCache,
        at: usize,
    ) -> Option<(Vec<u32>, KvCache)> {
        let piece = self.options.prompt_piece.max(1);
        let length = row.prompt_len / piece * piece;
        let alone = self.model.config().direction() == Direction::Decoder;
        (alone && length > 0).then(|| {
            let copy = cache.prefix(at, length, length);
            (row.ids[..length].to_vec(), copy)
        })
    }
}
