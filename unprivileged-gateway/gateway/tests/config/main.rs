//! What the configuration promises: layers, variables, merging, secrets, and documents that are current.
//!
//! Files that are derived (`docs/config.schema.json`, the tables of `docs/configuration.md`) are compared with what the types say;
//! run with `BULKHEAD_REGENERATE=1` after a change and read the difference.

mod reference;

use gateway::cli;
use gateway::config::{self, Config, Given, Imagined, Layer, Loaded, Override, Request, load};
use serde_json::Value as Json;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

type Test = Result<(), Box<dyn Error>>;

/// Stands for every secret below; nothing that is shown may hold it.
const MARKER: &str = "hunter2";

fn surroundings() -> Imagined {
    let variable = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Imagined {
        variables: [("HOME", "/home/someone"), ("SIZE", "2GiB"), ("TOKEN", MARKER), ("EMPTY", "")].map(variable).into(),
        host_name: Some("n1".to_owned()),
        ..Imagined::default()
    }
}

fn given(layer: Layer, name: &str, value: Given) -> Override {
    Override { layer, name: name.to_owned(), value }
}

fn set(text: &str) -> Override {
    given(Layer::Flag, "--set", Given::Set(text.to_owned()))
}

/// Loads files with these contents, in this order.
fn load_texts(texts: &[&str], overrides: Vec<Override>) -> Result<Loaded, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut files = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        files.push(folder.path().join(format!("{at}.yaml")));
        std::fs::write(&files[at], text)?;
    }
    Ok(load(&Request { files, overrides, ..Request::default() }, &surroundings())?)
}

const SMALL: &str = "receive: { otlp: {} }\nsend: { otlp: { tempo: { endpoint: 'http://127.0.0.1:4317' } } }\n";

#[test]
fn without_a_file_everything_stays_on_this_machine() -> Test {
    let loaded = load(&Request::default(), &surroundings())?;
    assert!(loaded.built_in() && loaded.findings.is_empty());
    let Config { node, storage, memory, http, probe, receive, logs, scrape, profiles, send, local_view } =
        loaded.config;
    assert_eq!(node.name, "n1");
    assert_eq!(storage.path, Path::new("/home/someone/.local/state/bulkhead"));
    assert_eq!((storage.max, storage.commit_window), (8 << 30, Duration::from_millis(5)));
    assert_eq!(memory.budget, 64 << 20);
    assert_eq!(http.listen.to_string(), "127.0.0.1:12345");
    let otlp = receive.otlp.ok_or("no OTLP")?;
    let doors = [otlp.grpc, otlp.http].map(|door| door.map(|door| door.to_string()));
    assert_eq!(doors, [Some("127.0.0.1:4317".to_owned()), Some("127.0.0.1:4318".to_owned())]);
    assert!(send.loki.is_empty() && send.otlp.is_empty() && send.pyroscope.is_empty());
    let every = scrape.map(|scrape| [scrape.own, scrape.host].map(|every| every.map(|every| every.interval.as_secs())));
    assert_eq!(every, Some([Some(15), Some(15)]));
    assert_eq!((probe, logs, profiles), (None, None, None), "nothing here that a probe or a journal could give");
    assert_eq!(local_view.map(|view| (view.max, view.window)), Some((64 << 20, Duration::from_secs(900))));
    Ok(())
}

#[test]
fn without_a_file_the_probe_and_the_journal_are_used_where_they_are() -> Test {
    let mut surroundings = surroundings();
    surroundings.paths.insert("/usr/bin/journalctl".into());
    let of = |surroundings: &Imagined| -> Result<Config, Box<dyn Error>> {
        let loaded = load(&Request::default(), surroundings)?;
        assert!(loaded.findings.is_empty(), "{}", loaded.findings);
        Ok(loaded.config)
    };
    let journal = of(&surroundings)?;
    assert_eq!((journal.probe, journal.profiles), (None, None));
    assert_eq!(journal.logs.map(|logs| (logs.journal.is_some(), logs.pods.is_some())), Some((true, false)));
    surroundings.paths.insert(config::PROBE_SOCKET.into());
    let there = of(&surroundings)?;
    assert_eq!(there.probe.map(|probe| probe.socket), Some(config::PROBE_SOCKET.into()));
    let logs = there.logs.ok_or("no logs")?;
    assert_eq!(logs.pods.map(|pods| pods.labels.join(" ")), Some("namespace pod container app job stream".to_owned()));
    assert!(logs.journal.is_some_and(|journal| journal.units.is_empty() && journal.directory.is_none()));
    let cpu = there.profiles.and_then(|profiles| profiles.cpu).ok_or("no profiles")?;
    assert_eq!(cpu.window, Duration::from_secs(15));
    surroundings.paths.clear();
    surroundings.variables.insert("BULKHEAD_PROBE_SOCKET".into(), "/run/elsewhere.sock".into());
    let named = of(&surroundings)?;
    assert_eq!(named.probe.map(|probe| probe.socket), Some("/run/elsewhere.sock".into()));
    assert!(named.logs.is_some_and(|logs| logs.pods.is_some() && logs.journal.is_none()));
    Ok(())
}

