//! Structured metadata: pairs of a name and a value beside a line.
//!
//! Three levels feed it, resource, scope and record, and the stronger level wins a name. Names are compared by hash while
//! records stream past: a level's names are a [`Names`] (a bitmap that answers nearly always, and the hashes behind it).
//! A hit sends the record to the slow path, which compares for real. The weakness: an application that sets the same name
//! on resource and record pays the slow path for every record.

use super::label::{clean, clean_wide};
use super::value::{Any, Odd, key_value, text};
use crate::wire::{Fields, Value, close, len_key, open, put_bytes, put_varint, varint, varint_len};
use std::collections::{HashMap, HashSet};
use xxhash_rust::xxh3::xxh3_64;

/// Field of an entry that holds its pairs; inside a pair, name is 1 and value 2.
pub(super) const PAIR: u8 = 3;

/// What a pair adds to an entry.
pub(super) struct Pair {
    /// Of the cleaned name.
    pub(super) hash: u64,
    /// Bytes of name and value, which is what Loki's limit counts.
    pub(super) size: usize,
}

#[inline(always)]
pub(super) fn name_hash(clean: &[u8]) -> u64 {
    xxh3_64(clean)
}

/// Appends a pair whose name needs no cleaning.
pub(super) fn plain_pair(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Pair {
    let fields = 2 + name.len() + 1 + varint_len(value.len() as u64) + value.len();
    out.push(len_key(PAIR));
    put_varint(out, fields as u64);
    put_bytes(out, 1, name.as_bytes());
    put_bytes(out, 2, value);
    Pair { hash: name_hash(name.as_bytes()), size: name.len() + value.len() }
}

/// Appends the pair of one attribute. `max`: bytes after which nested values may stop.
#[inline]
pub(super) fn attribute(out: &mut Vec<u8>, kv: &[u8], max: usize) -> Result<Pair, Odd> {
    let (name, any) = key_value(kv)?;
    // A string alone in its AnyValue is nearly all there is. Its length is known, so nothing needs patching.
    if let Some(value) = lone_string(any)
        && (1..128).contains(&name.len())
    {
        let start = out.len();
        out.push(len_key(PAIR));
        put_varint(out, (2 + name.len() + 1 + varint_len(value.len() as u64) + value.len()) as u64);
        out.extend_from_slice(&[len_key(1), name.len() as u8]);
        let at = out.len();
        out.extend_from_slice(name);
        if clean(&mut out[at..]) {
            let hash = name_hash(&out[at..]);
            put_bytes(out, 2, value);
            return Ok(Pair { hash, size: name.len() + value.len() });
        }
        out.truncate(start);
    }
    any_attribute(out, name, any, max)
}

fn any_attribute(out: &mut Vec<u8>, name: &[u8], any: &[u8], max: usize) -> Result<Pair, Odd> {
    let name = match clean_wide(name) {
        name if name.is_empty() => b"_".to_vec(), // Loki has no nameless metadata; the value is worth keeping
        name => name,
    };
    let any = Any::parse(any)?;
    let pair = open(out, PAIR);
    put_bytes(out, 1, &name);
    let value = open(out, 2);
    text(out, any, max)?;
    let size = name.len() + out.len() - value;
    close(out, value);
    close(out, pair);
    Ok(Pair { hash: name_hash(&name), size })
}

/// The string of an AnyValue that holds nothing else.
#[inline(always)]
pub(super) fn lone_string(any: &[u8]) -> Option<&[u8]> {
    let (&first, mut rest) = any.split_first()?;
    let len = varint(&mut rest).ok()?;
    (first == len_key(1) && len == rest.len() as u64).then_some(rest)
}

/// Name and value of a rendered pair.
pub(super) fn read_pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(pair) {
        match field.ok()? {
            (1, Value::Bytes(b)) => name = b,
            (2, Value::Bytes(b)) => value = b,
            _ => {}
        }
    }
    Some((name, value))
}

/// Bits of the first look.
const BITS: usize = 512;

/// The names of a level, by hash.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) bits: Bits,
    pub(super) hashes: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bits([u64; BITS / 64]);

