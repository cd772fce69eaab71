//! A panic in a run says which seed it was.

use std::cell::Cell;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// This thread runs `seed` now.
pub fn name_seed(seed: u64) {
    SEED.set(Some(seed));
    PANICS.set(0);
}

/// How often something panicked in the seed this thread runs. A task's panic would otherwise go
/// unseen.
pub(crate) fn panics() -> u64 {
    PANICS.get()
}

/// From now on, whatever panics says which seed it was in.
pub fn report_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.set(PANICS.get() + 1);
        if let Some(seed) = SEED.get() {
            println!("PANICKED {}", command(seed));
        }
        print(info);
    }));
}

/// The command that runs `seed` again.
#[must_use]
pub fn command(seed: u64) -> String {
    let seeds = format!("{seed}..{}", seed + 1);
    format!("cargo run -p towline-sim-quic --release -- --seeds {seeds} --trace")
}
