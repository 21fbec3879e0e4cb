//! Lines of text files: unpacked, decoded, counted, bounded in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use encoding_rs::{DecoderResult, Encoding as Charset};

use crate::error::{Result, TextError};

/// Default bound on what a compressed file unpacks to: 64 GiB, more text than one machine pretrains on.
pub const DEFAULT_MAX_UNPACKED: u64 = 64 << 30;
/// Default bound on one line: 64 MiB; it bounds the memory of the readers.
pub const DEFAULT_MAX_LINE: u64 = 64 << 20;

/// How files are read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Name of the character encoding (`utf-8`, `cp949`, `euc-kr`, `utf-16le` …); `None` is UTF-8.
    pub encoding: Option<String>,
    /// Largest number of bytes a `.gz` or `.zst` file may unpack to.
    pub max_unpacked: u64,
    /// Largest number of bytes of one line.
    pub max_line: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            encoding: None,
            max_unpacked: DEFAULT_MAX_UNPACKED,
            max_line: DEFAULT_MAX_LINE,
        }
    }
}

impl ReadOptions {
    /// The encoding, or `None` for UTF-8.
    fn charset(&self) -> Result<Option<&'static Charset>> {
        let Some(name) = &self.encoding else {
            return Ok(None);
        };
        let label = match name.to_ascii_lowercase().as_str() {
            // Python's and Windows' names for what the web standard calls euc-kr.
            "cp949" | "ms949" | "uhc" => "euc-kr",
            _ => name.as_str(),
        };
        let charset = Charset::for_label(label.as_bytes())
            .ok_or_else(|| TextError::UnknownEncoding(name.clone()))?;
        Ok((charset != encoding_rs::UTF_8).then_some(charset))
    }
}

/// Reads a text file line by line. Gzip and Zstandard files are recognised by their first bytes; a byte-order mark is
/// dropped; line ends are `\n` or `\r\n`.
pub struct LineReader {
    path: PathBuf,
    input: BufReader<Box<dyn Read + Send>>,
    buffer: Vec<u8>,
    line: u64,
    offset: u64,
    max_line: u64,
    keep_ends: bool,
}

impl LineReader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`TextError::Io`] or [`TextError::UnknownEncoding`].
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self> {
        let charset = options.charset()?;
        let file = File::open(path).map_err(TextError::io(path))?;
        let mut raw = BufReader::with_capacity(1 << 16, file);
        let start = raw.fill_buf().map_err(TextError::io(path))?;
        let mut input: Box<dyn Read + Send> = if start.starts_with(&[0x1f, 0x8b]) {
            let unpacked = flate2::bufread::MultiGzDecoder::new(raw);
            Box::new(Limited::new(unpacked, options.max_unpacked))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let unpacked =
                zstd::stream::read::Decoder::with_buffer(raw).map_err(TextError::io(path))?;
            Box::new(Limited::new(unpacked, options.max_unpacked))
        } else {
            Box::new(raw)
        };
        if let Some(charset) = charset {
            input = Box::new(Transcoder::new(input, charset));
        }
        Ok(Self {
            path: path.to_path_buf(),
            input: BufReader::with_capacity(1 << 16, input),
            buffer: Vec::new(),
            line: 0,
            offset: 0,
            max_line: options.max_line,
            keep_ends: false,
        })
    }

    /// Keeps the line ends, for text whose line breaks count.
    #[must_use]
    pub fn keeping_ends(mut self) -> Self {
        self.keep_ends = true;
        self
    }

    /// The lines as an iterator of strings; it ends after the first error.
    pub fn into_lines(mut self) -> impl Iterator<Item = Result<String>> {
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed {
                return None;
            }
            let line = self.next_line().map(|line| line.map(str::to_owned));
            failed = line.is_err();
            line.transpose()
        })
    }

    /// Number of the line that was read last, from 1.
    pub fn line_number(&self) -> u64 {
        self.line
    }

    /// The next line, or `None` at the end.
    ///
    /// # Errors
    /// [`TextError::InvalidEncoding`] with line and byte offset, [`TextError::LineTooLong`], [`TextError::TooLarge`] or
    /// [`TextError::Io`] (a damaged compressed file).
    pub fn next_line(&mut self) -> Result<Option<&str>> {
        self.buffer.clear();
        let start = self.offset;
        let read = (&mut self.input)
            .take(self.max_line + 1)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|e| from_io(&self.path, e))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.offset += read as u64;
        if read as u64 > self.max_line {
            return Err(TextError::LineTooLong {
                path: self.path.clone(),
                line: self.line,
                limit: self.max_line,
            });
        }
        let mut from = 0;
        if self.line == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
            from = 3;
        }
        let mut bytes = &self.buffer[from..];
        if !self.keep_ends {
            bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
            bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        }
        match std::str::from_utf8(bytes) {
            Ok(line) => Ok(Some(line)),
            Err(error) => Err(TextError::InvalidEncoding {
                path: self.path.clone(),
                line: self.line,
                offset: start + (from + error.valid_up_to()) as u64,
                encoding: "UTF-8",
                likely: likely_encoding(&self.buffer),
            }),
        }
    }
}

