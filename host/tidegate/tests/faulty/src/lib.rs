//! A failing disk between a server and the kernel: the preloaded library replaces calls of the C
//! library.
//!
//! `FAULTY_DIR` is the directory whose files are affected. `FAULTY_CALL` is the call that fails
//! (`write` or `sync`). `FAULTY_AT` is the number, from 1, of the first such call that fails; each
//! later one fails, too. `FAULTY_HOW` is `io`, `full` or `short`: with `short`, that call writes
//! one half of its bytes, and the later ones fail.
//!
//! `FAULTY_CONTROL` is a file by which a test turns faults on and off while the server runs: see
//! `control.rs`.

#![allow(unsafe_code, reason = "the functions of a C library are unsafe")]

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

/// Returns the fault of a call on a file by the control file, if there is one now.
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
/// `path` ends with a zero byte.
unsafe fn refused_open(path: *const c_char) -> Option<c_int> {
    let how = control::number(Number::Open);
    let directory = DIRECTORY.as_ref().filter(|_| how != 0)?;
    // SAFETY: the caller passes a string that ends with a zero byte.
    let path = OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes());
    PathBuf::from(path)
        .starts_with(directory)
        .then(|| control::count(Number::Open))
        .map(|()| how as c_int)
}

/// Returns the fault of this call, if it has one: the number of bytes of `count` that are written,
/// or the error.
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
    // SAFETY: the location belongs to this thread.
    unsafe { *libc::__errno_location() = error };
    -1
}

/// Makes the system call itself, by its number.
macro_rules! kernel {
    ($number:expr, $($argument:expr),*) => {
        // SAFETY: the caller passes the arguments of the function that has the same meaning.
        unsafe { libc::syscall($number, $($argument as c_long),*) }
    };
}

/// `write(2)`
///
/// # Safety
/// The requirements are those of the C library's function.
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

/// `open(2)` for large files.
///
/// # Safety
/// This replaces the function of the C library. The flags say whether there is a mode; it is passed
/// on unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller passes a string that ends with a zero byte.
    match unsafe { refused_open(path) } {
        Some(error) => fail(error),
        None => kernel!(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int,
    }
}

/// `accept4(2)`
///
/// # Safety
/// The requirements are those of the C library's function.
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

/// `clock_gettime(2)`: the wall clock is ahead by the offset in the control file.
///
/// # Safety
/// The requirements are those of the C library's function.
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
