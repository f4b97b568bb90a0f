//! Whether the world outside agrees with the configuration: folders, files, backends.
//!
//! Like knocking at each door on the street before moving in: is the cellar dry (storage), do the keys exist (credential and
//! certificate files), does anybody open (one TCP handshake a backend; the probe's socket is only looked at). All doors are knocked
//! at once, so the wait is that of the slowest. Weakness: a handshake proves an open port, not the right server behind it; and
//! nothing is reserved by asking.

use super::secret::read_file;
use super::server::{Auth, ServerTls};
use super::{ClientTls, Common, Config, OutTls, SecretSource};
use http::Uri;
use serde::Serialize;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long one backend may take to accept a connection, name lookup included.
pub const CONNECT_MAX: Duration = Duration::from_secs(3);

/// What kind of thing was asked; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    Storage,
    File,
    Backend,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub subject: Subject,
    /// The configuration path.
    pub path: String,
    pub ok: bool,
    /// What was found; where it is wrong, with what to do.
    pub text: String,
}

/// Asks everything. Takes as long as the slowest backend, at most [`CONNECT_MAX`].
pub fn reach(config: &Config) -> Vec<Answer> {
    let mut answers = vec![storage(&config.storage.path)];
    files(config, &mut answers);
    local_sources(config, &mut answers);
    answers.extend(backends(config));
    answers
}

fn storage(path: &Path) -> Answer {
    let answer = |ok, text| Answer { subject: Subject::Storage, path: "storage.path".to_owned(), ok, text };
    let shown = path.display();
    let nearest = path.ancestors().map(|part| if part.as_os_str().is_empty() { Path::new(".") } else { part });
    let Some(existing) = nearest.into_iter().find(|part| part.exists()) else {
        return answer(false, format!("{shown}: no part of this path exists; name another folder"));
    };
    if !existing.is_dir() {
        return answer(false, format!("{} is not a folder; name another one", existing.display()));
    }
    let probe = existing.join(format!(".bulkhead-check-{}", std::process::id()));
    match std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)) {
        Ok(()) if existing == path => answer(true, format!("{shown} is writable")),
        Ok(()) => answer(true, format!("{shown} does not exist yet and can be made")),
        Err(error) => answer(
            false,
            format!("cannot write in {}: {error}; change its owner or name another folder", existing.display()),
        ),
    }
}

