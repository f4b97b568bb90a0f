//! Streams that fill up, compressed while they are still warm.
//!
//! Snappy cuts its input into blocks of 64 KiB and no block reaches back into another. So a stream's entries are compressed
//! block by block as they are written, while they are in the cache, and laid side by side at the end under one length: what
//! waits for a push is a quarter of the size and the whole body is never there uncompressed (ADR 0008).

use crate::wire::{put_varint, varint_len};
use std::sync::Arc;

/// Snappy's own block size. Its copies never reach back further.
pub(super) const SNAPPY_BLOCK: usize = 64 << 10;

/// Capacity that a stream's buffers may keep between pushes, so that one huge line does not hold its memory for ever.
const KEPT_BYTES: usize = 2 * SNAPPY_BLOCK;

/// One stream of a push: labels, and entries as `Stream.entries` fields.
#[derive(Default)]
pub(super) struct Stream {
    pub(super) labels: Arc<str>,
    pub(super) hash: u64,
    pub(super) count: u32,
    /// Not yet compressed.
    pub(super) entries: Vec<u8>,
    packed: Vec<u8>,
    /// Bytes that went into `packed`.
    packed_from: usize,
}

impl Stream {
    /// Compresses what fills whole blocks.
    #[inline]
    pub(super) fn pack(&mut self, snappy: &mut Snappy) {
        if self.entries.len() >= SNAPPY_BLOCK {
            self.pack_blocks(snappy);
        }
    }

    fn pack_blocks(&mut self, snappy: &mut Snappy) {
        let whole = self.entries.len() / SNAPPY_BLOCK * SNAPPY_BLOCK;
        snappy.blocks(&self.entries[..whole], &mut self.packed);
        self.packed_from += whole;
        self.entries.drain(..whole);
    }

    /// Key, length and labels of this stream as a field of `PushRequest`.
    pub(super) fn head(&self) -> Vec<u8> {
        const STREAM: u8 = 1;
        let labels = self.labels.as_bytes();
        let fields = 1 + varint_len(labels.len() as u64) + labels.len() + self.packed_from + self.entries.len();
        let mut head = Vec::with_capacity(labels.len() + 24);
        head.push(crate::wire::len_key(STREAM));
        put_varint(&mut head, fields as u64);
        crate::wire::put_bytes(&mut head, 1, labels);
        head
    }

    pub(super) fn raw_bytes(&self) -> usize {
        self.packed_from + self.entries.len()
    }

    /// Appends the compressed entries to `body`.
    pub(super) fn write(&self, snappy: &mut Snappy, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.packed);
        snappy.blocks(&self.entries, body);
    }

    /// Ready for another label set; buffers stay.
    pub(super) fn clear(&mut self) {
        for buffer in [&mut self.entries, &mut self.packed] {
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES);
        }
        (self.count, self.packed_from, self.labels) = (0, 0, Arc::default());
    }
}

/// The compressor and its output buffer.
pub(super) struct Snappy {
    encoder: snap::raw::Encoder,
    scratch: Vec<u8>,
}

impl Default for Snappy {
    fn default() -> Snappy {
        let scratch = vec![0; snap::raw::max_compress_len(SNAPPY_BLOCK)];
        Snappy { encoder: snap::raw::Encoder::new(), scratch }
    }
}

impl Snappy {
    /// Appends the elements of each block, without the length that a whole message would begin with.
    pub(super) fn blocks(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        for block in raw.chunks(SNAPPY_BLOCK) {
            match self.encoder.compress(block, &mut self.scratch) {
                Ok(n) => out.extend_from_slice(&self.scratch[varint_len(block.len() as u64)..n]),
                // Does not happen: the scratch is as large as any block can become. Uncompressed is valid all the same.
                Err(_) => Snappy::literal(block, out),
            }
        }
    }

    /// Appends bytes as they are: literal elements with a two-byte length.
    pub(super) fn literal(raw: &[u8], out: &mut Vec<u8>) {
        const LITERAL_TWO_BYTES: u8 = 61 << 2;
        for part in raw.chunks(SNAPPY_BLOCK) {
            out.push(LITERAL_TWO_BYTES);
            out.extend_from_slice(&((part.len() - 1) as u16).to_le_bytes());
            out.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn blocks_laid_side_by_side_are_one_message(
            parts in prop::collection::vec((any::<u8>(), 0usize..200_000, any::<bool>()), 0..5)
        ) {
            let (mut snappy, mut raw, mut body) = (Snappy::default(), Vec::new(), Vec::new());
            for (byte, len, literal) in parts {
                let part: Vec<u8> = (0..len).map(|i| byte.wrapping_mul((i / 7) as u8)).collect();
                if literal { Snappy::literal(&part, &mut body) } else { snappy.blocks(&part, &mut body) }
                raw.extend_from_slice(&part);
            }
            let mut message = Vec::new();
            put_varint(&mut message, raw.len() as u64);
            message.extend_from_slice(&body);
            prop_assert_eq!(snap::raw::Decoder::new().decompress_vec(&message).unwrap(), raw);
        }
    }
}
