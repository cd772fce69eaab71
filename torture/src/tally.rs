//! Counts what was tried and what failed; every failure is one line, which says how it is tried
//! again.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many failures are told; the rest is counted.
const TOLD: u64 = 20;

/// One harness's count.
pub(crate) struct Tally {
    name: &'static str,
    runs: AtomicU64,
    failed: AtomicU64,
    /// Whether one failure is enough.
    stops: bool,
}

thread_local! {
    /// What this thread tries, for when it panics.
    static NOW: RefCell<Option<(&'static str, String)>> = const { RefCell::new(None) };
}

impl Tally {
    pub(crate) const fn new(name: &'static str, stops: bool) -> Self {
        Self { name, runs: AtomicU64::new(0), failed: AtomicU64::new(0), stops }
    }

    /// Tries one case. A panic in it ends the process, after it was told.
    pub(crate) fn run(
        &self,
        case: impl Fn() -> String,
        check: impl FnOnce() -> Result<(), String>,
    ) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        NOW.with_borrow_mut(|now| *now = Some((self.name, case())));
        let checked = check();
        NOW.with_borrow_mut(|now| *now = None);
        if let Err(error) = checked {
            if self.failed.fetch_add(1, Ordering::Relaxed) < TOLD {
                tell(self.name, &case(), &error);
            }
        }
    }

    /// Whether there is nothing left to learn.
    pub(crate) fn is_over(&self) -> bool {
        self.stops && self.has_failed()
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failures() > 0
    }

    /// The last line; whether nothing failed.
    pub(crate) fn end(&self) -> bool {
        let (runs, failed) = (&self.runs, &self.failed);
        let (runs, failed) = (runs.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
        println!("{}: runs={runs} failed={failed}", self.name);
        runs > 0 && failed == 0
    }
}

fn tell(name: &str, case: &str, error: &str) {
    println!("FAILED {case}: {error}; again: cargo xtask {name} --only {case}");
}

/// Makes a panic a failure with a name, and the end of the process, with `code`.
pub(crate) fn on_panic(code: u8) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        let now = NOW.try_with(|now| now.try_borrow().ok().and_then(|now| now.clone()));
        if let Ok(Some((name, case))) = now {
            tell(name, &case, "it panics");
        }
        std::process::exit(i32::from(code));
    }));
}

/// Works with as many threads as there are cores.
pub(crate) fn on_every_core(work: impl Fn() + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let planted = crate::plant::planted();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                crate::plant::plant(planted);
                work();
            });
        }
    });
}
