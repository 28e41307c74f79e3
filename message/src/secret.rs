//! A password on its way: shown by no `Debug`, wiped when it goes.

use zeroize::Zeroizing;

/// See the module.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(octets: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(octets))
    }

    /// As the client gave it: UTF-8 or not.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(hidden)")
    }
}