#[test]
fn with_a_file_the_probe_is_expected_only_where_it_is_written() -> Test {
    let mut surroundings = surroundings();
    surroundings.paths.insert(config::PROBE_SOCKET.into());
    surroundings.variables.insert("BULKHEAD_PROBE_SOCKET".into(), "/run/elsewhere.sock".into());
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a.yaml");
    let socket = |text: &str| -> Result<Option<PathBuf>, Box<dyn Error>> {
        std::fs::write(&file, format!("{SMALL}{text}"))?;
        let request = Request { files: vec![file.clone()], ..Request::default() };
        Ok(load(&request, &surroundings)?.config.probe.map(|probe| probe.socket))
    };
    assert_eq!(socket("")?, None);
    assert_eq!(socket("probe: {}")?, Some("/run/elsewhere.sock".into()));
    assert_eq!(socket("probe: { socket: /run/mine.sock }")?, Some("/run/mine.sock".into()));
    Ok(())
}

#[test]
fn what_is_collected_and_taken_by_nobody_is_said() -> Test {
    let said = |text: &str| load_texts(&[text], Vec::new()).map(|loaded| loaded.findings.render());
    let alone = said("scrape: { self: {}, host: {} }\nlogs: { journal: {} }\n")?;
    for path in ["`scrape.self` gives metrics", "`scrape.host` gives metrics", "`logs.journal` gives logs"] {
        assert!(alone.contains(path), "{path} is missing from:\n{alone}");
    }
    assert_eq!(said("scrape: { self: {}, host: {} }\nlogs: { journal: {} }\nlocal_view: {}\n")?, "");
    let probeless = said("profiles: { cpu: {} }\nlogs: { pods: {}, files: { a: {} } }\nlocal_view: {}\n")?;
    for path in ["`profiles.cpu` comes from the probe", "`logs.pods` comes", "`logs.files` comes"] {
        assert!(probeless.contains(path), "{path} is missing from:\n{probeless}");
    }
    let sent = "probe: {}\nprofiles: { cpu: {} }\nsend: { pyroscope: { p: { url: 'http://127.0.0.1:4040' } } }\n";
    assert_eq!(said(sent)?, "");
    Ok(())
}

#[test]
fn with_a_file_the_local_view_is_off_until_it_is_named() -> Test {
    assert_eq!(load_texts(&[SMALL], Vec::new())?.config.local_view, None);
    assert!(load_texts(&[SMALL, "local_view: {}"], Vec::new())?.config.local_view.is_some());
    Ok(())
}

#[test]
fn the_state_folder_is_systemds_then_xdgs_then_the_homes() -> Test {
    let mut surroundings = surroundings();
    let path =
        |surroundings: &Imagined| load(&Request::default(), surroundings).map(|loaded| loaded.config.storage.path);
    surroundings.variables.insert("XDG_STATE_HOME".into(), "/xdg".into());
    assert_eq!(path(&surroundings)?, Path::new("/xdg/bulkhead"));
    surroundings.variables.insert("STATE_DIRECTORY".into(), "/var/lib/bulkhead:/var/lib/other".into());
    assert_eq!(path(&surroundings)?, Path::new("/var/lib/bulkhead"));
    surroundings.variables.clear();
    let refused = path(&surroundings).err().ok_or("a start without any folder")?;
    assert!(refused.to_string().contains("--storage"), "{refused}");
    Ok(())
}