fn files(config: &Config, answers: &mut Vec<Answer>) {
    server_files("http", config.http.tls.as_ref(), &config.http.auth, answers);
    if let Some(otlp) = &config.receive.otlp {
        server_files("receive.otlp", otlp.tls.as_ref(), &otlp.auth, answers);
    }
    for (path, common) in destinations(config).map(|(path, common, _)| (path, common)) {
        if let Some(OutTls::On(ClientTls { ca_file, cert_file, key_file, .. })) = &common.tls {
            for (key, file) in [("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)] {
                file.iter().for_each(|file| readable(&format!("{path}.tls.{key}"), file, answers));
            }
        }
        common.bearer_file.iter().for_each(|file| credential(&format!("{path}.bearer_file"), file, answers));
        if let Some(SecretSource::File(file)) = common.basic.as_ref().map(|basic| &basic.password) {
            credential(&format!("{path}.basic.password_file"), file, answers);
        }
        for (name, value) in &common.headers {
            if let SecretSource::File(file) = value {
                credential(&format!("{path}.headers.{name}.file"), file, answers);
            }
        }
    }
}

fn server_files(section: &str, tls: Option<&ServerTls>, auth: &Auth, answers: &mut Vec<Answer>) {
    if let Some(tls) = tls {
        readable(&format!("{section}.tls.cert_file"), &tls.cert_file, answers);
        readable(&format!("{section}.tls.key_file"), &tls.key_file, answers);
        tls.client_ca_file.iter().for_each(|file| readable(&format!("{section}.tls.client_ca_file"), file, answers));
    }
    match auth {
        Auth::Bearer(SecretSource::File(file)) => credential(&format!("{section}.auth.bearer_file"), file, answers),
        Auth::Basic(basic) => {
            if let SecretSource::File(file) = &basic.password {
                credential(&format!("{section}.auth.basic.password_file"), file, answers);
            }
        }
        _ => {}
    }
}

fn readable(path: &str, file: &Path, answers: &mut Vec<Answer>) {
    let (ok, text) = match std::fs::File::open(file) {
        Ok(_) => (true, format!("{} can be read", file.display())),
        Err(error) => (false, format!("cannot read {}: {error}; check the path and who may read it", file.display())),
    };
    answers.push(Answer { subject: Subject::File, path: path.to_owned(), ok, text });
}

fn credential(path: &str, file: &Path, answers: &mut Vec<Answer>) {
    let (ok, text) = match read_file(file) {
        Ok(_) => (true, format!("{} holds a credential", file.display())),
        Err(error) => (false, error.to_string()),
    };
    answers.push(Answer { subject: Subject::File, path: path.to_owned(), ok, text });
}

/// The probe's socket is looked at and not dialled: the probe has one client, and that is the running gateway.
fn local_sources(config: &Config, answers: &mut Vec<Answer>) {
    let mut answer = |path: &str, ok, text| {
        answers.push(Answer { subject: Subject::Backend, path: path.to_owned(), ok, text });
    };
    if let Some(probe) = &config.probe {
        let shown = probe.socket.display();
        let (ok, text) = match std::fs::metadata(&probe.socket) {
            Ok(found) if found.file_type().is_socket() => (true, format!("{shown} is a socket")),
            Ok(_) => (false, format!("{shown} is no socket; give the path that the probe was started with")),
            Err(error) => (false, format!("no probe at {shown}: {error}; start the probe, or remove `probe`")),
        };
        answer("probe.socket", ok, text);
    }
    let Some(journal) = config.logs.as_ref().and_then(|logs| logs.journal.as_ref()) else { return };
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join("journalctl")).find(|path| path.is_file());
    match found {
        Some(program) => answer("logs.journal", true, format!("{} reads the journal", program.display())),
        None => {
            let text = "there is no journalctl on the PATH; install systemd's tools, or remove `logs.journal`";
            answer("logs.journal", false, text.to_owned());
        }
    }
    if let Some(folder) = &journal.directory {
        let (ok, text) = match std::fs::read_dir(folder) {
            Ok(_) => (true, format!("{} can be read", folder.display())),
            Err(error) => (false, format!("cannot read {}: {error}; check the path and its group", folder.display())),
        };
        answer("logs.journal.directory", ok, text);
    }
}

/// Path, common part and address of every destination.
fn destinations(config: &Config) -> impl Iterator<Item = (String, &Common, &str)> {
    let loki = config.send.loki.iter().map(|(name, to)| (format!("send.loki.{name}"), &to.common, to.url.as_str()));
    let otlp =
        config.send.otlp.iter().map(|(name, to)| (format!("send.otlp.{name}"), &to.common, to.endpoint.as_str()));
    let pyroscope = &config.send.pyroscope;
    let pyroscope = pyroscope.iter().map(|(name, to)| (format!("send.pyroscope.{name}"), &to.common, to.url.as_str()));
    loki.chain(otlp).chain(pyroscope)
}

fn backends(config: &Config) -> Vec<Answer> {
    let (sender, receiver) = mpsc::channel();
    let deadline = Instant::now() + CONNECT_MAX;
    let mut waiting = Vec::new();
    for (path, _, address) in destinations(config) {
        let Some((host, port)) = host_and_port(address) else { continue };
        waiting.push((path.clone(), host.clone(), port));
        let sender = sender.clone();
        // Name lookup has no time limit of its own, so each lookup gets a thread that may be left behind.
        std::thread::spawn(move || sender.send((path, connect(&host, port, deadline))));
    }
    let mut answers = Vec::new();
    let answer = |path: String, ok, text| Answer { subject: Subject::Backend, path, ok, text };
    while !waiting.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok((path, result)) = receiver.recv_timeout(left) else { break };
        waiting.retain(|(other, ..)| *other != path);
        match result {
            Ok(address) => answers.push(answer(path, true, format!("connected to {address}"))),
            Err(why) => answers.push(answer(path, false, why)),
        }
    }
    for (path, host, port) in waiting {
        let text = format!("{host}:{port} did not answer within {CONNECT_MAX:?}; check the address and the network");
        answers.push(answer(path, false, text));
    }
    answers.sort_by(|a, b| a.path.cmp(&b.path));
    answers
}

