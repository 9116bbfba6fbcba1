//! The key that this focus signs its tokens with: made at the first start, and kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// In the state directory.
const FILE: &str = "token.key";
/// More is not what we wrote.
const MAX_FILE_BYTES: u64 = 4_096;
/// Secrets of less are no longer than a guess; ours have 43 characters.
const MIN_SECRET_CHARS: usize = 32;

/// An API key in the words of the protocol: a name, and the secret that signs.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey {
    pub name: String,
    pub secret: String,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: others may read it (mode {mode:03o})", path.display())]
    Readable { path: PathBuf, mode: u32 },
    #[error("{}: it is no key of ours", path.display())]
    Malformed { path: PathBuf },
}

impl TokenKey {
    /// Reads the key of a state directory, or makes it of `randomness`. Tokens of other keys stay what they are: a
    /// directory that is lost costs those who are in a call a new token.
    pub fn load_or_create(directory: &Path, randomness: [u8; 40]) -> Result<Self, KeyError> {
        if let Some(key) = Self::load(directory)? {
            return Ok(key);
        }
        let path = directory.join(FILE);
        let io = |error| KeyError::Io { path: path.clone(), error };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        Self::new(randomness).write(directory).map_err(io)?;
        // Another process may have been first: then its key is in place, and counts.
        Self::read(File::open(&path).map_err(io)?, &path)
    }

    /// Reads the key of a state directory, if one has been made.
    pub fn load(directory: &Path) -> Result<Option<Self>, KeyError> {
        let path = directory.join(FILE);
        match File::open(&path) {
            Ok(file) => Self::read(file, &path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(KeyError::Io { path, error }),
        }
    }

    fn new(randomness: [u8; 40]) -> Self {
        let (name, secret) = randomness.split_at(8);
        let name = name.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { name: format!("weir-{name}"), secret: URL_SAFE_NO_PAD.encode(secret) }
    }

    fn read(file: File, path: &Path) -> Result<Self, KeyError> {
        let io = |error| KeyError::Io { path: path.to_owned(), error };
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Readable { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(io)?;
        let key = text
            .trim_end()
            .split_once(' ')
            .map(|(name, secret)| Self { name: name.to_owned(), secret: secret.to_owned() });
        key.filter(|key| !key.name.is_empty() && key.secret.len() >= MIN_SECRET_CHARS)
            .ok_or_else(|| KeyError::Malformed { path: path.to_owned() })
    }

    /// Whole or not at all, so that no crash leaves half a key; and without taking another's place.
    fn write(&self, directory: &Path) -> io::Result<()> {
        let half = directory.join(format!("{FILE}.{}", self.name));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
        writeln!(file, "{} {}", self.name, self.secret)?;
        file.sync_all()?;
        let linked = fs::hard_link(&half, directory.join(FILE));
        fs::remove_file(&half)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("weir-keys-{}-{name}", std::process::id())))
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn load(directory: &Directory, byte: u8) -> Result<TokenKey, KeyError> {
        TokenKey::load_or_create(&directory.0.join("state"), [byte; 40])
    }

    #[test]
    fn the_first_key_is_kept_and_its_owner_alone_may_read_it() {
        let directory = Directory::new("kept");
        let first = load(&directory, 1).ok().unwrap();
        assert_eq!(first.name, "weir-0101010101010101");
        assert_eq!(first.secret.len(), 43);
        assert!(load(&directory, 2).ok().unwrap() == first);
        let state = directory.0.join("state");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing half-written stays");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = Directory::new("readable");
        load(&directory, 1).ok().unwrap();
        fs::set_permissions(directory.0.join("state").join(FILE), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(&directory, 1), Err(KeyError::Readable { mode: 0o640, .. })));
    }

    #[test]
    fn what_is_no_key_is_neither_used_nor_overwritten() {
        let directory = Directory::new("malformed");
        load(&directory, 1).ok().unwrap();
        for text in ["", "weir-1", "weir-1 short", " 0123456789012345678901234567890123456789"] {
            let path = directory.0.join("state").join(FILE);
            fs::write(&path, text).unwrap();
            assert!(matches!(load(&directory, 2), Err(KeyError::Malformed { .. })), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
