//! SIGTERM and SIGINT drain; a second one ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first signal.
///
/// # Errors
/// Signals cannot be watched, which no working system refuses.
pub fn shutdown() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancelled = token.clone();
    let watch = async move {
        for round in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if 0 < round {
                eprintln!("aquifer: second signal, not waiting any longer");
                std::process::exit(130);
            }
            cancelled.cancel();
        }
    };
    aquifer_storage::seam::system::seams().spawn("signals", watch);
    Ok(token)
}
