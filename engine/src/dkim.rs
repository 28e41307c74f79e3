//! The keys that sign what goes out (DKIM): read from their files at the start and at each reload.
//!
//! Bound: a key's file is read up to [`KEY_FILE_MAX`].

use crate::config::{Dkim, DkimDomain, DkimSelector};
use crate::control::dns::{ascii, unicode};
use message::dkim::{DomainSigners, Key, KeyError, SelectorKey, Signers, Terms};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use zeroize::Zeroizing;

/// The largest key that is used has some 6,400.
const KEY_FILE_MAX: usize = 64 << 10;

/// Why the keys of `[dkim]` cannot be used; says which.
#[derive(Debug, thiserror::Error)]
pub enum DkimFilesError {
    #[error("{path}: {source}; the user that ringpost runs as must be able to read this DKIM key", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: everybody on this machine can get at this DKIM key (mode {mode:04o}); chmod 0600 it, and replace it if others had the time to copy it", path = .path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{path}: {source}", path = .path.display())]
    Key { path: PathBuf, source: KeyError },
    #[error("dkim.domains.{0:?} is no domain that the DNS can have")]
    Name(String),
    #[error("dkim.domains names {0} twice, in other letters")]
    Twice(String),
}

/// Reads the keys.
pub fn load(config: &Dkim) -> Result<Signers, DkimFilesError> {
    static LOADED: AtomicU32 = AtomicU32::new(0);
    // 0 is that of signers without keys.
    let tag = LOADED.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    let mut signers = Signers::new(tag, config.sign_again);
    for domain in load_domains(config)? {
        // Authors write either form.
        if let Some(name) = unicode(&domain.domain) {
            signers.insert(&name, Arc::clone(&domain));
        }
        signers.insert(&domain.domain.clone(), domain);
    }
    Ok(signers)
}

/// Each domain's, in the order of their names.
pub(crate) fn load_domains(config: &Dkim) -> Result<Vec<Arc<DomainSigners>>, DkimFilesError> {
    let terms = Arc::new(terms(config));
    let mut loaded: Vec<Arc<DomainSigners>> = Vec::with_capacity(config.domains.len());
    for (name, domain) in &config.domains {
        let name = ascii(name).ok_or_else(|| DkimFilesError::Name(name.clone()))?;
        loaded.push(Arc::new(load_domain(&name, domain, &terms)?));
    }
    loaded.sort_by(|a, b| a.domain.cmp(&b.domain));
    match loaded.windows(2).find(|pair| pair[0].domain == pair[1].domain) {
        Some(pair) => Err(DkimFilesError::Twice(pair[0].domain.to_string())),
        None => Ok(loaded),
    }
}

fn terms(config: &Dkim) -> Terms {
    let mut terms =
        Terms::new(config.oversign.iter().map(String::as_str), config.headers.iter().map(String::as_str));
    (terms.timestamp, terms.expiry_secs) = (config.timestamp, config.expiry_secs);
    terms
}

fn load_domain(name: &str, domain: &DkimDomain, terms: &Arc<Terms>) -> Result<DomainSigners, DkimFilesError> {
    let key = |DkimSelector { selector, key }: &DkimSelector| {
        Ok(SelectorKey { selector: selector.to_lowercase().into(), key: load_key(key)? })
    };
    Ok(DomainSigners {
        domain: name.into(),
        identity: domain.identity.as_deref().map(Into::into),
        subdomains: domain.subdomains,
        terms: Arc::clone(terms),
        keys: domain.selectors.iter().map(key).collect::<Result<_, _>>()?,
    })
}

/// A key that others can read could sign for them; one that they can write would be theirs.
fn load_key(path: &Path) -> Result<Key, DkimFilesError> {
    let failed = |source| DkimFilesError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o006 != 0 {
        return Err(DkimFilesError::Exposed { path: path.to_owned(), mode });
    }
    let mut pem = Zeroizing::new(Vec::with_capacity(KEY_FILE_MAX));
    file.take(KEY_FILE_MAX as u64).read_to_end(&mut pem).map_err(failed)?;
    Key::from_pem(&pem).map_err(|source| DkimFilesError::Key { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// RFC 8463 §A.1.
    const KEY: &str = include_str!("../../message/tests/dkim/ed25519.pem");

    fn config(lines: &str) -> Dkim {
        toml::from_str(lines).unwrap()
    }

    fn key_file(folder: &Path, text: &str, mode: u32) -> String {
        let path = folder.join(format!("{mode:o}.pem"));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    fn domain(name: &str, key: &str) -> String {
        format!("[domains.{name:?}]\nselectors = [{{ selector = \"S1\", key = {key:?} }}]\n")
    }

    #[test]
    fn both_forms_of_a_domain_find_its_keys() {
        let folder = tempfile::tempdir().unwrap();
        let key = key_file(folder.path(), KEY, 0o640);
        let signers = load(&config(&domain("Παράδειγμα.test", &key))).unwrap();
        for from in ["ann@παράδειγμα.test", "ann@xn--hxajbheg2az3al.test"] {
            let found = signers.signers_for(format!("From: {from}\r\n\r\n").as_bytes()).unwrap();
            assert_eq!((&*found.domain, &*found.keys[0].selector), ("xn--hxajbheg2az3al.test", "s1"));
        }
        let both = domain("παράδειγμα.test", &key) + &domain("xn--hxajbheg2az3al.test", &key);
        assert!(load(&config(&both)).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn keys_that_others_can_read_or_nobody_can_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = |key: &str| load(&config(&domain("a.test", key))).unwrap_err().to_string();
        let said = error(&key_file(folder.path(), KEY, 0o644));
        assert!(said.contains("644.pem: ") && said.contains("chmod 0600"), "{said}");
        assert!(error(&key_file(folder.path(), KEY, 0o602)).contains("mode 0602"));
        assert!(
            error(&key_file(folder.path(), "no key", 0o600)).contains("600.pem: it holds no private key")
        );
        assert!(error("/nowhere/k.pem").contains("/nowhere/k.pem: No such file"));
    }

    #[test]
    fn each_load_is_told_from_those_before() {
        let none = Dkim::default();
        assert_ne!(load(&none).unwrap().tag(), load(&none).unwrap().tag());
        assert!(load(&none).unwrap().is_empty());
    }
}
