//! Sockets and protocols: how many connections, how much was lost.
//!
//! Two files of labelled numbers in the kernel's own spelling, which node-exporter puts behind a prefix and leaves as it is.
//! Weakness: without IPv6 some files do not exist; then their rows are missing, which is no failure.

use super::Page;
use super::files::{Reason, Root, Unread, malformed, number};
use super::kernel::is_name;
use model::series::Type::{Gauge, Unknown};

/// What node-exporter takes of the protocols by default.
const PROTOCOL_FIELDS: [(&str, &[&str]); 10] = [
    ("Icmp", &["InErrors", "InMsgs", "OutMsgs"]),
    ("Icmp6", &["InErrors", "InMsgs", "OutMsgs"]),
    ("Ip", &["Forwarding"]),
    ("Ip6", &["InOctets", "OutOctets"]),
    ("IpExt", &["InOctets", "OutOctets"]),
    ("Tcp", &["ActiveOpens", "InSegs", "OutSegs", "OutRsts", "PassiveOpens", "RetransSegs", "CurrEstab", "InErrs"]),
    (
        "TcpExt",
        &[
            "ListenDrops",
            "ListenOverflows",
            "SyncookiesFailed",
            "SyncookiesRecv",
            "SyncookiesSent",
            "TCPSynRetrans",
            "TCPTimeouts",
        ],
    ),
    ("Udp", UDP),
    ("Udp6", UDP),
    ("UdpLite", &["InErrors"]),
];
const UDP: &[&str] = &["InDatagrams", "OutDatagrams", "InErrors", "NoPorts", "RcvbufErrors", "SndbufErrors"];

pub(super) fn protocols(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let mut found = Vec::new();
    for file in ["net/netstat", "net/snmp"] {
        two_lines(file, &root.read(file)?, &mut found)?;
    }
    if let Some(text) = if_there(root.read("net/snmp6"))? {
        one_each(&text, &mut found)?;
    }
    for (protocol, field, value) in found {
        let help = format!("Statistic {protocol}{field}.");
        page.one(&format!("node_netstat_{protocol}_{field}"), Unknown, &help, value);
    }
    Ok(())
}

fn is_wanted(protocol: &str, field: &str) -> bool {
    // UdpLite6 is one of Udp's kin, with the one field of UdpLite.
    let protocol = if protocol == "UdpLite6" { "UdpLite" } else { protocol };
    PROTOCOL_FIELDS.iter().any(|(known, fields)| *known == protocol && fields.contains(&field))
}

/// `Tcp: names...` and on the next line `Tcp: numbers...`.
fn two_lines(file: &str, text: &str, found: &mut Vec<(String, String, f64)>) -> Result<(), Unread> {
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks(2) {
        let parsed = (|| {
            let [names, values] = pair else { return None };
            let ((protocol, names), (again, values)) = (names.split_once(':')?, values.split_once(':')?);
            (protocol == again).then_some((protocol, names, values))
        })();
        let (protocol, names, values) = parsed.ok_or_else(|| malformed(file, "pair of lines"))?;
        for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
            if is_wanted(protocol, name) {
                let value = number(value).ok_or_else(|| malformed(file, "number"))?;
                found.push((protocol.to_owned(), name.to_owned(), value));
            }
        }
    }
    Ok(())
}

/// `Udp6InDatagrams  123` a line.
fn one_each(text: &str, found: &mut Vec<(String, String, f64)>) -> Result<(), Unread> {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
        let Some((protocol, field)) = key.split_once('6').map(|(stem, field)| (format!("{stem}6"), field)) else {
            continue;
        };
        if is_wanted(&protocol, field) {
            let value = number(value).ok_or_else(|| malformed("net/snmp6", "number"))?;
            found.push((protocol, field.to_owned(), value));
        }
    }
    Ok(())
}

pub(super) fn sockets(root: &Root, page: &mut Page<'_>) -> Result<(), Unread> {
    let mut rows = Vec::new();
    for file in ["net/sockstat", "net/sockstat6"] {
        let Some(text) = if_there(root.read(file))? else { continue };
        for line in text.lines() {
            let (protocol, rest) = line.split_once(':').ok_or_else(|| malformed(file, "protocol on a line"))?;
            let words: Vec<&str> = rest.split_ascii_whitespace().collect();
            for pair in words.chunks(2) {
                let value = pair.get(1).copied().and_then(number).ok_or_else(|| malformed(file, "number"))?;
                rows.push((protocol.to_owned(), pair[0].to_owned(), value));
            }
        }
    }
    for (protocol, field, value) in rows.iter().filter(|(protocol, field, _)| is_name(protocol) && is_name(field)) {
        if protocol == "sockets" && field == "used" {
            page.one("node_sockstat_sockets_used", Gauge, "Number of IPv4 sockets in use.", *value);
            continue;
        }
        let help = format!("Number of {protocol} sockets in state {field}.");
        page.one(&format!("node_sockstat_{protocol}_{field}"), Gauge, &help, *value);
        if field == "mem" {
            let help = format!("Number of {protocol} sockets in state mem_bytes.");
            page.one(&format!("node_sockstat_{protocol}_mem_bytes"), Gauge, &help, *value * page_bytes());
        }
    }
    Ok(())
}

/// Bytes of a memory page.
fn page_bytes() -> f64 {
    let bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    bytes.map_or(4096.0, |bytes| bytes as f64)
}

/// A file that not every kernel has.
fn if_there(read: Result<String, Unread>) -> Result<Option<String>, Unread> {
    match read {
        Ok(text) => Ok(Some(text)),
        Err(unread) if unread.reason == Reason::Missing => Ok(None),
        Err(unread) => Err(unread),
    }
}