/// Turns our own errors, which travel inside an I/O error, back into themselves.
fn from_io(path: &Path, error: io::Error) -> TextError {
    match error.get_ref().and_then(|e| e.downcast_ref::<Trouble>()) {
        Some(Trouble::TooLarge(limit)) => TextError::TooLarge {
            path: path.to_path_buf(),
            limit: *limit,
        },
        Some(Trouble::Malformed {
            line,
            offset,
            encoding,
        }) => TextError::InvalidEncoding {
            path: path.to_path_buf(),
            line: *line,
            offset: *offset,
            encoding,
            likely: None,
        },
        None => TextError::io(path)(error),
    }
}

/// Errors of the adapters below.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("unpacks to more than {0} bytes")]
    TooLarge(u64),
    #[error("line {line}, byte {offset}: not valid {encoding}")]
    Malformed {
        line: u64,
        offset: u64,
        encoding: &'static str,
    },
}

/// Fails when more than `limit` bytes come out.
struct Limited<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Limited<R> {
    fn new(inner: R, limit: u64) -> Self {
        Self {
            inner,
            left: limit,
            limit,
        }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => {
                self.left = left;
                Ok(read)
            }
            None => Err(io::Error::other(Trouble::TooLarge(self.limit))),
        }
    }
}

/// Decodes another encoding to UTF-8.
struct Transcoder {
    inner: Box<dyn Read + Send>,
    decoder: encoding_rs::Decoder,
    input: Vec<u8>,
    /// Unread part of `input`.
    pending: std::ops::Range<usize>,
    at_end: bool,
    finished: bool,
    offset: u64,
    line: u64,
}

impl Transcoder {
    fn new(inner: Box<dyn Read + Send>, charset: &'static Charset) -> Self {
        Self {
            inner,
            decoder: charset.new_decoder_with_bom_removal(),
            input: vec![0; 1 << 16],
            pending: 0..0,
            at_end: false,
            finished: false,
            offset: 0,
            line: 1,
        }
    }
}

impl Read for Transcoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The decoder needs room for a whole character. Only the `BufReader` above reads from here, with its full buffer.
        if buffer.len() < 16 {
            return Err(io::Error::other("the buffer is too small to decode into"));
        }
        loop {
            if self.finished {
                return Ok(0);
            }
            if self.pending.is_empty() && !self.at_end {
                let read = self.inner.read(&mut self.input)?;
                self.at_end = read == 0;
                self.pending = 0..read;
            }
            let (result, read, written) = self.decoder.decode_to_utf8_without_replacement(
                &self.input[self.pending.clone()],
                buffer,
                self.at_end,
            );
            self.pending.start += read;
            self.offset += read as u64;
            self.line += buffer[..written].iter().filter(|&&b| b == b'\n').count() as u64;
            match result {
                DecoderResult::Malformed(length, after) => {
                    let back = u64::from(length) + u64::from(after);
                    return Err(io::Error::other(Trouble::Malformed {
                        line: self.line,
                        offset: self.offset.saturating_sub(back),
                        encoding: self.decoder.encoding().name(),
                    }));
                }
                DecoderResult::InputEmpty if self.at_end => {
                    self.finished = true;
                    return Ok(written);
                }
                DecoderResult::InputEmpty | DecoderResult::OutputFull if written > 0 => {
                    return Ok(written);
                }
                DecoderResult::InputEmpty | DecoderResult::OutputFull => {}
            }
        }
    }
}

/// An encoding that bytes which are not UTF-8 do fit.
fn likely_encoding(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(&[0xff, 0xfe]) {
        return Some("utf-16le");
    }
    if bytes.starts_with(&[0xfe, 0xff]) {
        return Some("utf-16be");
    }
    let decoded = |charset: &'static Charset| {
        charset.decode_without_bom_handling_and_without_replacement(bytes)
    };
    // Korean text first: it is what this program is most often given. Bytes are only called Korean (or Japanese) if most
    // of the decoded non-ASCII characters are of that script, since many byte strings decode without an error.
    let share = |text: &str, belongs: fn(char) -> bool| {
        let foreign: Vec<char> = text.chars().filter(|c| !c.is_ascii()).collect();
        2 * foreign.iter().filter(|&&c| belongs(c)).count() > foreign.len()
    };
    if decoded(encoding_rs::EUC_KR).is_some_and(|text| {
        share(&text, |c| {
            ('가'..='힣').contains(&c) || ('ㄱ'..='ㅣ').contains(&c)
        })
    }) {
        return Some("cp949");
    }
    if decoded(encoding_rs::SHIFT_JIS)
        .is_some_and(|text| share(&text, |c| ('\u{3040}'..='\u{30ff}').contains(&c)))
    {
        return Some("shift_jis");
    }
    decoded(encoding_rs::WINDOWS_1252).map(|_| "windows-1252")
}
