//! Is this an OTLP request? Answered without decoding it.
//!
//! A spirit level laid along every beam of a house: nobody takes the house apart, but nothing crooked passes. Each message
//! of OTLP is a row in a table (number, type of each field); [`check`] walks the bytes along these rows and gives the same
//! verdict as prost's decoder of the `opentelemetry-proto` types: wire types of known fields, UTF-8 of text, lengths,
//! varints, groups and the nesting limit.
//!
//! Nesting: prost follows 100 message levels, which is what makes 32 nested maps (or 48 nested lists) in a log body, the
//! limit the outside contract names. No other limit is applied, so that nothing legal is refused.
//!
//! The weakness: the tables are written by hand. A test decodes tens of thousands of damaged requests both ways.

use crate::Malformed;
use crate::wire::{self, FIXED32, FIXED64, Fault, LEN, NESTING_MAX, VARINT};

/// Which request the bytes are said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Logs,
    Traces,
    Metrics,
}

/// What is in a request. Unit of `items`: log records, spans or data points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub items: u32,
}

/// Judges a whole `Export{Logs,Trace,Metrics}ServiceRequest` and counts its items. Allocates nothing.
///
/// Errors: [`Malformed`] where prost would refuse too; the sender should be told that the request is invalid and must not
/// be sent again. Never panics. Source: opentelemetry-proto 1.x, prost 0.14 `encoding.rs`.
pub fn check(kind: Request, bytes: &[u8]) -> Result<Counts, Malformed> {
    let shape = match kind {
        Request::Logs => &LOGS_REQUEST,
        Request::Traces => &TRACES_REQUEST,
        Request::Metrics => &METRICS_REQUEST,
    };
    let mut walk = Walk { stopped: None };
    match walk.message(bytes, shape, NESTING_MAX) {
        Ok(items) => Ok(Counts { items }),
        Err(fault) => {
            let (part, address) = walk.stopped.unwrap_or((shape.name, bytes.as_ptr() as usize));
            Err(Malformed { part, what: fault.text(), at: address.saturating_sub(bytes.as_ptr() as usize) })
        }
    }
}

struct Walk {
    /// Where the innermost message failed: its name and the address of the first byte not read.
    stopped: Option<(&'static str, usize)>,
}

impl Walk {
    /// Walks one message. `levels` is prost's `recurse_count`: messages and unknown fields need one, known scalars none.
    fn message(&mut self, mut b: &[u8], shape: &'static Shape, levels: u32) -> Result<u32, Fault> {
        let mut items = u32::from(shape.item);
        let mut chosen = 0;
        while !b.is_empty() {
            match self.field(&mut b, shape, levels) {
                Ok((_, 0)) => {}
                // A oneof keeps the variant that came last: what another variant had counted is gone.
                Ok((number, n)) if shape.oneof && number != chosen => (chosen, items) = (number, n),
                Ok((_, n)) => items = items.saturating_add(n),
                Err(fault) => {
                    self.stopped.get_or_insert((shape.name, b.as_ptr() as usize));
                    return Err(fault);
                }
            }
        }
        Ok(items)
    }

