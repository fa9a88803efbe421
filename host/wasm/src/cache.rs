//! Compiled code that is kept between starts, in a directory that only this user can reach.
//!
//! Compiled code is trusted: it runs outside of the sandbox. So it is read only from a directory of our own, and only
//! if it is what was written there.

use sha2::{Digest, Sha256};
use std::{
    fs,
    hash::{Hash, Hasher},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};
use wasmtime::{Engine, component::Component};

const DIGEST_BYTES: usize = 32;

/// A directory of mode 0700.
pub(crate) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// Makes the directory if there is none; refuses one that others can write to or that is not ours.
    pub(crate) fn open(directory: &Path) -> io::Result<Cache> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let metadata = fs::metadata(directory)?;
        let ours = metadata.uid()
            == fs::metadata("/proc/self")
                .map(|process| process.uid())
                .unwrap_or(metadata.uid());
        if !ours || metadata.permissions().mode() & 0o077 != 0 {
            return Err(io::Error::other(
                "it is not a directory of mode 0700 that belongs to this user",
            ));
        }
        Ok(Cache {
            directory: directory.to_owned(),
        })
    }

    /// The component if it was compiled before by an engine like this one. A damaged entry is as none.
    pub(crate) fn get(&self, engine: &Engine, wasm: &[u8]) -> Option<Component> {
        let entry = fs::read(self.path(engine, wasm)).ok()?;
        let (digest, code) = entry.split_at_checked(DIGEST_BYTES)?;
        if Sha256::digest(code)[..] != *digest {
            return None;
        }
        // SAFETY: the code was written by `put` below: the directory is ours alone, and the digest says that it is whole.
        #[allow(unsafe_code)]
        unsafe { Component::deserialize(engine, code) }.ok()
    }

    /// Keeps the component's code. A failure costs the next start a compilation, nothing else.
    pub(crate) fn put(
        &self,
        engine: &Engine,
        wasm: &[u8],
        component: &Component,
    ) -> wasmtime::Result<()> {
        let code = component.serialize()?;
        let path = self.path(engine, wasm);
        let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
        fs::write(&unfinished, [&Sha256::digest(&code)[..], &code].concat())?;
        fs::rename(unfinished, path)?;
        Ok(())
    }

    fn path(&self, engine: &Engine, wasm: &[u8]) -> PathBuf {
        let key = Key::of(&(
            Sha256::digest(wasm).as_slice(),
            engine.precompile_compatibility_hash(),
        ));
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(format!("{name}.code"))
    }
}

/// Lets what can be hashed go into a digest.
pub(crate) struct Key(Sha256);

impl Key {
    pub(crate) fn of(value: &impl Hash) -> [u8; DIGEST_BYTES] {
        let mut key = Key(Sha256::new());
        value.hash(&mut key);
        key.0.finalize().into()
    }
}

impl Hasher for Key {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the digest is taken instead")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory =
            std::env::temp_dir().join(format!("tidegate-cache-{name}-{}", std::process::id()));
        _ = fs::remove_dir_all(&directory);
        directory
    }

    #[test]
    fn what_was_kept_is_found_and_a_damaged_entry_is_not() {
        let directory = directory("kept");
        let cache = Cache::open(&directory).unwrap();
        let engine = Engine::default();
        let wasm = b"\0asm\x0d\0\x01\0"; // a component with nothing in it
        assert!(cache.get(&engine, wasm).is_none());
        cache
            .put(&engine, wasm, &Component::new(&engine, wasm).unwrap())
            .unwrap();
        assert!(cache.get(&engine, wasm).is_some());
        assert!(cache.get(&engine, &wasm[..7]).is_none());
        let path = cache.path(&engine, wasm);
        let mut entry = fs::read(&path).unwrap();
        *entry.last_mut().unwrap() ^= 1;
        fs::write(&path, entry).unwrap();
        assert!(cache.get(&engine, wasm).is_none());
        fs::write(&path, "short").unwrap();
        assert!(cache.get(&engine, wasm).is_none());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_reach_is_refused() {
        let directory = directory("open");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(Cache::open(&directory).is_err());
        fs::remove_dir_all(directory).unwrap();
    }
}
