//! OTLP's messages as tables: what a JSON name becomes on the wire.
//!
//! Like the key of a map: no logic, one row a field. Source: opentelemetry-proto 1.x, `common`, `resource`, `logs`, `trace`,
//! `metrics`. A test holds it against the descriptors published with the `opentelemetry-proto` crate. Weakness: a field added
//! upstream is ignored in JSON until its row is added here.

/// How a value is written.
#[derive(Clone, Copy)]
pub(super) enum Type {
    Text,
    /// Base64.
    Base64,
    /// Hex of exactly so many bytes, or empty: trace and span ids (OTLP's exception to the JSON mapping of protobuf).
    Id(usize),
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    /// A number or a name.
    Enum(&'static [&'static str]),
    Message(&'static Message),
}

/// How often, and whether its default is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// A default value is as good as absent.
    Plain,
    /// Written even if it is the default: members of a oneof and `optional` fields.
    Explicit,
    /// An array.
    Repeated,
}

pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) kind: Type,
    pub(super) presence: Presence,
}

pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
}

const fn one(name: &'static str, number: u32, kind: Type) -> Field {
    Field { name, number, kind, presence: Presence::Plain }
}

const fn explicit(name: &'static str, number: u32, kind: Type) -> Field {
    Field { name, number, kind, presence: Presence::Explicit }
}

const fn many(name: &'static str, number: u32, kind: Type) -> Field {
    Field { name, number, kind, presence: Presence::Repeated }
}

const TRACE_ID: Type = Type::Id(16);
const SPAN_ID: Type = Type::Id(8);

macro_rules! messages {
    ($($name:ident = [$($field:expr),* $(,)?];)*) => {
        $(pub(super) static $name: Message = Message { name: stringify!($name), fields: &[$($field),*] };)*
        /// All of them, for the test that compares them with the published descriptors.
        #[cfg(test)]
        pub(super) static ALL: &[&Message] = &[$(&$name),*];
    };
}

const TEMPORALITY: Type = Type::Enum(&[
    "AGGREGATION_TEMPORALITY_UNSPECIFIED",
    "AGGREGATION_TEMPORALITY_DELTA",
    "AGGREGATION_TEMPORALITY_CUMULATIVE",
]);
const SPAN_KIND: Type = Type::Enum(&[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
]);
const STATUS_CODE: Type = Type::Enum(&["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"]);
const SEVERITY: Type = Type::Enum(&[
    "SEVERITY_NUMBER_UNSPECIFIED",
    "SEVERITY_NUMBER_TRACE",
    "SEVERITY_NUMBER_TRACE2",
    "SEVERITY_NUMBER_TRACE3",
    "SEVERITY_NUMBER_TRACE4",
    "SEVERITY_NUMBER_DEBUG",
    "SEVERITY_NUMBER_DEBUG2",
    "SEVERITY_NUMBER_DEBUG3",
    "SEVERITY_NUMBER_DEBUG4",
    "SEVERITY_NUMBER_INFO",
    "SEVERITY_NUMBER_INFO2",
    "SEVERITY_NUMBER_INFO3",
    "SEVERITY_NUMBER_INFO4",
    "SEVERITY_NUMBER_WARN",
    "SEVERITY_NUMBER_WARN2",
    "SEVERITY_NUMBER_WARN3",
    "SEVERITY_NUMBER_WARN4",
    "SEVERITY_NUMBER_ERROR",
    "SEVERITY_NUMBER_ERROR2",
    "SEVERITY_NUMBER_ERROR3",
    "SEVERITY_NUMBER_ERROR4",
    "SEVERITY_NUMBER_FATAL",
    "SEVERITY_NUMBER_FATAL2",
    "SEVERITY_NUMBER_FATAL3",
    "SEVERITY_NUMBER_FATAL4",
]);

