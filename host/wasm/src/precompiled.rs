//! Components that were compiled ahead: a file with the component, and its machine code for one engine.
//!
//! Machine code runs outside of the sandbox, so such a file is trusted as the `tidegate` binary itself is. It is read only if it
//! belongs to this user or root and no other user may write to it, if it is intact, and if the same engine made its code. The
//! digest finds damage and mistakes. It is not a signature: a user who may write the file can run any code.

use crate::{cache::Key, load_error::LoadError};
use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};
use wasmtime::{Engine, component::Component};

/// First bytes of the file. The rest follows: a digest of all after it, the engine's fingerprint, the
/// length of the component, the component, its code.
const MAGIC: &[u8; 8] = b"\0tide\x00\x00\x01";
const DIGEST_BYTES: usize = 32;

/// The parts of such a file, which is whole.
pub(crate) struct Precompiled<'a> {
    pub(crate) wasm: &'a [u8],
    engine: &'a [u8],
    code: &'a [u8],
}

impl<'a> Precompiled<'a> {
    /// None if the file is of another kind.
    pub(crate) fn read(path: &Path, bytes: &'a [u8]) -> Result<Option<Precompiled<'a>>, LoadError> {
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return Ok(None);
        };
        check_trust(&fs::metadata(path).map_err(LoadError::Read)?)?;
        let (digest, body) = rest
            .split_at_checked(DIGEST_BYTES)
            .ok_or(LoadError::Altered)?;
        if Sha256::digest(body)[..] != *digest {
            return Err(LoadError::Altered);
        }
        let (engine, body) = body
            .split_at_checked(DIGEST_BYTES)
            .ok_or(LoadError::Altered)?;
        let (length, body) = body.split_first_chunk().ok_or(LoadError::Altered)?;
        let length =
            usize::try_from(u64::from_le_bytes(*length)).map_err(|_| LoadError::Altered)?;
        let (wasm, code) = body.split_at_checked(length).ok_or(LoadError::Altered)?;
        Ok(Some(Precompiled { wasm, engine, code }))
    }

    /// The component, if it was compiled by an engine like this one.
    pub(crate) fn component(&self, engine: &Engine) -> Result<Component, LoadError> {
        if *self.engine != fingerprint(engine) {
            return Err(LoadError::OtherEngine);
        }
        // SAFETY: the file is trusted (see above), it is whole, and this engine's like made its code.
        #[allow(unsafe_code)]
        unsafe { Component::deserialize(engine, self.code) }.map_err(LoadError::Invalid)
    }
}

/// Writes a component with its code; never a part of it.
pub(crate) fn write(
    to: &Path,
    engine: &Engine,
    wasm: &[u8],
    component: &Component,
) -> io::Result<u64> {
    let code = component.serialize().map_err(io::Error::other)?;
    let body = [
        &fingerprint(engine)[..],
        &(wasm.len() as u64).to_le_bytes(),
        wasm,
        &code,
    ]
    .concat();
    let bytes = [&MAGIC[..], &Sha256::digest(&body), &body].concat();
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let unfinished = to.with_file_name(name);
    let written = (|| {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&unfinished)?;
        io::Write::write_all(&mut file, &bytes)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(&unfinished, to)
    })();
    if written.is_err() {
        _ = fs::remove_file(&unfinished);
    }
    written.map(|()| bytes.len() as u64)
}

fn fingerprint(engine: &Engine) -> [u8; DIGEST_BYTES] {
    Key::of(&engine.precompile_compatibility_hash())
}

/// Checks that the file belongs to root or this user, and that no other user may write to it.
fn check_trust(metadata: &fs::Metadata) -> Result<(), LoadError> {
    let this_user =
        fs::metadata("/proc/self").map_or_else(|_| metadata.uid(), |process| process.uid());
    let ours = metadata.uid() == 0 || metadata.uid() == this_user;
    if ours && metadata.permissions().mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(LoadError::Untrusted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_the_file_counts_and_so_does_who_may_write_it() {
        let place = std::env::temp_dir().join(format!("tidegate-tide-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let path = place.join("app.tide");
        let engine = Engine::default();
        let wasm = b"\0asm\x0d\0\x01\0"; // a component with nothing in it
        write(
            &path,
            &engine,
            wasm,
            &Component::new(&engine, wasm).unwrap(),
        )
        .unwrap();
        let bytes = fs::read(&path).unwrap();
        let tide = Precompiled::read(&path, &bytes).unwrap().unwrap();
        assert!(tide.wasm == wasm && tide.component(&engine).is_ok());

        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        assert!(matches!(
            tide.component(&Engine::new(&config).unwrap()),
            Err(LoadError::OtherEngine)
        ));
        for at in (MAGIC.len()..bytes.len()).step_by(7) {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(
                matches!(Precompiled::read(&path, &altered), Err(LoadError::Altered)),
                "byte {at}"
            );
        }
        for length in [MAGIC.len(), 60, bytes.len() - 1] {
            assert!(
                matches!(
                    Precompiled::read(&path, &bytes[..length]),
                    Err(LoadError::Altered)
                ),
                "{length} bytes"
            );
        }
        assert!(matches!(Precompiled::read(&path, wasm), Ok(None)));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        assert!(matches!(
            Precompiled::read(&path, &bytes),
            Err(LoadError::Untrusted)
        ));
        fs::remove_dir_all(place).unwrap();
    }
}
