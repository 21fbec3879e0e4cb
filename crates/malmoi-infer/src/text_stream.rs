//! Text from tokens as they are chosen: whole characters only, and nothing of a stop string.

use malmoi_text::{DecodeStream, TextError};

use crate::Pipeline;
use crate::stop::StopScanner;

/// Turns the tokens of one text into pieces of text.
pub struct TextStream<'a> {
    stream: DecodeStream<'a>,
    scanner: StopScanner<'a>,
}

impl<'a> TextStream<'a> {
    /// A stream behind `prompt` that ends at any of the `stops` (empty ones are ignored).
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn new(
        pipeline: &'a Pipeline,
        prompt: &[u32],
        stops: &'a [String],
    ) -> Result<Self, TextError> {
        let mut stream = pipeline.tokenizer.decode_stream(true);
        // How a token looks depends on what stands before it, so the decoder sees the prompt first.
        if !pipeline.transforms() {
            for &id in prompt {
                stream.push(id)?;
            }
        }
        Ok(Self {
            stream,
            scanner: StopScanner::new(stops),
        })
    }

    /// Takes a token; returns the text that became final, and whether a stop string was met.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn push(&mut self, id: u32) -> Result<(String, bool), TextError> {
        Ok(self.scanner.push(&self.stream.push(id)?))
    }

    /// The text still held back, of a text that did not meet a stop string; and whether it meets one now.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn finish(self) -> Result<(String, bool), TextError> {
        let Self {
            stream,
            mut scanner,
        } = self;
        let (mut rest, stopped) = scanner.push(&stream.finish()?);
        if !stopped {
            rest.push_str(&scanner.finish());
        }
        Ok((rest, stopped))
    }
}
