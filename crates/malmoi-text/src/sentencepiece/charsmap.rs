//! The replacement rules of a SentencePiece model.
//!
//! Layout: the length of a double-array trie in bytes (little-endian u32), the trie (little-endian u32 units), then the
//! replacements, each ended by a zero byte. A value of the trie is the byte position of its replacement. The text is read
//! from left to right and the longest rule that matches is applied.

/// Replacement rules; empty rules leave every text as it is.
#[derive(Debug, Clone, Default)]
pub(super) struct CharsMap {
    units: Vec<u32>,
    replacements: String,
}

impl CharsMap {
    /// Reads the rules.
    ///
    /// # Errors
    /// Says what is wrong when the bytes are cut off or the replacements are not UTF-8.
    pub(super) fn new(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
            return Err("the normalisation rules are cut off".into());
        };
        let length = u32::from_le_bytes(*length) as usize;
        if !length.is_multiple_of(4) || length > rest.len() {
            return Err(format!(
                "the normalisation rules announce a trie of {length} bytes, {} are there",
                rest.len()
            ));
        }
        let (trie, replacements) = rest.split_at(length);
        Ok(Self {
            units: trie
                .as_chunks::<4>()
                .0
                .iter()
                .map(|unit| u32::from_le_bytes(*unit))
                .collect(),
            replacements: std::str::from_utf8(replacements)
                .map_err(|e| format!("the replacements of the normalisation are not UTF-8: {e}"))?
                .to_owned(),
        })
    }

    /// The longest rule that matches the beginning of `text`: bytes consumed and their replacement.
    pub(super) fn longest_match(&self, text: &str) -> Option<(usize, &str)> {
        // Unit layout (darts-clone): bits 0-7 label, bit 8 has a leaf, bit 9 scales the offset, bits 10-30 the offset;
        // a leaf has bit 31 set and holds its value in bits 0-30.
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let mut position = offset(*self.units.first()?) as usize;
        let mut found = None;
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            if byte == 0 {
                break;
            }
            position ^= usize::from(byte);
            let Some(&unit) = self.units.get(position) else {
                break;
            };
            if unit & ((1 << 31) | 0xff) != u32::from(byte) {
                break;
            }
            position ^= offset(unit) as usize;
            if unit & (1 << 8) != 0
                && let Some(&leaf) = self.units.get(position)
            {
                found = Some((at + 1, (leaf & 0x7fff_ffff) as usize));
            }
        }
        let (consumed, start) = found?;
        // A damaged file could point inside a character, or end a rule there: such a rule is ignored.
        let rest = self.replacements.get(start..)?;
        if !text.is_char_boundary(consumed) {
            return None;
        }
        Some((consumed, rest.split('\0').next().unwrap_or("")))
    }
}