#[test]
fn the_name_and_the_budget_come_from_the_machine_when_nobody_says() -> Test {
    let mut surroundings = surroundings();
    surroundings.variables.insert("K8S_NODE_NAME".into(), "worker-3".into());
    surroundings.memory_limit = Some(128 << 20);
    let loaded = load(&Request::default(), &surroundings)?;
    assert_eq!(loaded.config.node.name, "worker-3");
    assert_eq!(loaded.config.memory.budget, 32 << 20);
    assert!(loaded.findings.is_empty(), "{}", loaded.findings);
    surroundings.memory_limit = Some(64 << 20);
    let loaded = load(&Request::default(), &surroundings)?;
    assert_eq!(loaded.config.receive.otlp.map(|otlp| otlp.max_request), Some(8 << 20), "half of a small budget");
    assert_eq!(loaded.findings.warnings(), 1, "{}", loaded.findings);
    surroundings.memory_limit = Some(1 << 40);
    assert_eq!(load(&Request::default(), &surroundings)?.config.memory.budget, 64 << 20);
    Ok(())
}

#[test]
fn a_later_layer_wins_and_every_value_knows_its_layer() -> Test {
    let overrides = vec![
        given(Layer::Env, "BULKHEAD_HTTP", Given::At("http.listen", "127.0.0.1:2".into())),
        given(Layer::Env, "BULKHEAD_STORAGE", Given::At("storage.path", "/env".into())),
        given(Layer::Flag, "--http", Given::At("http.listen", "127.0.0.1:3".into())),
        set("send.otlp.tempo.timeout=3s"),
        set("storage.retain.logs=2h"),
    ];
    let file = format!(
        "{SMALL}http: {{ listen: '127.0.0.1:1' }}\nstorage:\n  path: /file\n  max: 1GiB\n  retain: {{ logs: 1h }}\n"
    );
    let loaded = load_texts(&[&file], overrides)?;
    assert_eq!(loaded.config.http.listen.to_string(), "127.0.0.1:3");
    assert_eq!(loaded.config.storage.path, Path::new("/env"));
    assert_eq!(loaded.config.send.otlp["tempo"].common.timeout, Duration::from_secs(3));
    let rows = loaded.explain();
    let row = |path: &str| {
        rows.iter().find(|row| row.path == path).map(|row| (row.value.as_str(), row.layer, row.place.as_str()))
    };
    assert_eq!(row("http.listen"), Some(("127.0.0.1:3", "flag", "--http")));
    assert_eq!(row("storage.path"), Some(("/env", "env", "BULKHEAD_STORAGE")));
    assert_eq!(row("send.otlp.tempo.timeout"), Some(("3s", "flag", "--set")));
    assert_eq!(row("storage.retain.logs"), Some(("2h", "flag", "--set")));
    assert_eq!(row("storage.commit_window"), Some(("5ms", "default", "")));
    assert_eq!(row("node.name"), Some(("n1", "default", "host name")));
    let (value, layer, place) = row("storage.max").ok_or("no storage.max")?;
    assert_eq!((value, layer, place.ends_with("0.yaml:6")), ("1GiB", "file", true), "{place}");
    Ok(())
}

#[test]
fn files_merge_by_key_and_their_lists_replace() -> Test {
    let first = "receive: { otlp: {} }\nhttp: { hosts: [a, b] }\nsend:\n  otlp:\n    x: { endpoint: 'http://x:1', signals: [logs, traces], timeout: 3s }\n";
    let second =
        "http: { hosts: [c] }\nsend:\n  otlp:\n    x: { signals: [traces] }\n    y: { endpoint: 'http://y:1' }\n";
    let config = load_texts(&[first, second], Vec::new())?.config;
    assert_eq!(config.http.hosts, ["c"]);
    assert_eq!(config.send.otlp.keys().collect::<Vec<_>>(), ["x", "y"]);
    let x = &config.send.otlp["x"];
    assert_eq!((x.endpoint.as_str(), x.signals.len(), x.common.timeout.as_secs()), ("http://x:1", 1, 3));
    Ok(())
}

