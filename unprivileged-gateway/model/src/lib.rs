#![forbid(unsafe_code)]
//! Pure codecs: bytes in, bytes out. No socket, no clock, no disk.

pub mod envelope;
