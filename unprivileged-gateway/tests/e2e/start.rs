//! Starts that cannot work say which thing is in the way, and with which exit code.

use crate::shared;
use e2e::gateway::Setup;
use e2e::load::sink;
use e2e::skip;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

async fn setup() -> Setup {
    Setup::default().loki("logs", sink().await.loki, "")
}

#[tokio::test]
async fn a_folder_in_use_ends_with_74_and_names_the_holder() {
    let _stage = shared().await;
    let holder = setup().await;
    let gateway = holder.start();
    let mut second = setup().await;
    second.storage = holder.storage.clone();
    let (code, said) = second.start_in_vain();
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains(&gateway.pid.to_string()), "the holder's pid {} in: {said}", gateway.pid);
    assert!(said.contains(&holder.storage.display().to_string()), "the folder in: {said}");
}

#[tokio::test]
async fn a_path_that_cannot_be_written_ends_with_74_and_is_named() {
    let _stage = shared().await;
    let mut setup = setup().await;
    let file = setup.scratch.path().join("a-file");
    fs::write(&file, "in the way").expect("a file");
    setup.storage = file.join("wal");
    let (code, said) = setup.start_in_vain();
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains(&setup.storage.display().to_string()), "{said}");
}

#[tokio::test]
async fn memory_that_calls_itself_a_disk_is_refused_with_74() {
    let _stage = shared().await;
    let shm = Path::new("/dev/shm");
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !mounts.lines().any(|l| l.split(' ').nth(1) == Some("/dev/shm") && l.contains(" tmpfs ")) {
        return skip("memory_that_calls_itself_a_disk_is_refused_with_74", "/dev/shm is no tmpfs here");
    }
    let folder = tempfile::tempdir_in(shm).expect("a folder in /dev/shm");
    let mut setup = setup().await;
    setup.storage = folder.path().join("wal");
    let (code, said) = setup.start_in_vain();
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("tmpfs"), "{said}");
}

#[tokio::test]
async fn a_taken_port_ends_with_69_and_is_named() {
    let _stage = shared().await;
    for door in 0..3 {
        let setup = setup().await;
        let at = [setup.http, setup.grpc, setup.otlp_http][door];
        let _taken = TcpListener::bind(at).expect("the port of the scene");
        let (code, said) = setup.start_in_vain();
        assert_eq!(code, Some(69), "{said}");
        assert!(said.contains(&at.to_string()), "{at} in: {said}");
    }
}

#[tokio::test]
async fn a_bad_configuration_ends_with_78_and_every_mistake_has_its_line() {
    let _stage = shared().await;
    let mut setup = setup().await;
    setup.extra = "memory: { budgte: 1MiB }\nlocal_view: { max: 3 parsecs }\n".into();
    let (code, said) = setup.start_in_vain();
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("budget") && said.contains("parsecs") && said.contains("gateway.yaml:"), "{said}");
}
