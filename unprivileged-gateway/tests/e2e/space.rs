//! No room: senders are told at once, keep what they have, and nothing is kept behind their backs.

use crate::alone;
use e2e::gateway::Setup;
use e2e::load::{Load, Sent, sink};
use e2e::{skip, wait_for};
use loadgen::sink::fault::Fault;
use loadgen::{Protocol, Signal};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The issue: "refusals with RetryInfo within a second".
const REFUSED_WITHIN_US: u64 = 1_000_000;

fn assert_refused_politely(sent: &Sent, code: u16) {
    let s = &sent.summary;
    assert!(s.calls_refused > 0 && s.calls_broken == 0, "{s:?}");
    assert_eq!(s.refusals_by_code.keys().copied().collect::<Vec<_>>(), [code], "{s:?}");
    assert_eq!(s.refused_with_retry, s.calls_refused, "every refusal says when to come back: {s:?}");
    assert!(s.refused_latency_us.max <= REFUSED_WITHIN_US, "{:?}", s.refused_latency_us);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_storage_refuses_within_a_second_and_keeps_nothing_it_refused() {
    let _stage = alone().await;
    for (protocol, code) in [(Protocol::Grpc, 8), (Protocol::Http, 429)] {
        let sink = sink().await;
        sink.fault(Fault { stall: true, ..Fault::default() });
        let mut setup = Setup::default().loki("logs", sink.loki, "");
        setup.storage_max = "16MiB".into();
        let gateway = setup.start();
        let load = Load::new(&setup, protocol, Signal::Logs).rate(20_000.0, 8.0);
        let sent = load.with(|o| o.connections = 4).send().await;
        assert_refused_politely(&sent, code);
        assert!(!gateway.ready(), "a gateway that refuses is not ready");
        let on_disk = used(&setup.storage);
        assert!(on_disk <= 16 << 20, "storage.max is a limit on bytes on disk: {on_disk}");
        sink.fault(Fault::default());
        let v = sent.verdict(&sink);
        assert_eq!((v.lost, v.stored_though_refused), (0, 0), "{v:?}");
        wait_for("ready again once there is room", Duration::from_secs(20), || gateway.ready().then_some(()));
        let again = Load::new(&setup, protocol, Signal::Logs).records(2_000).send().await;
        again.assert_complete_and_once(&sink);
        println!(
            "{protocol:?}: refused {} calls, slowest {} us; {v:?}",
            sent.summary.calls_refused, sent.summary.refused_latency_us.max
        );
    }
}

fn used(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => used(&e.path()),
            Ok(m) => m.blocks() * 512,
            Err(_) => 0, // deleted meanwhile
        })
        .sum()
}

/// A small ext4 in a file, mounted: a disk that can be full.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    fn make(folder: &Path, mib: u64) -> Result<SmallDisk, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("mounting a small file system needs root".into());
        }
        let (image, at) = (folder.join("disk.img"), folder.join("disk"));
        fs::create_dir_all(&at).map_err(|e| e.to_string())?;
        fs::File::create(&image).and_then(|f| f.set_len(mib << 20)).map_err(|e| e.to_string())?;
        for command in [
            Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image),
            Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at),
        ] {
            let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
            if !output.status.success() {
                return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
            }
        }
        Ok(SmallDisk { at })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_recovers_and_loses_nothing() {
    let _stage = alone().await;
    let sink = sink().await;
    let mut setup = Setup::default().loki("logs", sink.loki, "");
    let disk = match SmallDisk::make(setup.scratch.path(), 96) {
        Ok(disk) => disk,
        Err(why) => return skip("a_full_disk_refuses_and_recovers_and_loses_nothing", &why),
    };
    setup.storage = disk.at.join("wal");
    setup.storage_max = "1GiB".into(); // a promise the disk cannot keep
    sink.fault(Fault { stall: true, ..Fault::default() });
    let mut gateway = setup.start();
    let load = Load::new(&setup, Protocol::Grpc, Signal::Logs).rate(60_000.0, 12.0);
    let sent = load.with(|o| (o.batch, o.connections) = (500, 4)).send().await;
    let s = &sent.summary;
    assert!(s.calls_refused > 0 && s.calls_broken == 0, "{s:?}");
    assert_eq!(s.refused_with_retry, s.calls_refused, "{s:?}");
    assert!(s.refused_latency_us.p99 <= REFUSED_WITHIN_US, "{:?}", s.refused_latency_us);
    assert!(gateway.alive(), "a full disk does not end the process");
    sink.fault(Fault::default());
    let v = sent.verdict(&sink);
    assert_eq!((v.lost, v.stored_though_refused), (0, 0), "{v:?}");
    wait_for("ready again once there is room", Duration::from_secs(30), || gateway.ready().then_some(()));
    let again = Load::new(&setup, Protocol::Grpc, Signal::Logs).records(2_000).send().await;
    again.assert_complete_and_once(&sink);
    drop(gateway);
}
