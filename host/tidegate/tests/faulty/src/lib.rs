//! A disk that fails, between a server and the kernel: preloaded, it takes the place of the C library's calls.
//!
//! `FAULTY_DIR` is the directory that it is about, `FAULTY_CALL` the call that fails (`write` or `sync`), `FAULTY_AT` the number of
//! the first such call that does, from 1, and each behind it does, too; `FAULTY_HOW` is `io`, `full`, or `short`: that call writes
//! one half, the later ones nothing.

#![allow(unsafe_code, reason = "it is what a C library is")]

use libc::{EIO, ENOSPC, c_int, c_long, c_void, size_t, ssize_t};
use std::{
    env, fs,
    path::PathBuf,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

struct Plan {
    directory: PathBuf,
    call: String,
    at: u64,
    how: String,
}

static PLAN: LazyLock<Option<Plan>> = LazyLock::new(|| {
    let var = |name: &str| env::var(name).ok();
    let at = var("FAULTY_AT")?.parse().ok()?;
    Some(Plan { directory: var("FAULTY_DIR")?.into(), call: var("FAULTY_CALL")?, at, how: var("FAULTY_HOW")? })
});
static CALLS: AtomicU64 = AtomicU64::new(0);

/// How this call fails, if it does: how many bytes of `count` are written, or with which error.
fn fault(call: &str, file: c_int, count: size_t) -> Option<Result<size_t, c_int>> {
    let plan = PLAN.as_ref().filter(|plan| plan.call == call)?;
    fs::read_link(format!("/proc/self/fd/{file}")).ok().filter(|path| path.starts_with(&plan.directory))?;
    let number = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    match plan.how.as_str() {
        _ if number < plan.at => None,
        "short" if number == plan.at => Some(Ok(count / 2)),
        "full" => Some(Err(ENOSPC)),
        _ => Some(Err(EIO)),
    }
}

fn fail(error: c_int) -> c_int {
    // SAFETY: it is this thread's own.
    unsafe { *libc::__errno_location() = error };
    -1
}

/// The kernel's own call, by its number.
macro_rules! kernel {
    ($number:expr, $($argument:expr),*) => {
        // SAFETY: the arguments are those that the caller gave to the function of the same meaning.
        unsafe { libc::syscall($number, $($argument as c_long),*) }
    };
}

/// `write(2)`
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(file: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
    match fault("write", file, count).unwrap_or(Ok(count)) {
        Err(error) => fail(error) as ssize_t,
        Ok(count) => kernel!(libc::SYS_write, file, bytes, count) as ssize_t,
    }
}

/// `fdatasync(2)`
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(file: c_int) -> c_int {
    match fault("sync", file, 0) {
        Some(_) => fail(EIO),
        None => kernel!(libc::SYS_fdatasync, file) as c_int,
    }
}

/// `fsync(2)`
#[unsafe(no_mangle)]
pub extern "C" fn fsync(file: c_int) -> c_int {
    match fault("sync", file, 0) {
        Some(_) => fail(EIO),
        None => kernel!(libc::SYS_fsync, file) as c_int,
    }
}
