//! Faults that a test turns on and off while the server runs, by numbers in a file that both have
//! mapped.
//!
//! `FAULTY_CONTROL` is that file, of at least [`BYTES`]; each number is a `u64` in the machine's
//! order, at eight times its place in the list. A file that is mapped is read without a descriptor,
//! so the faults work when there are none left.

use libc::{MAP_FAILED, MAP_SHARED, O_RDWR, PROT_READ, PROT_WRITE, c_int};
use std::{
    env,
    ffi::CString,
    ptr,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Meaning of a number in the file. The fault of a call is the error with which it fails, or 0.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(crate) enum Number {
    /// Error of each `write` below `FAULTY_DIR`; [`SHORT`] writes one half instead.
    Write = 0,
    /// Error of each `fsync` and `fdatasync` below `FAULTY_DIR`.
    Sync = 1,
    /// Error of each `open` below `FAULTY_DIR`.
    Open = 2,
    /// Error of each `accept4`.
    Accept = 3,
    /// Milliseconds that the wall clock is ahead, as an `i64`.
    Clock = 4,
}

/// Faults of a call that were injected: its number, and this.
const INJECTED: usize = 8;
const BYTES: usize = 128;
/// For `write`: one half of the bytes is written. The caller comes back with the other half.
pub(crate) const SHORT: u64 = 1 << 32;

static NUMBERS: LazyLock<Option<&'static [AtomicU64]>> = LazyLock::new(|| {
    let path = CString::new(env::var("FAULTY_CONTROL").ok()?).ok()?;
    // SAFETY: the path ends with a zero. The kernel is asked directly, for `open` is one of the
    // calls that fail here.
    let file =
        unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), O_RDWR) } as c_int;
    // SAFETY: a new mapping; it is never taken away.
    let map = unsafe {
        libc::mmap(
            ptr::null_mut(),
            BYTES,
            PROT_READ | PROT_WRITE,
            MAP_SHARED,
            file,
            0,
        )
    };
    // SAFETY: the file was opened here, and the mapping does not need it.
    unsafe { libc::syscall(libc::SYS_close, file) };
    // SAFETY: so many bytes are mapped, at the beginning of a page, and all access is atomic.
    (map != MAP_FAILED).then(|| unsafe { std::slice::from_raw_parts(map.cast(), BYTES / 8) })
});

/// Returns one of the numbers, or 0 without a file.
pub(crate) fn number(number: Number) -> u64 {
    NUMBERS.as_ref().map_or(0, |numbers| {
        numbers[number as usize].load(Ordering::Relaxed)
    })
}

/// A fault of this call was injected.
pub(crate) fn count(number: Number) {
    if let Some(numbers) = NUMBERS.as_ref() {
        numbers[number as usize + INJECTED].fetch_add(1, Ordering::Relaxed);
    }
}