messages! {
    ANY_VALUE = [
        explicit("stringValue", 1, Type::Text),
        explicit("boolValue", 2, Type::Bool),
        explicit("intValue", 3, Type::Int64),
        explicit("doubleValue", 4, Type::Double),
        explicit("arrayValue", 5, Type::Message(&ARRAY_VALUE)),
        explicit("kvlistValue", 6, Type::Message(&KEY_VALUE_LIST)),
        explicit("bytesValue", 7, Type::Base64),
        explicit("stringValueStrindex", 8, Type::Int32),
    ];
    ARRAY_VALUE = [many("values", 1, Type::Message(&ANY_VALUE))];
    KEY_VALUE_LIST = [many("values", 1, Type::Message(&KEY_VALUE))];
    KEY_VALUE = [one("key", 1, Type::Text), one("value", 2, Type::Message(&ANY_VALUE)), one("keyStrindex", 3, Type::Int32)];
    INSTRUMENTATION_SCOPE = [
        one("name", 1, Type::Text),
        one("version", 2, Type::Text),
        many("attributes", 3, Type::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 4, Type::Uint32),
    ];
    ENTITY_REF = [
        one("schemaUrl", 1, Type::Text),
        one("type", 2, Type::Text),
        many("idKeys", 3, Type::Text),
        many("descriptionKeys", 4, Type::Text),
    ];
    RESOURCE = [
        many("attributes", 1, Type::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 2, Type::Uint32),
        many("entityRefs", 3, Type::Message(&ENTITY_REF)),
    ];
    EXPORT_LOGS_SERVICE_REQUEST = [many("resourceLogs", 1, Type::Message(&RESOURCE_LOGS))];
    RESOURCE_LOGS = [
        one("resource", 1, Type::Message(&RESOURCE)),
        many("scopeLogs", 2, Type::Message(&SCOPE_LOGS)),
        one("schemaUrl", 3, Type::Text),
    ];
    SCOPE_LOGS = [
        one("scope", 1, Type::Message(&INSTRUMENTATION_SCOPE)),
        many("logRecords", 2, Type::Message(&LOG_RECORD)),
        one("schemaUrl", 3, Type::Text),
    ];
    LOG_RECORD = [
        one("timeUnixNano", 1, Type::Fixed64),
        one("observedTimeUnixNano", 11, Type::Fixed64),
        one("severityNumber", 2, SEVERITY),
        one("severityText", 3, Type::Text),
        one("body", 5, Type::Message(&ANY_VALUE)),
        many("attributes", 6, Type::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 7, Type::Uint32),
        one("flags", 8, Type::Fixed32),
        one("traceId", 9, TRACE_ID),
        one("spanId", 10, SPAN_ID),
        one("eventName", 12, Type::Text),
    ];
    EXPORT_TRACE_SERVICE_REQUEST = [many("resourceSpans", 1, Type::Message(&RESOURCE_SPANS))];
    RESOURCE_SPANS = [
        one("resource", 1, Type::Message(&RESOURCE)),
        many("scopeSpans", 2, Type::Message(&SCOPE_SPANS)),
        one("schemaUrl", 3, Type::Text),
    ];
    SCOPE_SPANS = [
        one("scope", 1, Type::Message(&INSTRUMENTATION_SCOPE)),
        many("spans", 2, Type::Message(&SPAN)),
        one("schemaUrl", 3, Type::Text),
    ];
    SPAN = [
        one("traceId", 1, TRACE_ID),
        one("spanId", 2, SPAN_ID),
        one("traceState", 3, Type::Text),
        one("parentSpanId", 4, SPAN_ID),
        one("flags", 16, Type::Fixed32),
        one("name", 5, Type::Text),
        one("kind", 6, SPAN_KIND),
        one("startTimeUnixNano", 7, Type::Fixed64),
        one("endTimeUnixNano", 8, Type::Fixed64),
        many("attributes", 9, Type::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 10, Type::Uint32),
        many("events", 11, Type::Message(&EVENT)),
        one("droppedEventsCount", 12, Type::Uint32),
        many("links", 13, Type::Message(&LINK)),
        one("droppedLinksCount", 14, Type::Uint32),
        one("status", 15, Type::Message(&STATUS)),
    ];
    EVENT = [
        one("timeUnixNano", 1, Type::Fixed64),
        one("name", 2, Type::Text),
        many("attributes", 3, Type::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 4, Type::Uint32),
    ];
    LINK = [
        one("traceId", 1, TRACE_ID),
        one("spanId", 2, SPAN_ID),
        one("traceState", 3, Type::Text),
        many("attributes", 4, Type::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 5, Type::Uint32),
        one("flags", 6, Type::Fixed32),
    ];
    STATUS = [one("message", 2, Type::Text), one("code", 3, STATUS_CODE)];
    EXPORT_METRICS_SERVICE_REQUEST = [many("resourceMetrics", 1, Type::Message(&RESOURCE_METRICS))];
    RESOURCE_METRICS = [
        one("resource", 1, Type::Message(&RESOURCE)),
        many("scopeMetrics", 2, Type::Message(&SCOPE_METRICS)),
        one("schemaUrl", 3, Type::Text),
    ];
    SCOPE_METRICS = [
        one("scope", 1, Type::Message(&INSTRUMENTATION_SCOPE)),
        many("metrics", 2, Type::Message(&METRIC)),
        one("schemaUrl", 3, Type::Text),
    ];
    METRIC = [
        one("name", 1, Type::Text),
        one("description", 2, Type::Text),
        one("unit", 3, Type::Text),
        explicit("gauge", 5, Type::Message(&GAUGE)),
        explicit("sum", 7, Type::Message(&SUM)),
        explicit("histogram", 9, Type::Message(&HISTOGRAM)),
        explicit("exponentialHistogram", 10, Type::Message(&EXPONENTIAL_HISTOGRAM)),
        explicit("summary", 11, Type::Message(&SUMMARY)),
        many("metadata", 12, Type::Message(&KEY_VALUE)),
    ];
    GAUGE = [many("dataPoints", 1, Type::Message(&NUMBER_DATA_POINT))];
    SUM = [
        many("dataPoints", 1, Type::Message(&NUMBER_DATA_POINT)),
        one("aggregationTemporality", 2, TEMPORALITY),
        one("isMonotonic", 3, Type::Bool),
    ];
    HISTOGRAM = [
        many("dataPoints", 1, Type::Message(&HISTOGRAM_DATA_POINT)),
        one("aggregationTemporality", 2, TEMPORALITY),
    ];
    EXPONENTIAL_HISTOGRAM = [
        many("dataPoints", 1, Type::Message(&EXPONENTIAL_HISTOGRAM_DATA_POINT)),
        one("aggregationTemporality", 2, TEMPORALITY),
    ];
    SUMMARY = [many("dataPoints", 1, Type::Message(&SUMMARY_DATA_POINT))];
    NUMBER_DATA_POINT = [
        many("attributes", 7, Type::Message(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Type::Fixed64),
        one("timeUnixNano", 3, Type::Fixed64),
        explicit("asDouble", 4, Type::Double),
        explicit("asInt", 6, Type::Sfixed64),
        many("exemplars", 5, Type::Message(&EXEMPLAR)),
        one("flags", 8, Type::Uint32),
    ];
    HISTOGRAM_DATA_POINT = [
        many("attributes", 9, Type::Message(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Type::Fixed64),
        one("timeUnixNano", 3, Type::Fixed64),
        one("count", 4, Type::Fixed64),
        explicit("sum", 5, Type::Double),
        many("bucketCounts", 6, Type::Fixed64),
        many("explicitBounds", 7, Type::Double),
        many("exemplars", 8, Type::Message(&EXEMPLAR)),
        one("flags", 10, Type::Uint32),
        explicit("min", 11, Type::Double),
        explicit("max", 12, Type::Double),
    ];
    EXPONENTIAL_HISTOGRAM_DATA_POINT = [
        many("attributes", 1, Type::Message(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Type::Fixed64),
        one("timeUnixNano", 3, Type::Fixed64),
        one("count", 4, Type::Fixed64),
        explicit("sum", 5, Type::Double),
        one("scale", 6, Type::Sint32),
        one("zeroCount", 7, Type::Fixed64),
        one("positive", 8, Type::Message(&BUCKETS)),
        one("negative", 9, Type::Message(&BUCKETS)),
        one("flags", 10, Type::Uint32),
        many("exemplars", 11, Type::Message(&EXEMPLAR)),
        explicit("min", 12, Type::Double),
        explicit("max", 13, Type::Double),
        one("zeroThreshold", 14, Type::Double),
    ];
    BUCKETS = [one("offset", 1, Type::Sint32), many("bucketCounts", 2, Type::Uint64)];
    SUMMARY_DATA_POINT = [
        many("attributes", 7, Type::Message(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Type::Fixed64),
        one("timeUnixNano", 3, Type::Fixed64),
        one("count", 4, Type::Fixed64),
        one("sum", 5, Type::Double),
        many("quantileValues", 6, Type::Message(&VALUE_AT_QUANTILE)),
        one("flags", 8, Type::Uint32),
    ];
    VALUE_AT_QUANTILE = [one("quantile", 1, Type::Double), one("value", 2, Type::Double)];
    EXEMPLAR = [
        many("filteredAttributes", 7, Type::Message(&KEY_VALUE)),
        one("timeUnixNano", 2, Type::Fixed64),
        explicit("asDouble", 3, Type::Double),
        explicit("asInt", 6, Type::Sfixed64),
        one("spanId", 4, SPAN_ID),
        one("traceId", 5, TRACE_ID),
    ];
}