    #[inline(always)]
    fn field(&mut self, b: &mut &[u8], shape: &'static Shape, levels: u32) -> Result<(u32, u32), Fault> {
        let (number, wire) = wire::key(b)?;
        let mut items = 0;
        match (shape.fields.get(number as usize).unwrap_or(&Type::Unknown), wire) {
            (Type::Message(inner), LEN) => {
                if levels == 0 {
                    return Err(Fault::Depth);
                }
                let start = *b;
                let content = wire::bytes(b)?;
                items = self.message(content, inner, levels - 1).inspect_err(|_| *b = start)?;
            }
            (Type::Text, LEN) => drop(str::from_utf8(wire::bytes(b)?).map_err(|_| Fault::Text)?),
            (Type::Bytes, LEN) => drop(wire::bytes(b)?),
            (Type::Varint | Type::Varints, VARINT) => drop(wire::varint(b)?),
            (Type::Fixed64 | Type::Fixed64s, FIXED64) => drop(wire::fixed64(b)?),
            (Type::Fixed32, FIXED32) => drop(wire::fixed32(b)?),
            (Type::Varints, LEN) => {
                let mut packed = wire::bytes(b)?;
                while !packed.is_empty() {
                    wire::varint(&mut packed)?;
                }
            }
            (Type::Fixed64s, LEN) => {
                if !wire::bytes(b)?.len().is_multiple_of(8) {
                    return Err(Fault::Short);
                }
            }
            (Type::Unknown, _) => wire::skip(b, number, wire, levels)?,
            _ => return Err(Fault::Type),
        }
        Ok((number, items))
    }
}

/// The type of a field, as far as a verdict needs it.
#[derive(Clone, Copy)]
enum Type {
    Unknown,
    Varint,
    Fixed64,
    Fixed32,
    Text,
    Bytes,
    /// Repeated numbers, packed or one by one.
    Varints,
    Fixed64s,
    Message(&'static Shape),
}

/// The highest field number of any OTLP message below (`Span.flags`).
const NUMBER_MAX: usize = 16;

/// One message: its fields by number, and whether it is what [`Counts`] counts.
struct Shape {
    name: &'static str,
    fields: [Type; NUMBER_MAX + 1],
    item: bool,
    /// Variants of a oneof hold items: those of a variant that is replaced do not count.
    oneof: bool,
    /// Bit n: field n is a message that is there once, so that a second one is merged into it.
    singular: u32,
    /// All fields are variants of one oneof.
    choice: bool,
}

impl Shape {
    fn knows(&self, number: u32) -> bool {
        !matches!(self.fields.get(number as usize), None | Some(Type::Unknown))
    }
}

const fn shape(name: &'static str, fields: &[(usize, Type)]) -> Shape {
    let mut by_number = [Type::Unknown; NUMBER_MAX + 1];
    let mut i = 0;
    while i < fields.len() {
        by_number[fields[i].0] = fields[i].1;
        i += 1;
    }
    Shape { name, fields: by_number, item: false, oneof: false, singular: 0, choice: false }
}

const fn item(mut shape: Shape) -> Shape {
    shape.item = true;
    shape
}

const fn oneof(mut shape: Shape) -> Shape {
    shape.oneof = true;
    shape
}

const fn singular(mut shape: Shape, number: u32) -> Shape {
    shape.singular |= 1 << number;
    shape
}

const fn choice(mut shape: Shape) -> Shape {
    shape.choice = true;
    shape
}

use Type::{Bytes, Fixed32 as F32, Fixed64 as F64, Fixed64s as F64s, Message as M, Text, Varint, Varints};

// opentelemetry.proto.common.v1 and resource.v1
static ANY_VALUE: Shape = choice(singular(
    singular(
        shape(
            "AnyValue",
            &[
                (1, Text),
                (2, Varint),
                (3, Varint),
                (4, F64),
                (5, M(&ARRAY_VALUE)),
                (6, M(&KEY_VALUE_LIST)),
                (7, Bytes),
                (8, Varint),
            ],
        ),
        5,
    ),
    6,
));
static ARRAY_VALUE: Shape = shape("ArrayValue", &[(1, M(&ANY_VALUE))]);
static KEY_VALUE_LIST: Shape = shape("KeyValueList", &[(1, M(&KEY_VALUE))]);
static KEY_VALUE: Shape = singular(shape("KeyValue", &[(1, Text), (2, M(&ANY_VALUE)), (3, Varint)]), 2);
static SCOPE: Shape = shape("InstrumentationScope", &[(1, Text), (2, Text), (3, M(&KEY_VALUE)), (4, Varint)]);
static ENTITY_REF: Shape = shape("EntityRef", &[(1, Text), (2, Text), (3, Text), (4, Text)]);
static RESOURCE: Shape = shape("Resource", &[(1, M(&KEY_VALUE)), (2, Varint), (3, M(&ENTITY_REF))]);

// opentelemetry.proto.logs.v1
static LOGS_REQUEST: Shape = shape("ExportLogsServiceRequest", &[(1, M(&RESOURCE_LOGS))]);
static RESOURCE_LOGS: Shape = shape("ResourceLogs", &[(1, M(&RESOURCE)), (2, M(&SCOPE_LOGS)), (3, Text)]);
static SCOPE_LOGS: Shape = shape("ScopeLogs", &[(1, M(&SCOPE)), (2, M(&LOG_RECORD)), (3, Text)]);
static LOG_RECORD: Shape = item(singular(
    shape(
        "LogRecord",
        &[
            (1, F64),
            (2, Varint),
            (3, Text),
            (5, M(&ANY_VALUE)),
            (6, M(&KEY_VALUE)),
            (7, Varint),
            (8, F32),
            (9, Bytes),
            (10, Bytes),
            (11, F64),
            (12, Text),
        ],
    ),
    5,
));

// opentelemetry.proto.trace.v1
static TRACES_REQUEST: Shape = shape("ExportTraceServiceRequest", &[(1, M(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Shape = shape("ResourceSpans", &[(1, M(&RESOURCE)), (2, M(&SCOPE_SPANS)), (3, Text)]);
static SCOPE_SPANS: Shape = shape("ScopeSpans", &[(1, M(&SCOPE)), (2, M(&SPAN)), (3, Text)]);
static SPAN: Shape = item(shape(
    "Span",
    &[
        (1, Bytes),
        (2, Bytes),
        (3, Text),
        (4, Bytes),
        (5, Text),
        (6, Varint),
        (7, F64),
        (8, F64),
        (9, M(&KEY_VALUE)),
        (10, Varint),
        (11, M(&EVENT)),
        (12, Varint),
        (13, M(&LINK)),
        (14, Varint),
        (15, M(&STATUS)),
        (16, F32),
    ],
));
static EVENT: Shape = shape("Span.Event", &[(1, F64), (2, Text), (3, M(&KEY_VALUE)), (4, Varint)]);
static LINK: Shape =
    shape("Span.Link", &[(1, Bytes), (2, Bytes), (3, Text), (4, M(&KEY_VALUE)), (5, Varint), (6, F32)]);
static STATUS: Shape = shape("Status", &[(2, Text), (3, Varint)]);

// opentelemetry.proto.metrics.v1
static METRICS_REQUEST: Shape = shape("ExportMetricsServiceRequest", &[(1, M(&RESOURCE_METRICS))]);
static RESOURCE_METRICS: Shape = shape("ResourceMetrics", &[(1, M(&RESOURCE)), (2, M(&SCOPE_METRICS)), (3, Text)]);
static SCOPE_METRICS: Shape = shape("ScopeMetrics", &[(1, M(&SCOPE)), (2, M(&METRIC)), (3, Text)]);
static METRIC: Shape = oneof(shape(
    "Metric",
    &[
        (1, Text),
        (2, Text),
        (3, Text),
        (5, M(&GAUGE)),
        (7, M(&SUM)),
        (9, M(&HISTOGRAM)),
        (10, M(&EXPONENTIAL_HISTOGRAM)),
        (11, M(&SUMMARY)),
        (12, M(&KEY_VALUE)),
    ],
));
static GAUGE: Shape = shape("Gauge", &[(1, M(&NUMBER_POINT))]);
static SUM: Shape = shape("Sum", &[(1, M(&NUMBER_POINT)), (2, Varint), (3, Varint)]);
static HISTOGRAM: Shape = shape("Histogram", &[(1, M(&HISTOGRAM_POINT)), (2, Varint)]);
static EXPONENTIAL_HISTOGRAM: Shape = shape("ExponentialHistogram", &[(1, M(&EXPONENTIAL_POINT)), (2, Varint)]);
static SUMMARY: Shape = shape("Summary", &[(1, M(&SUMMARY_POINT))]);
static NUMBER_POINT: Shape = item(shape(
    "NumberDataPoint",
    &[(2, F64), (3, F64), (4, F64), (5, M(&EXEMPLAR)), (6, F64), (7, M(&KEY_VALUE)), (8, Varint)],
));
static HISTOGRAM_POINT: Shape = item(shape(
    "HistogramDataPoint",
    &[
        (2, F64),
        (3, F64),
        (4, F64),
        (5, F64),
        (6, F64s),
        (7, F64s),
        (8, M(&EXEMPLAR)),
        (9, M(&KEY_VALUE)),
        (10, Varint),
        (11, F64),
        (12, F64),
    ],
));
static EXPONENTIAL_POINT: Shape = item(shape(
    "ExponentialHistogramDataPoint",
    &[
        (1, M(&KEY_VALUE)),
        (2, F64),
        (3, F64),
        (4, F64),
        (5, F64),
        (6, Varint),
        (7, F64),
        (8, M(&BUCKETS)),
        (9, M(&BUCKETS)),
        (10, Varint),
        (11, M(&EXEMPLAR)),
        (12, F64),
        (13, F64),
        (14, F64),
    ],
));
static BUCKETS: Shape = shape("Buckets", &[(1, Varint), (2, Varints)]);
static SUMMARY_POINT: Shape = item(shape(
    "SummaryDataPoint",
    &[(2, F64), (3, F64), (4, F64), (5, F64), (6, M(&QUANTILE)), (7, M(&KEY_VALUE)), (8, Varint)],
));
static QUANTILE: Shape = shape("ValueAtQuantile", &[(1, F64), (2, F64)]);
static EXEMPLAR: Shape = shape("Exemplar", &[(2, F64), (3, F64), (4, Bytes), (5, Bytes), (6, F64), (7, M(&KEY_VALUE))]);

/// A log record in which every singular field is there once, merged as protobuf says. Slow; for what no encoder writes.
pub(crate) fn merged_log_record(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    merged(bytes, &LOG_RECORD, NESTING_MAX)
}

/// The same for a resource.
pub(crate) fn merged_resource(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    merged(bytes, &RESOURCE, NESTING_MAX)
}

/// The same for an instrumentation scope.
pub(crate) fn merged_scope(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    merged(bytes, &SCOPE, NESTING_MAX)
}

/// Copies a message and merges what appears twice: encodings of one message laid end to end are that message merged.
///
/// Of a oneof only what came last stays, together with the run of the same variant before it.
fn merged(bytes: &[u8], shape: &'static Shape, levels: u32) -> Result<Vec<u8>, Fault> {
    let levels = levels.checked_sub(1).ok_or(Fault::Depth)?;
    let mut fields = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let whole = rest;
        let (number, wire) = wire::key(&mut rest)?;
        let content = if wire == LEN {
            wire::bytes(&mut rest)?
        } else {
            wire::skip(&mut rest, number, wire, levels + 1)?;
            &[][..]
        };
        fields.push((number, wire, content, &whole[..whole.len() - rest.len()]));
    }
    if shape.choice {
        fields.retain(|f| shape.knows(f.0));
        let last = fields.last().map_or(0, |f| f.0);
        let run = match shape.singular >> last & 1 {
            1 => fields.iter().rposition(|f| f.0 != last).map_or(0, |i| i + 1),
            _ => fields.len().saturating_sub(1),
        };
        fields.drain(..run);
    }
    let mut out = Vec::with_capacity(bytes.len());
    for (i, &(number, wire, content, whole)) in fields.iter().enumerate() {
        let Some(Type::Message(inner)) = shape.fields.get(number as usize) else {
            out.extend_from_slice(whole);
            continue;
        };
        if wire != LEN {
            return Err(Fault::Type);
        }
        let content = match shape.singular >> number & 1 {
            0 => merged(content, inner, levels)?,
            _ if fields[..i].iter().any(|f| f.0 == number) => continue,
            _ => {
                let same = fields[i..].iter().filter(|f| f.0 == number).map(|f| f.2);
                merged(&same.collect::<Vec<_>>().concat(), inner, levels)?
            }
        };
        wire::put_varint(&mut out, u64::from(number << 3 | u32::from(LEN)));
        wire::put_varint(&mut out, content.len() as u64);
        out.extend_from_slice(&content);
    }
    Ok(out)
}