/// Host and port of a URL or of `host:port`; the scheme's port where none is written.
pub(super) fn host_and_port(address: &str) -> Option<(String, u16)> {
    let whole = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let uri: Uri = whole.parse().ok()?;
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    Some((host, uri.port_u16().unwrap_or(usual)))
}

fn connect(host: &str, port: u16, deadline: Instant) -> Result<String, String> {
    let name = format!("{host}:{port}");
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("cannot look up {host}: {error}; check the name and the resolver"))?;
    let mut last = format!("{name} has no address; check the name");
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(_) => return Ok(address.to_string()),
            Err(error) => last = format!("cannot connect to {name} ({address}): {error}; is the backend running?"),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Imagined, Layer, Override, Request, load};

    fn config(sets: &[String]) -> Option<Config> {
        let one = |text: &String| Override {
            layer: Layer::Flag,
            name: "--set".to_owned(),
            value: crate::config::Given::Set(text.clone()),
        };
        let request = Request { overrides: sets.iter().map(one).collect(), ..Request::default() };
        load(&request, &Imagined::default()).ok().map(|loaded| loaded.config)
    }

    #[test]
    fn a_backend_that_listens_is_told_from_one_that_does_not() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let open = listener.local_addr()?.port();
        let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = config(&[
            format!("storage.path={}", folder.path().join("a/b").display()),
            format!("send.otlp.open={{ endpoint: \"127.0.0.1:{open}\", tls: off }}"),
            format!("send.loki.closed.url=http://127.0.0.1:{closed}/loki/api/v1/push"),
            format!("send.loki.closed.bearer_file={}", folder.path().join("none").display()),
        ]);
        let answers = config.as_ref().map(reach).unwrap_or_default();
        let ok = |path: &str| answers.iter().find(|answer| answer.path == path).map(|answer| answer.ok);
        assert_eq!(ok("send.otlp.open"), Some(true), "{answers:?}");
        assert_eq!(ok("send.loki.closed"), Some(false));
        assert_eq!(ok("send.loki.closed.bearer_file"), Some(false));
        assert_eq!(ok("storage.path"), Some(true));
        assert!(!folder.path().join("a").exists(), "asking must not make the folder");
        Ok(())
    }

    #[test]
    fn a_probe_is_looked_for_and_not_disturbed() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("probe.sock");
        let asked = |more: &str| {
            let sets = [format!("probe.socket={}", socket.display()), format!("storage.path={more}")];
            let answers = config(&sets).as_ref().map(reach).unwrap_or_default();
            answers.into_iter().find(|answer| answer.path == "probe.socket").map(|answer| (answer.ok, answer.text))
        };
        let storage = folder.path().display().to_string();
        assert!(asked(&storage).is_some_and(|(ok, text)| !ok && text.contains("start the probe")));
        std::fs::write(&socket, "")?;
        assert!(asked(&storage).is_some_and(|(ok, text)| !ok && text.contains("is no socket")));
        std::fs::remove_file(&socket)?;
        let listener = std::os::unix::net::UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        assert!(asked(&storage).is_some_and(|(ok, _)| ok));
        assert!(listener.accept().is_err(), "somebody knocked");
        Ok(())
    }

    #[test]
    fn a_storage_path_below_a_file_is_refused() -> std::io::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        assert!(!storage(&file.path().join("x")).ok);
        Ok(())
    }
}
