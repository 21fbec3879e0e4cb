//! TensorBoard event files: scalars only.
//!
//! A file is a sequence of TFRecords, each a protocol-buffer `Event`. The messages below hold the fields we write, with the
//! numbers of `tensorflow/core/util/event.proto` and `summary.proto`; readers skip what is absent.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::error::TrainError;

/// One event.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.SessionStatus.START`: readers drop what earlier files say from this step on.
const SESSION_START: i32 = 1;

/// Added to a rotated CRC-32C, so that a checksum of data that holds checksums stays a good one (`lib/hash/crc32c.h` of TensorFlow).
const MASK_DELTA: u32 = 0xa282_ead8;

/// The checksum of a TFRecord: CRC-32C, rotated right by 15 bits, plus a constant.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(MASK_DELTA)
}

/// A TFRecord: length, its checksum, the bytes, their checksum.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(bytes.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(&masked_crc(bytes).to_le_bytes());
    out
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// An open event file.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Starts a file in `dir`, which is made when absent. `first_step` is the step it begins after: what earlier files of the
    /// directory hold for later steps no longer counts.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn create(dir: &Path, first_step: u64) -> Result<Self, TrainError> {
        std::fs::create_dir_all(dir).map_err(|e| TrainError::io("create", dir, e))?;
        let seconds = now();
        // The name that TensorBoard looks for; time and process keep files of one directory apart and in order.
        let name = format!(
            "events.out.tfevents.{}.{first_step}.{}",
            seconds as u64,
            std::process::id()
        );
        let path = dir.join(name);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| TrainError::io("create", &path, e))?;
        let mut events = Self { path, file };
        events.write(Event {
            wall_time: seconds,
            step: 0,
            what: Some(What::FileVersion("brain.Event:2".into())),
        })?;
        if first_step > 0 {
            events.write(Event {
                wall_time: seconds,
                step: first_step as i64 + 1,
                what: Some(What::SessionLog(SessionLog {
                    status: SESSION_START,
                })),
            })?;
        }
        Ok(events)
    }

    /// Appends scalars of one step.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), TrainError> {
        let value = values
            .iter()
            .map(|&(tag, value)| SummaryValue {
                tag: tag.to_string(),
                simple_value: value as f32,
            })
            .collect();
        self.write(Event {
            wall_time: now(),
            step: step as i64,
            what: Some(What::Summary(Summary { value })),
        })
    }

    fn write(&mut self, event: Event) -> Result<(), TrainError> {
        self.file
            .write_all(&record(&event.encode_to_vec()))
            .map_err(|e| TrainError::io("append to", &self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_published_ones() {
        // The record length 24 as TensorFlow writes it at the start of every event file (its file version event).
        let length = 24_u64.to_le_bytes();
        assert_eq!(masked_crc(&length).to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
    }

    fn read(bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let body = &rest[12..12 + length];
            assert_eq!(
                rest[12 + length..16 + length],
                masked_crc(body).to_le_bytes()
            );
            events.push(Event::decode(body).unwrap());
            rest = &rest[16 + length..];
        }
        events
    }

    #[test]
    fn scalars_come_back_with_their_step() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(dir.path(), 7).unwrap();
        file.scalars(8, &[("train/loss", 2.5), ("train/lr", 1e-3)])
            .unwrap();
        let events = read(&std::fs::read(&file.path).unwrap());
        assert_eq!(events.len(), 3);
        assert_eq!(
            events[0].what,
            Some(What::FileVersion("brain.Event:2".into()))
        );
        assert_eq!(
            (events[1].step, &events[1].what),
            (8, &Some(What::SessionLog(SessionLog { status: 1 })))
        );
        let Some(What::Summary(summary)) = &events[2].what else {
            panic!("no summary")
        };
        assert_eq!(events[2].step, 8);
        assert_eq!(summary.value[0].tag, "train/loss");
        assert_eq!(summary.value[0].simple_value, 2.5);
    }
}
