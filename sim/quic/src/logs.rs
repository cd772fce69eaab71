//! What the nodes log, in the run's own time.

use tokio::time::Instant;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Time since the run began.
struct RunTime(std::sync::OnceLock<Instant>);

impl FormatTime for RunTime {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        let begun = self.0.get_or_init(Instant::now);
        write!(out, "{:10.3}", begun.elapsed().as_secs_f64())
    }
}

/// Prints what this thread's nodes log until the guard is dropped; `RUST_LOG` says how much.
pub(crate) fn print() -> DefaultGuard {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("towline=debug,towline_transport=info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(RunTime(std::sync::OnceLock::new()))
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stdout)
        .finish();
    tracing::subscriber::set_default(subscriber)
}
