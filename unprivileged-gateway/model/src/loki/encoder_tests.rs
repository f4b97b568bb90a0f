use super::*;
use crate::wire::put_bytes;

/// A request of one resource that nobody else sends, with one empty record.
fn request(attribute: &str, value: &str) -> Vec<u8> {
    let (mut resource, mut resource_logs, mut request) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut resource, 1, &resource::encode(attribute, value));
    put_bytes(&mut resource_logs, 1, &resource);
    put_bytes(&mut resource_logs, 2, &[0x12, 0]);
    put_bytes(&mut request, 1, &resource_logs);
    request
}

#[test]
fn memory_does_not_grow_with_the_number_of_resources() {
    let mut encoder = Encoder::new(Options::default());
    let sidecar = Sidecar::default();
    for n in 0..20_000 {
        let value = format!("{n:0>500}");
        let added = encoder.add(n, &sidecar, &request("host.name", &value));
        assert_eq!(added.entries, 1);
        encoder.finish(1, &|_| true);
    }
    assert!(encoder.cache.bytes() < 5 << 20, "{}", encoder.cache.bytes());
    // One that is too large to keep still goes out.
    let added = encoder.add(1, &sidecar, &request("host.name", &"x".repeat(1 << 20)));
    assert_eq!(added.offenders.len(), 1);
    assert!(encoder.cache.bytes() < 5 << 20, "{}", encoder.cache.bytes());
    assert!(encoder.spare.len() <= SPARE_STREAMS);
}

#[test]
fn the_same_bytes_from_two_pods_are_two_streams() {
    let mut encoder = Encoder::new(Options::default());
    for pod in ["a", "b", "a"] {
        let enrichment = vec![("k8s.pod.name".to_owned(), pod.to_owned())];
        let sidecar = Sidecar { enrichment, ..Sidecar::default() };
        encoder.add(1, &sidecar, &request("service.name", "s"));
    }
    let pushes = encoder.finish(1, &|_| true);
    let [push] = &pushes[..] else { panic!("one push") };
    let stream = |pod| format!(r#"{{exporter="OTLP", job="s", pod="{pod}", service_name="s"}}"#);
    assert_eq!((push.entries, &push.streams), (3, &vec![stream("a"), stream("b")]));
}

#[test]
fn a_request_that_grows_without_measure_is_taken_in_bounded_pushes() {
    // Two bytes a record, and 4 KiB of resource that go out with each.
    let mut scope_logs = Vec::new();
    for _ in 0..10_000 {
        put_bytes(&mut scope_logs, 2, &[]);
    }
    let (mut resource, mut resource_logs, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut resource, 1, &resource::encode("host.name", &"x".repeat(4_096)));
    put_bytes(&mut resource_logs, 1, &resource);
    put_bytes(&mut resource_logs, 2, &scope_logs);
    put_bytes(&mut bytes, 1, &resource_logs);
    let mut encoder = Encoder::new(Options::default());
    let (mut place, mut entries, mut pushes) = (Some(Place::default()), 0, 0);
    while let Some(from) = place {
        let added = encoder.add_from(1, &Sidecar::default(), &bytes, from, 1 << 20);
        (place, entries, pushes) = (added.next, entries + added.entries, pushes + 1);
        assert!(encoder.bytes() < (1 << 20) + 8_192);
        assert!(encoder.finish(1, &|_| true).iter().all(|p| p.raw_bytes < (1 << 20) + 9_000));
    }
    assert_eq!((entries, pushes), (10_000, 40));
}

#[test]
fn a_record_that_cannot_be_read_is_an_offender_and_its_neighbours_go_out() {
    let (mut scope_logs, mut resource_logs, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for record in [&[][..], b"\x2a\x05x", b"\x08\x01", &[]] {
        put_bytes(&mut scope_logs, 2, record);
    }
    put_bytes(&mut resource_logs, 2, &scope_logs);
    put_bytes(&mut bytes, 1, &resource_logs);
    let mut encoder = Encoder::new(Options::default());
    let added = encoder.add(1, &Sidecar::default(), &bytes);
    let reasons: Vec<_> = added.offenders.iter().map(|o| (o.reason, &o.detail[..])).collect();
    let short = ("malformed", Fault::Short.text());
    assert_eq!((added.entries, reasons), (2, vec![short, ("malformed", Fault::Type.text())]));
    assert_eq!(added.malformed, None);

    bytes.push(0x0a); // and now the request itself is cut off
    let added = encoder.add(2, &Sidecar::default(), &bytes);
    assert_eq!((added.entries, added.offenders.len()), (2, 2));
    assert!(added.malformed.is_some());
}
