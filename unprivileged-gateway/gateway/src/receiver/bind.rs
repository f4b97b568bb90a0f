//! Taking a port, and naming who has it when it is taken.
//!
//! Like finding a parked car on one's own place: the complaint is of use only with the number plate. The kernel lists listening
//! sockets with their inode, and each process lists its own. Weakness: other users' processes hide their descriptors from us;
//! then the error says how a person with more rights finds out.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait in the kernel for their accept.
const BACKLOG: u32 = 1024;
/// State "listening" in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// A listener that could not be opened; nothing else was started. `main` exits 69.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process, or another part of this one, listens there.
    #[error("cannot listen on {address} ({key}): the port is taken by {holder}; stop it or change {key}")]
    Taken { key: &'static str, address: SocketAddr, holder: Holder },
    /// The address is not ours, or the port needs a privilege, or the system refuses for another reason.
    #[error("cannot listen on {address} ({key}): {source}; check that this machine has that address and change {key}")]
    Failed { key: &'static str, address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Tls(#[from] crate::tls::TlsError),
    /// An open door off loopback that nobody asked for.
    #[error(
        "{key} listens on {address}, which others can reach, without auth: set receive.otlp.auth, or write `auth: none`"
    )]
    Unprotected { key: &'static str, address: SocketAddr },
    /// Client certificates are asked for, but nothing says whose.
    #[error("receive.otlp.auth is mtls, which needs receive.otlp.tls with client_ca_file: name the file")]
    NoClientCa,
}

/// Who listens on a port.
#[derive(Debug, PartialEq, Eq)]
pub enum Holder {
    Process { pid: u32, name: String },
    Unknown { port: u16 },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Holder::Unknown { port } => {
                write!(f, "a process of another user (as root, `ss -ltnp 'sport = :{port}'` names it)")
            }
        }
    }
}

/// Opens a listener. Must run inside a tokio runtime.
pub fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    open(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { key, address, holder: holder(address.port()) },
        _ => BindError::Failed { key, address, source },
    })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for old connections to be forgotten by the kernel.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The process that listens on a TCP port of this machine, as far as we may know.
pub fn holder(port: u16) -> Holder {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let inodes: Vec<String> = tables.iter().flat_map(|table| listening_inodes(table, port)).collect();
    let process = if inodes.is_empty() { None } else { process_with_socket(&inodes) };
    match process {
        Some((pid, name)) => Holder::Process { pid, name },
        None => Holder::Unknown { port },
    }
}

/// Inodes of sockets that listen on `port`, out of the text of `/proc/net/tcp`.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let wanted = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
            (local.ends_with(&wanted) && *state == LISTENING).then(|| (*inode).to_owned())
        })
        .collect()
}

fn process_with_socket(inodes: &[String]) -> Option<(u32, String)> {
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Not ours to read, or already gone: the next one.
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = descriptors.flatten().any(|descriptor| {
            std::fs::read_link(descriptor.path())
                .is_ok_and(|target| wanted.iter().any(|socket| target == Path::new(socket)))
        });
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((pid, name.trim_end().to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_found_among_others() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:10DD 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n\
            1: 0100007F:10DD 0100007F:9000 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 100 0 0 10 0\n\
            2: 0100007F:10DE 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4713 1 0 100 0 0 10 0\n\
            3: torn";
        assert_eq!(listening_inodes(table, 4317), ["4711"]);
        assert!(listening_inodes("", 4317).is_empty());
    }

    #[tokio::test]
    async fn a_taken_port_is_refused_with_the_name_of_its_holder() -> Result<(), Box<dyn std::error::Error>> {
        let first = listen("receive.otlp.grpc", "127.0.0.1:0".parse()?)?;
        let address = first.local_addr()?;
        let Err(error) = listen("receive.otlp.grpc", address) else { return Err("bound twice".into()) };
        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        assert!(text.contains("receive.otlp.grpc"), "{text}");
        Ok(())
    }

    #[tokio::test]
    async fn an_address_that_is_not_ours_is_named() -> Result<(), Box<dyn std::error::Error>> {
        let Err(error) = listen("receive.otlp.http", "192.0.2.1:4318".parse()?) else { return Err("bound".into()) };
        assert!(matches!(error, BindError::Failed { .. }));
        assert!(error.to_string().contains("192.0.2.1:4318"));
        Ok(())
    }
}
