//! Counts what is allocated, to show that nothing is.
#![expect(unsafe_code, reason = "an allocator that counts has to be one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, counted.
#[derive(Debug)]
pub(crate) struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// How often memory was asked for while `what` ran.
pub(crate) fn during(what: impl FnOnce()) -> u64 {
    let before = COUNT.load(Ordering::Relaxed);
    what();
    COUNT.load(Ordering::Relaxed) - before
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; the memory is the system's.
        unsafe { System.dealloc(memory, layout) }
    }
}
