//! Keeps the read-side index fed: sled learns where records lie and what each segment holds, off the commit threads.
//!
//! Image: a librarian who walks behind the shelves once a second and updates the card catalogue. Readers that are behind look places
//! up in it; without it they walk the shelf. It is opened after the logs are ready, and a doubt about it costs the catalogue, never a
//! book (ADR 0013).

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use wal::{Index, Log};

/// Pause between two walks when nothing old is left to read.
const WALK_EVERY: Duration = Duration::from_secs(1);
/// Folder of the index, beside the logs.
const FOLDER: &str = "index";

/// The librarian's thread.
pub(super) struct Librarian {
    shared: Arc<(Mutex<bool>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Librarian {
    /// Errors: a refused thread.
    pub(super) fn start(storage: PathBuf, logs: Vec<Log>) -> std::io::Result<Librarian> {
        let shared = Arc::new((Mutex::new(false), Condvar::new()));
        let mine = shared.clone();
        let thread = std::thread::Builder::new().name("wal-index".into()).spawn(move || {
            let index = Index::open(&storage.join(FOLDER));
            logs.iter().for_each(|log| index.attach(log));
            loop {
                let left: usize = logs.iter().map(|log| index.feed(log)).sum();
                // Old segments are read one a walk, so that catching up never floods the disk.
                let pause = if left > 0 { WALK_EVERY / 10 } else { WALK_EVERY };
                let stop = mine.0.lock().unwrap_or_else(PoisonError::into_inner);
                let stop = mine.1.wait_timeout_while(stop, pause, |stop| !*stop);
                if *stop.unwrap_or_else(PoisonError::into_inner).0 {
                    return;
                }
            }
        })?;
        Ok(Librarian { shared, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn stop(&self) {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.1.notify_one();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
            && thread.join().is_err()
        {
            tracing::error!("the index thread ended by panic; the index is rebuilt at the next start");
        }
    }
}
