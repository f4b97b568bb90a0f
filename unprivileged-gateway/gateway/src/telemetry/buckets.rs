//! Histogram bounds. Those of Alloy's names are Alloy's (alloy-parity 9.5, 9.6).

/// Seconds; the Prometheus client's defaults.
pub(super) const REQUEST_S: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds; a sync takes from tens of microseconds (a fast device) to seconds (a dying one).
pub(super) const COMMIT_S: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Bytes: 1 KiB to 20 MiB.
pub(super) const REQUEST_BYTES: [f64; 12] = [
    1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 524288.0, 1048576.0, 2097152.0, 4194304.0, 8388608.0, 16777216.0,
    20971520.0,
];
/// Records a request.
pub(super) const BATCH_ITEMS: [f64; 15] =
    [10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2000.0, 3000.0, 5000.0, 10000.0, 50000.0, 100000.0];
/// Seconds from receipt to the backend.
pub(super) const PROPAGATION_S: [f64; 10] = [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Milliseconds of one call, OpenTelemetry's defaults.
pub(super) const CALL_MS: [f64; 15] =
    [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];