#[test]
fn a_folder_is_read_in_name_order_and_only_its_yaml_files() -> Test {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write("20-late.yaml", "storage: { max: 2GiB }")?;
    write("10-early.yaml", &format!("{SMALL}storage: {{ max: 1GiB }}"))?;
    write("notes.txt", "not: [yaml")?;
    write(".hidden.yaml", "not: [yaml")?;
    write("30-other.yml", "not: [yaml")?;
    let request = Request { files: vec![folder.path().to_owned()], ..Request::default() };
    let loaded = load(&request, &surroundings())?;
    assert_eq!(loaded.config.storage.max, 2 << 30);
    assert_eq!(loaded.files.len(), 2);
    assert!(loaded.findings.render().contains("30-other.yml is not read"), "{}", loaded.findings);
    let empty = tempfile::tempdir()?;
    let request =
        Request { files: vec![empty.path().to_owned(), PathBuf::from("/no/such.yaml")], ..Request::default() };
    let findings = load(&request, &surroundings()).err().ok_or("an empty folder was taken")?;
    assert_eq!(findings.errors(), 2, "{findings}");
    Ok(())
}

#[test]
fn variables_are_expanded_in_plain_scalars_alone() -> Test {
    let text = "receive: { otlp: {} }\nlocal_view: {}\nstorage:\n  max: ${SIZE}\n  path: ${NONE:-/d}/${EMPTY:-e}\nnode:\n  name: \"${SIZE}\"\n";
    let loaded = load_texts(&[text], Vec::new())?;
    assert_eq!(loaded.config.storage.max, 2 << 30);
    assert_eq!(loaded.config.storage.path, Path::new("/d/e"));
    assert_eq!(loaded.config.node.name, "${SIZE}");
    assert!(loaded.findings.render().contains("between quotes"), "{}", loaded.findings);
    Ok(())
}

#[test]
fn a_variable_cannot_add_structure() -> Test {
    let mut surroundings = surroundings();
    surroundings.variables.insert("EVIL".into(), "x\nhttp: { listen: 0.0.0.0:1, auth: none }".into());
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a.yaml");
    std::fs::write(&file, "receive: { otlp: {} }\nlocal_view: {}\nnode:\n  name: ${EVIL}\n")?;
    let loaded = load(&Request { files: vec![file], ..Request::default() }, &surroundings)?;
    assert_eq!(loaded.config.http.listen.to_string(), "127.0.0.1:12345");
    Ok(())
}

#[test]
fn one_named_otlp_door_leaves_the_other_closed() -> Test {
    let doors = |text: &str, overrides| -> Result<(bool, bool), Box<dyn Error>> {
        let otlp = load_texts(&[text, "local_view: {}"], overrides)?.config.receive.otlp.ok_or("no OTLP")?;
        Ok((otlp.grpc.is_some(), otlp.http.is_some()))
    };
    assert_eq!(doors("receive: { otlp: {} }", Vec::new())?, (true, true));
    assert_eq!(doors("receive: { otlp: { http: 127.0.0.1:0 } }", Vec::new())?, (false, true));
    assert_eq!(doors("receive: { otlp: { grpc: 127.0.0.1:0, http: off } }", Vec::new())?, (true, false));
    let flag = given(Layer::Flag, "--otlp-grpc", Given::At("receive.otlp.grpc", "127.0.0.1:0".into()));
    assert_eq!(doors("{}", vec![flag])?, (true, false));
    Ok(())
}

#[test]
fn a_set_that_is_wrong_is_shown_as_it_was_typed() -> Test {
    let mistakes =
        vec![set("storage.max=8"), set("storage"), set("send.loki.x={ url: 1"), set("htp.listen=127.0.0.1:1")];
    let request = Request { overrides: mistakes, ..Request::default() };
    let text = load(&request, &surroundings()).err().ok_or("taken")?.to_string();
    for part in [
        "  --> --set:1:13\n1 | storage.max=8\n  |             ^\n",
        "--set takes PATH=VALUE",
        "not valid YAML",
        "unknown key `htp` at the top level",
        "did you mean `http`?",
    ] {
        assert!(text.contains(part), "{part:?} is missing from:\n{text}");
    }
    Ok(())
}

