//! Loading the program into the kernel and setting the clock on every CPU.
//!
//! Like moving into a workshop: the machine is screwed down once, by somebody with a key, and runs on when the key was handed back.
//! Which of the three programs is loaded depends on the kernel and on `--no-tables`; what is missing is said with its fix, and the
//! rest of the probe goes on. The weakness: limits of locked memory on kernels before 5.11 are not raised.

use super::Off;
use super::rows::Table;
use super::scan::Processes;
use aya::maps::{Array, HashMap as BpfHash, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::perf_event::{PerfEvent, PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::{Btf, Ebpf, EbpfLoader, VerifierLogLevel};
use ebpf_abi::{KERNEL_NAME_BYTES, ROWS_MAX};
use nix::errno::Errno;

/// The programs, as `build.rs` made them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/cpu.bpf.o"));

/// Smallest ring, bytes.
const RING_BYTES_MIN: u32 = 1 << 20;
/// Ring for each CPU, bytes.
const RING_BYTES_PER_CPU: u32 = 64 << 10;
/// Largest ring, bytes.
const RING_BYTES_MAX: u32 = 256 << 20;
/// First kernel with ring buffers and capabilities of their own.
const KERNEL_MIN: (u32, u32) = (5, 8);
/// First kernel with every helper the table walker needs.
pub(super) const KERNEL_TABLES: (u32, u32) = (5, 17);

/// What the kernel holds for us, by descriptor.
pub(super) struct Loaded {
    /// Keeps the clocks; dropping it ends sampling.
    pub(super) ebpf: Ebpf,
    /// Name of the program that runs.
    pub(super) program: &'static str,
    pub(super) ring: RingBuf<MapData>,
    pub(super) counters: PerCpuArray<MapData, u64>,
    pub(super) control: Array<MapData, u64>,
    pub(super) kernel_names: BpfHash<MapData, u64, [u8; KERNEL_NAME_BYTES]>,
    pub(super) processes: Processes,
    pub(super) table: Table,
    pub(super) cpus: Vec<u32>,
}

fn off(reason: impl Into<String>, fix: impl Into<String>) -> Off {
    Off { feature: "cpu", reason: reason.into(), fix: fix.into() }
}

/// Major and minor of the running kernel.
pub(super) fn kernel() -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Creates maps, loads the program and attaches it to every online CPU.
pub(super) fn load(hz: u32, tables: bool, kernel: (u32, u32)) -> Result<Loaded, Off> {
    if !cfg!(target_arch = "x86_64") {
        return Err(off("stacks are walked on x86-64 only", "run the probe on an x86-64 machine"));
    }
    if kernel < KERNEL_MIN {
        return Err(off(
            format!("kernel {}.{} has no ring buffers", kernel.0, kernel.1),
            "use kernel 5.8 or later (5.17 for complete stacks)",
        ));
    }
    let btf = Btf::from_sys_fs().map_err(|e| {
        off(
            format!("the kernel's type information cannot be read: {e}"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (/sys/kernel/btf/vmlinux)",
        )
    })?;
    let cpus = aya::util::online_cpus().map_err(|(what, e)| off(format!("{what}: {e}"), "mount /sys"))?;
    let per_cpus = RING_BYTES_PER_CPU.saturating_mul(cpus.len() as u32).clamp(RING_BYTES_MIN, RING_BYTES_MAX);
    let program = match (kernel >= KERNEL_TABLES, tables) {
        (true, true) => "cpu_tables",
        (true, false) => "cpu_frame_pointers",
        (false, _) => "cpu_plain",
    };
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        // Full logs would make a refused program be tried again and again with ever larger buffers.
        .verifier_log_level(VerifierLogLevel::STATS)
        .map_max_entries("samples", per_cpus.next_power_of_two())
        .load(OBJECT)
        .map_err(|e| refused("creating BPF maps", &e, "CAP_BPF"))?;
    attach(&mut ebpf, program, hz, &cpus)?;
    let ring = RingBuf::try_from(take(&mut ebpf, "samples")?).map_err(|e| odd("samples", &e))?;
    let Map::Array(rows) = take(&mut ebpf, "rows")? else { return Err(odd("rows", &"not an array")) };
    Ok(Loaded {
        program,
        ring,
        counters: PerCpuArray::try_from(take(&mut ebpf, "counters")?).map_err(|e| odd("counters", &e))?,
        control: control(take(&mut ebpf, "control")?)?,
        kernel_names: BpfHash::try_from(take(&mut ebpf, "kernel_names")?).map_err(|e| odd("kernel_names", &e))?,
        processes: BpfHash::try_from(take(&mut ebpf, "processes")?).map_err(|e| odd("processes", &e))?,
        table: Table::map(rows.fd(), ROWS_MAX).map_err(|e| odd("rows", &e))?,
        ebpf,
        cpus,
    })
}

fn control(map: Map) -> Result<Array<MapData, u64>, Off> {
    let mut control = Array::try_from(map).map_err(|e| odd("control", &e))?;
    control.set(ebpf_abi::CONTROL_KEEP_ONE_OF, 1u64, 0).map_err(|e| odd("control", &e))?;
    Ok(control)
}

fn attach(ebpf: &mut Ebpf, name: &'static str, hz: u32, cpus: &[u32]) -> Result<(), Off> {
    let program = ebpf.program_mut(name).ok_or_else(|| odd(name, &"not in the object"))?;
    let program: &mut PerfEvent = program.try_into().map_err(|e| odd(name, &e))?;
    program.load().map_err(|e| refused("loading the BPF program", &e, "CAP_BPF and CAP_PERFMON"))?;
    for &cpu in cpus {
        let clock = PerfEventConfig::Software(SoftwareEvent::CpuClock);
        let scope = PerfEventScope::AllProcessesOneCpu { cpu };
        program
            .attach(clock, scope, SamplePolicy::Frequency(u64::from(hz)), false)
            .map_err(|e| no_clock(cpu, hz, &e))?;
    }
    Ok(())
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, Off> {
    ebpf.take_map(name).ok_or_else(|| odd(name, &"not in the object"))
}

fn odd(what: &str, e: &dyn std::fmt::Display) -> Off {
    off(format!("{what}: {e}"), "please report this: the probe's BPF object does not fit the probe")
}

/// The system's error at the end of a chain of errors.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(io) = e.downcast_ref::<std::io::Error>() {
            return io.raw_os_error().map(Errno::from_raw);
        }
        next = e.source();
    }
    None
}

fn refused(what: &str, e: &(dyn std::error::Error + 'static), capabilities: &str) -> Off {
    match errno(e) {
        Some(Errno::EPERM | Errno::EACCES) => {
            off(format!("{what} was refused"), format!("start the probe with {capabilities} (see `probe doctor`)"))
        }
        _ => off(
            format!("{what}: {e}"),
            "kernel 5.17 or later runs all programs; with --no-tables fewer helpers are needed",
        ),
    }
}

fn no_clock(cpu: u32, hz: u32, e: &(dyn std::error::Error + 'static)) -> Off {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    let paranoid: i32 = read("perf_event_paranoid").trim().parse().unwrap_or(0);
    match errno(e) {
        Some(Errno::EPERM | Errno::EACCES) if paranoid > 2 => off(
            format!("kernel.perf_event_paranoid is {paranoid}, and then this kernel does not heed CAP_PERFMON"),
            "sysctl -w kernel.perf_event_paranoid=2",
        ),
        Some(Errno::EPERM | Errno::EACCES) => {
            off(format!("sampling CPU {cpu} was refused"), "start the probe with CAP_PERFMON (see `probe doctor`)")
        }
        Some(Errno::EINVAL) => off(
            format!("{hz} samples a second are more than kernel.perf_event_max_sample_rate allows"),
            "ask for fewer with --hz, or raise the limit",
        ),
        _ => off(format!("sampling CPU {cpu}: {e}"), "see `probe doctor`"),
    }
}