impl Default for Bits {
    fn default() -> Bits {
        Bits([0; BITS / 64])
    }
}

impl Bits {
    /// Sets the bit and says whether it was set before.
    #[inline(always)]
    pub(super) fn set(&mut self, hash: u64) -> bool {
        let (word, bit) = (hash as usize / 64 % (BITS / 64), 1 << (hash % 64));
        let was = self.0[word] & bit != 0;
        self.0[word] |= bit;
        was
    }
}

impl Names {
    /// Adds a name and says whether it was there.
    pub(super) fn add(&mut self, hash: u64) -> bool {
        let there = self.bits.set(hash) && self.hashes.contains(&hash);
        if !there {
            self.hashes.push(hash);
        }
        there
    }
}

/// Capacity that a cleared level keeps.
const KEPT_BYTES: usize = 64 << 10;

/// A level's pairs, rendered once and copied into every record below it.
#[derive(Clone, Debug, Default)]
pub(super) struct Level {
    pub(super) rendered: Vec<u8>,
    pub(super) names: Names,
    pub(super) size: usize,
    /// Names that appeared twice within the level: rendered twice for now.
    twice: bool,
}

impl Level {
    pub(super) fn attribute(&mut self, kv: &[u8], max: usize) -> Result<(), Odd> {
        let pair = attribute(&mut self.rendered, kv, max)?;
        self.count(pair);
        Ok(())
    }

    pub(super) fn plain(&mut self, name: &str, value: &[u8]) {
        let pair = plain_pair(&mut self.rendered, name, value);
        self.count(pair);
    }

    fn count(&mut self, Pair { hash, size }: Pair) {
        self.size += size;
        self.twice |= self.names.add(hash);
    }

    pub(super) fn entries(&self) -> usize {
        self.names.hashes.len()
    }

    /// Of pairs with one name the last one stays. To be called when the level is complete.
    pub(super) fn settle(&mut self) {
        if self.twice {
            *self = strongest(&[&self.rendered]);
        }
    }

    /// Whether `stronger` has a name of this level.
    #[inline]
    pub(super) fn overridden_by(&self, stronger: &Level) -> bool {
        let mut bits = self.names.bits;
        stronger.names.hashes.iter().any(|&hash| bits.set(hash) && self.names.hashes.contains(&hash))
    }

    /// This level without what `stronger` overrides.
    #[cold]
    pub(super) fn without(&self, stronger: &Level) -> Level {
        let theirs: HashSet<&[u8]> = pairs(&stronger.rendered).map(|(name, _, _)| name).collect();
        let mut left = Level::default();
        for (name, value, whole) in pairs(&self.rendered).filter(|(name, _, _)| !theirs.contains(name)) {
            put_bytes(&mut left.rendered, PAIR, whole);
            left.count(Pair { hash: name_hash(name), size: name.len() + value.len() });
        }
        left
    }

    pub(super) fn clear(&mut self) {
        self.rendered.clear();
        self.rendered.shrink_to(KEPT_BYTES);
        self.names.bits = Bits::default();
        self.names.hashes.clear();
        (self.size, self.twice) = (0, false);
    }
}

/// Puts levels of rendered pairs together, weakest first; of pairs with one name the last one stays.
pub(super) fn strongest(levels: &[&[u8]]) -> Level {
    let pairs = || levels.iter().flat_map(|level| pairs(level));
    let mut last = HashMap::new();
    for (i, (name, _, _)) in pairs().enumerate() {
        last.insert(name, i);
    }
    let mut merged = Level::default();
    for (i, (name, value, whole)) in pairs().enumerate() {
        if last.get(name) == Some(&i) {
            put_bytes(&mut merged.rendered, PAIR, whole);
            merged.count(Pair { hash: name_hash(name), size: name.len() + value.len() });
        }
    }
    merged
}

/// Name, value and bytes of each rendered pair.
pub(super) fn pairs(rendered: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    Fields(rendered).filter_map(|field| match field {
        Ok((_, Value::Bytes(whole))) => read_pair(whole).map(|(name, value)| (name, value, whole)),
        _ => None,
    })
}
