//! Ctrl-C and SIGTERM. Work that can stop at a good place asks [`requested`]; everything else ends at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use crate::failure::INTERRUPTED;

static GRACEFUL: AtomicBool = AtomicBool::new(false);
static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Installs the handler. The first signal asks graceful work to stop; the second, or the first one without graceful work, ends the
/// program.
pub fn install() {
    let handler = || {
        if !GRACEFUL.load(Ordering::SeqCst) || REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        eprintln!("malmoi: signals end the program at once: {error}");
    }
}

/// From now on the work looks at the returned flag, which the first signal sets.
pub fn graceful() -> Arc<AtomicBool> {
    GRACEFUL.store(true, Ordering::SeqCst);
    Arc::clone(&REQUESTED)
}

/// Whether the user wants the work to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
