//! A disk that fails, between a server and the kernel: preloaded, it takes the place of the C library's calls.
//!
//! `FAULTY_DIR` is the directory that it is about, `FAULTY_CALL` the call that fails (`write` or `sync`), `FAULTY_AT` the number of
//! the first such call that does, from 1, and each behind it does, too; `FAULTY_HOW` is `io`, `full`, or `short`: that call writes
//! one half, the later ones nothing.
//!
//! `FAULTY_CONTROL` is a file by which a test turns faults on and off while the server runs: see `control.rs`.

#![allow(unsafe_code, reason = "it is what a C library is")]

mod control;

use control::{Number, SHORT};
use libc::{
    EIO, ENOSPC, c_char, c_int, c_long, c_void, clockid_t, mode_t, size_t, sockaddr, socklen_t,
    ssize_t, timespec,
};
use std::{
    env,
    ffi::{CStr, OsStr},
    fs,
    os::unix::ffi::OsStrExt as _,
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
    Some(Plan {
        directory: var("FAULTY_DIR")?.into(),
        call: var("FAULTY_CALL")?,
        at,
        how: var("FAULTY_HOW")?,
    })
});
static CALLS: AtomicU64 = AtomicU64::new(0);
/// Directory in which the faults of the control file happen.
static DIRECTORY: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| Some(env::var("FAULTY_DIR").ok()?.into()));

/// How a call on a file fails now, by the control file.
fn controlled(number: Number, file: c_int) -> Option<u64> {
    let how = control::number(number);
    let directory = DIRECTORY.as_ref().filter(|_| how != 0)?;
    fs::read_link(format!("/proc/self/fd/{file}"))
        .ok()
        .filter(|path| path.starts_with(directory))?;
    control::count(number);
    Some(how)
}

/// Returns the fault of an `open`, by its path. The storage passes full paths.
///
/// # Safety
/// `path` ends with a zero.
unsafe fn refused_open(path: *const c_char) -> Option<c_int> {
    let how = control::number(Number::Open);
    let directory = DIRECTORY.as_ref().filter(|_| how != 0)?;
    // SAFETY: as the caller says.
    let path = OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes());
    PathBuf::from(path)
        .starts_with(directory)
        .then(|| control::count(Number::Open))
        .map(|()| how as c_int)
}

/// How this call fails, if it does: how many bytes of `count` are written, or with which error.
fn fault(call: &str, file: c_int, count: size_t) -> Option<Result<size_t, c_int>> {
    let plan = PLAN.as_ref().filter(|plan| plan.call == call)?;
    fs::read_link(format!("/proc/self/fd/{file}"))
        .ok()
        .filter(|path| path.starts_with(&plan.directory))?;
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
    let controlled = controlled(Number::Write, file).map(|how| {
        if how == SHORT {
            Ok(count.div_ceil(2))
        } else {
            Err(how as c_int)
        }
    });
    match controlled
        .or_else(|| fault("write", file, count))
        .unwrap_or(Ok(count))
    {
        Err(error) => fail(error) as ssize_t,
        Ok(count) => kernel!(libc::SYS_write, file, bytes, count) as ssize_t,
    }
}

/// `fdatasync(2)`
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(file: c_int) -> c_int {
    match (controlled(Number::Sync, file), fault("sync", file, 0)) {
        (Some(how), _) => fail(how as c_int),
        (None, Some(_)) => fail(EIO),
        (None, None) => kernel!(libc::SYS_fdatasync, file) as c_int,
    }
}

/// `fsync(2)`
#[unsafe(no_mangle)]
pub extern "C" fn fsync(file: c_int) -> c_int {
    match (controlled(Number::Sync, file), fault("sync", file, 0)) {
        (Some(how), _) => fail(how as c_int),
        (None, Some(_)) => fail(EIO),
        (None, None) => kernel!(libc::SYS_fsync, file) as c_int,
    }
}

/// `open(2)`, of large files as of any other.
///
/// # Safety
/// Replaces the function of the C library. The flags say whether there is a mode; it is passed on unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the path is the caller's.
    match unsafe { refused_open(path) } {
        Some(error) => fail(error),
        None => kernel!(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int,
    }
}

/// `accept4(2)`
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(
    socket: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    match control::number(Number::Accept) {
        0 => kernel!(libc::SYS_accept4, socket, address, length, flags) as c_int,
        error => {
            control::count(Number::Accept);
            fail(error as c_int)
        }
    }
}

/// `clock_gettime(2)`: the wall clock is ahead as the control file says.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let status = kernel!(libc::SYS_clock_gettime, clock, time) as c_int;
    let ahead = control::number(Number::Clock) as i64;
    if status == 0 && clock == libc::CLOCK_REALTIME && ahead != 0 {
        // SAFETY: the kernel has just written to it.
        let time = unsafe { &mut *time };
        let milliseconds = time.tv_sec * 1000 + time.tv_nsec / 1_000_000 + ahead;
        time.tv_sec = milliseconds.div_euclid(1000);
        time.tv_nsec = milliseconds.rem_euclid(1000) * 1_000_000 + time.tv_nsec % 1_000_000;
    }
    status
}
