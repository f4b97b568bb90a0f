//! Unpacking compressed bodies without trusting what they say about themselves.
//!
//! Like opening a parcel under a press: it may only grow step by step, each step is paid for in the memory budget before it is
//! made, and it stops at the size limit or when it has grown out of all proportion. A panic inside a decoder is the parcel's
//! fault and becomes a refusal. Weakness: the compressed bytes stay in memory until the last step, so a request briefly counts
//! twice; zstd keeps a window as large as what it has written, which is counted as well.

use super::answer::Fault;
use super::body::Meter;
use bytes::{Buf, Bytes};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// First step of unpacking, in bytes; each further one doubles up to [`STEP_MAX`].
const STEP_FIRST: usize = 64 << 10;
/// Largest step, in bytes: also how much is done before other tasks have their turn.
const STEP_MAX: usize = 512 << 10;
/// Below this size, in bytes, any ratio is fine: a page of equal lines packs 500 to 1.
const RATIO_FREE: usize = 1 << 20;
/// Above [`RATIO_FREE`] a body may be at most this many times as large as what came over the wire.
const RATIO_MAX: usize = 100;
/// Largest window that a zstd frame may ask for, as a power of two: 16 MiB, the largest request.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;
/// The first bytes of a snappy stream, against a bare block.
const SNAPPY_STREAM: &[u8] = b"\xff\x06\x00\x00sNaPpY";
/// Block sizes of lz4 frames by their code (4 to 7), in bytes; the decoder holds about three blocks.
const LZ4_BLOCKS: [u64; 4] = [64 << 10, 256 << 10, 1 << 20, 4 << 20];
const LZ4_BLOCKS_HELD: u64 = 3;

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
    /// RFC 1950; `deflate` on the wire means this too.
    Zlib,
    /// A bare block or a stream, told apart by the first ten bytes.
    Snappy,
    /// The frame format.
    Lz4,
}

/// What `Content-Encoding` may name.
pub(super) const HTTP_PACKINGS: &str = "gzip, zstd, zlib, deflate, snappy, lz4";
/// What `grpc-encoding` may name.
pub(super) const GRPC_PACKINGS: &str = "identity,gzip,zstd,snappy";

impl Packing {
    /// `None` for identity.
    pub(super) fn of_http(name: &str) -> Result<Option<Packing>, Fault> {
        Ok(Some(match name.trim() {
            "" | "identity" => return Ok(None),
            "gzip" => Packing::Gzip,
            "zstd" => Packing::Zstd,
            "zlib" | "deflate" => Packing::Zlib,
            "snappy" => Packing::Snappy,
            "lz4" => Packing::Lz4,
            _ => return Err(unknown("Content-Encoding", HTTP_PACKINGS)),
        }))
    }

    /// `None` for identity.
    pub(super) fn of_grpc(name: &str) -> Result<Option<Packing>, Fault> {
        Ok(Some(match name.trim() {
            "" | "identity" => return Ok(None),
            "gzip" => Packing::Gzip,
            "zstd" => Packing::Zstd,
            "snappy" => Packing::Snappy,
            _ => return Err(unknown("grpc-encoding", GRPC_PACKINGS)),
        }))
    }

    fn decoder(self, packed: Bytes) -> std::io::Result<Box<dyn Read + Send>> {
        let input = packed.reader();
        Ok(match self {
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Packing::Zlib => Box::new(flate2::bufread::ZlibDecoder::new(input)),
            Packing::Snappy => Box::new(snap::read::FrameDecoder::new(input)),
            Packing::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(input)),
            Packing::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
        })
    }

    /// Bytes the decoder itself holds, beyond its output: at the start, and for each byte of output.
    fn scratch(self, packed: &[u8]) -> (u64, u64) {
        match self {
            Packing::Zstd => (0, 1),
            Packing::Lz4 => {
                let code = packed.get(5).map_or(0, |byte| usize::from(byte >> 4 & 7));
                (LZ4_BLOCKS[code.clamp(4, 7) - 4] * LZ4_BLOCKS_HELD, 0)
            }
            _ => (0, 0),
        }
    }
}

fn unknown(header: &str, known: &str) -> Fault {
    // The name itself is the client's text: it is neither repeated nor counted under a label.
    Fault::Compression(format!("unsupported {header}; supported: {known}"))
}

fn too_large(max: usize) -> Fault {
    Fault::TooLarge(format!("the request is larger than {max} bytes after decompression; send smaller batches"))
}

fn broken(why: impl std::fmt::Display) -> Fault {
    Fault::Malformed(format!("the compressed body cannot be read: {why}"))
}

/// The unpacked bytes, at most `max`; `meter` then holds exactly them.
pub(super) async fn inflate(packing: Packing, packed: Bytes, max: usize, meter: &mut Meter) -> Result<Bytes, Fault> {
    if packing == Packing::Snappy && !packed.starts_with(SNAPPY_STREAM) {
        return snappy_block(packed, max, meter).await;
    }
    let (scratch, scratch_per_byte) = packing.scratch(&packed);
    meter.grow(scratch).await?;
    let allowed = max.min(RATIO_FREE.max(packed.len().saturating_mul(RATIO_MAX)));
    let mut decoder = packing.decoder(packed).map_err(broken)?;
    let (mut out, mut step) = (Vec::new(), STEP_FIRST);
    loop {
        // One byte more than allowed is read, to tell "exactly full" from "too large".
        let room = step.min(allowed + 1 - out.len());
        meter.grow(room as u64 * (1 + scratch_per_byte)).await?;
        out.reserve_exact(room);
        let read = catch_unwind(AssertUnwindSafe(|| decoder.by_ref().take(room as u64).read_to_end(&mut out)));
        match read {
            Err(_) => return Err(broken("the decoder gave up")),
            Ok(Err(error)) => return Err(broken(error)),
            Ok(Ok(_)) if out.len() > allowed && allowed < max => return Err(bomb()),
            Ok(Ok(_)) if out.len() > allowed => return Err(too_large(max)),
            Ok(Ok(read)) if read < room => break,
            Ok(Ok(_)) => {}
        }
        step = (step * 2).min(STEP_MAX);
        tokio::task::yield_now().await;
    }
    drop(decoder);
    meter.shrink_to(out.len() as u64);
    Ok(Bytes::from(out))
}

fn bomb() -> Fault {
    Fault::TooLarge(format!("the body unpacks to more than {RATIO_MAX} times its size; send it with less repetition"))
}

/// A bare block states its size at the front.
async fn snappy_block(packed: Bytes, max: usize, meter: &mut Meter) -> Result<Bytes, Fault> {
    let length = snap::raw::decompress_len(&packed).map_err(broken)?;
    if length > max {
        return Err(too_large(max));
    }
    if length > RATIO_FREE.max(packed.len().saturating_mul(RATIO_MAX)) {
        return Err(bomb());
    }
    meter.grow(length as u64).await?;
    let out = catch_unwind(AssertUnwindSafe(|| snap::raw::Decoder::new().decompress_vec(&packed)));
    let out = out.map_err(|_| broken("the decoder gave up"))?.map_err(broken)?;
    drop(packed);
    meter.shrink_to(out.len() as u64);
    Ok(Bytes::from(out))
}