/// A configuration with a secret in every place that takes one.
fn secretive() -> String {
    format!(
        "http: {{ listen: 127.0.0.1:1, auth: {{ bearer: {MARKER}-a }} }}
receive: {{ otlp: {{ auth: {{ basic: {{ user: u, password: {MARKER}-b }} }} }} }}
send:
  loki:
    logs:
      url: http://loki/loki/api/v1/push
      bearer: {MARKER}-c
      headers: {{ X-Key: {MARKER}-d, Cookie: {MARKER}-e }}
    more:
      url: http://loki/loki/api/v1/push
      basic:
        user: u
        password: ${{TOKEN}}
  pyroscope:
    profiles: {{ url: http://p:4040, bearer: {MARKER}-g, headers: {{ X-Key: {MARKER}-h }} }}
"
    )
}

#[test]
fn no_secret_appears_in_anything_that_is_shown() -> Test {
    let loaded = load_texts(
        &[&secretive()],
        vec![set(&format!("send.otlp.x={{ endpoint: 'http://x:1', bearer: {MARKER}-f }}"))],
    )?;
    assert_eq!(loaded.config.send.loki["more"].common.authorization()?.map(|secret| secret.expose().len()), Some(18));
    let shown = [
        format!("{:?}", loaded.config),
        loaded.yaml(),
        loaded.json().to_string(),
        loaded.explained_text(),
        serde_json::to_string(&loaded.explain())?,
        loaded.findings.to_string(),
        loaded.findings.json().to_string(),
    ];
    for text in &shown {
        assert!(!text.contains(MARKER), "{text}");
    }
    assert!(shown[1].contains("(secret)") && shown[5].contains("(secret)"));
    // Said in the file: warned about. Said by a variable: not in the file.
    assert_eq!(loaded.findings.warnings(), 6, "{}", loaded.findings);
    Ok(())
}

#[test]
fn no_secret_appears_whatever_key_is_mistyped() -> Test {
    let good = secretive();
    let whole = good.replace("${TOKEN}", MARKER);
    let mut tried = 0;
    for (at, letter) in whole.char_indices() {
        // Every letter, quote, brace and blank is dropped, doubled and changed in turn.
        for replacement in [
            "".to_owned(),
            format!("{letter}{letter}"),
            "'".to_owned(),
            "{".to_owned(),
            "\n".to_owned(),
            ":".to_owned(),
        ] {
            let broken = format!("{}{replacement}{}", &whole[..at], &whole[at + letter.len_utf8()..]);
            // A marker that was itself broken cannot be searched for.
            if broken.matches(MARKER).count() < whole.matches(MARKER).count() {
                continue;
            }
            tried += 1;
            let shown = match load_texts(&[&broken], Vec::new()) {
                Ok(loaded) => format!("{}{}{:?}", loaded.findings, loaded.yaml(), loaded.config),
                Err(error) => error.to_string(),
            };
            assert!(!shown.contains(MARKER), "from:\n{broken}\ncame:\n{shown}");
        }
    }
    assert!(tried > 1000, "{tried}");
    Ok(())
}

#[test]
fn a_config_compares_equal_slice_by_slice() -> Test {
    let (a, b) = (load_texts(&[&secretive()], Vec::new())?.config, load_texts(&[&secretive()], Vec::new())?.config);
    assert_eq!(a, b);
    let changed = load_texts(&[&secretive().replace("-c", "-changed")], Vec::new())?.config;
    assert_eq!((&a.http, &a.receive, &a.storage), (&changed.http, &changed.receive, &changed.storage));
    assert_eq!(a.send.loki["more"], changed.send.loki["more"]);
    assert_ne!(a.send.loki["logs"], changed.send.loki["logs"], "a changed secret is a change");
    Ok(())
}

#[test]
fn what_is_printed_loads_again_to_the_same_values() -> Test {
    let text = "receive: { otlp: { grpc: 127.0.0.1:1, max_request: 3MiB, auth: none } }
http: { auth: { bearer_file: /run/t }, hosts: [ 'a', 'yes', '012' ] }
local_view: { window: 90s }
storage: { retain: { logs: 1h30m, metrics: 2h, profiles: 3h } }
probe: { socket: /run/p.sock }
logs: { pods: { labels: [ pod, container_runtime ] }, files: { a: { labels: { job: 'b: c' } } }, journal: { units: [ 'a@*.service' ], directory: /j } }
scrape: { self: { interval: 1s }, host: {} }
profiles: { cpu: { window: 90s } }
send:
  pyroscope: { p: { url: 'http://p:4040', tenant: t, external_labels: { c: d }, limits: { profile: 1MB, label_names: 9 } } }
  otlp: { x: { endpoint: 'x:1', tls: { ca_file: /ca }, was: w, intake: false, from: oldest, on_remove: discard, protocol: http } }
  loki: { l: { url: 'http://l/loki/api/v1/push', tls: off, external_labels: { a: 'b: #c', n: '~' }, line: alloy_json, limits: { line: 1MB } } }
";
    let once = load_texts(&[text], Vec::new())?;
    let twice = load_texts(&[&once.yaml()], Vec::new())?;
    assert_eq!(once.config, twice.config, "{}", once.yaml());
    // A second reader of YAML sees the same in it.
    let other: Json = serde_saphyr::from_str(&once.yaml())?;
    assert_eq!(other, once.json());
    Ok(())
}

#[test]
fn a_second_reader_of_yaml_sees_the_same_configuration() -> Test {
    let texts = [SMALL.to_owned(), secretive().replace("${TOKEN}", "x"), reference::examples()?.join("\n---\n")];
    for text in texts
        .iter()
        .flat_map(|text| text.split("\n---\n"))
        .filter(|text| !text.contains("${") && !text.contains(": off"))
    {
        let ours = load_texts(&[text], Vec::new())?.config;
        let theirs: Config = serde_saphyr::from_str(text)?;
        assert_eq!(ours.send, theirs.send, "{text}");
        assert_eq!(ours.http, theirs.http, "{text}");
        assert_eq!(ours.local_view, theirs.local_view, "{text}");
    }
    Ok(())
}

#[test]
fn check_says_its_verdict_in_its_exit_code_and_writes_nothing_secret() -> Test {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, text: &str| -> Result<Request, Box<dyn Error>> {
        let file = folder.path().join(name);
        std::fs::write(&file, text)?;
        Ok(Request { files: vec![file], ..Request::default() })
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let storage = format!("storage: {{ path: '{}' }}\n", folder.path().join("wal").display());
    let good = write("good.yaml", &format!("{storage}receive: {{ otlp: {{}} }}\nlocal_view: {{}}\n"))?;
    assert_eq!(cli::check(&good, false, cli::Format::Text, &mut out, &mut err)?, cli::Exit::Fine);
    assert!(String::from_utf8(out.clone())?.ends_with("good.yaml: fine\n") && err.is_empty());
    let bad = write("bad.yaml", &secretive().replace("listen", "listn"))?;
    assert_eq!(cli::check(&bad, true, cli::Format::Text, &mut out, &mut err)?, cli::Exit::Config);
    assert_eq!(cli::check(&bad, true, cli::Format::Json, &mut out, &mut err)?, cli::Exit::Config);
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let alone = write(
        "alone.yaml",
        &format!(
            "{storage}receive: {{ otlp: {{}} }}\nsend: {{ otlp: {{ x: {{ endpoint: 'http://127.0.0.1:{port}' }} }} }}\n"
        ),
    )?;
    assert_eq!(cli::check(&alone, true, cli::Format::Text, &mut out, &mut err)?, cli::Exit::Fine);
    assert_eq!(cli::check(&alone, false, cli::Format::Text, &mut out, &mut err)?, cli::Exit::Unavailable);
    let file = write(
        "below-a-file.yaml",
        &format!(
            "storage: {{ path: '{}/x' }}\nreceive: {{ otlp: {{}} }}\nlocal_view: {{}}\n",
            folder.path().join("good.yaml").display()
        ),
    )?;
    assert_eq!(cli::check(&file, false, cli::Format::Text, &mut out, &mut err)?, cli::Exit::Storage);
    let keyless = write(
        "keyless.yaml",
        &format!(
            "{storage}http: {{ auth: {{ bearer_file: /no/such }} }}\nreceive: {{ otlp: {{}} }}\nlocal_view: {{}}\n"
        ),
    )?;
    assert_eq!(cli::check(&keyless, false, cli::Format::Text, &mut out, &mut err)?, cli::Exit::Config);
    for text in [String::from_utf8(out)?, String::from_utf8(err)?] {
        assert!(!text.contains(MARKER), "{text}");
    }
    Ok(())
}
