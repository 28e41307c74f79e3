//! `ringpost dkim keygen`: a new key in a file of its own, and its record for the zone.
//!
//! The file is 0600 from its first moment, PKCS#8 in PEM, which OpenSSL and OpenDKIM read too. One that is there already is
//! never written over: its key may be in use.

use super::DkimError;
use crate::control::dns::ascii;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use clap::{Args, ValueEnum};
use message::dkim::{Key, SignError, name_of, zone_lines};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

#[derive(Args, Debug)]
pub(crate) struct Keygen {
    /// The domain whose mail it is to sign.
    #[arg(long, value_name = "DOMAIN")]
    domain: String,
    /// The key's name in the DNS; a new one for each key.
    #[arg(long, value_name = "NAME")]
    selector: String,
    /// Not all verifiers know ed25519: give a domain a key of each.
    #[arg(long = "type", value_enum, default_value_t = Kind::Rsa)]
    kind: Kind,
    /// Of an RSA key. The record of a longer one does not fit into a short answer of the DNS.
    #[arg(long, value_enum, default_value_t = Bits::B2048)]
    bits: Bits,
    /// The file for the key; must not be there yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Rsa,
    Ed25519,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bits {
    #[value(name = "2048")]
    B2048,
    #[value(name = "3072")]
    B3072,
    #[value(name = "4096")]
    B4096,
}

pub(super) fn run(args: &Keygen) -> Result<ExitCode, DkimError> {
    let domain = args.name_in_dns(&args.domain)?;
    let selector = args.name_in_dns(&args.selector)?;
    let pem = pem(&args.generate().map_err(|_| SignError::Library)?);
    let key = Key::from_pem(pem.as_bytes()).map_err(|_| SignError::Library)?;
    let record = key.record()?;
    write_new(&args.out, pem.as_bytes())
        .map_err(|source| DkimError::File { path: args.out.clone(), source })?;
    io::stdout().write_all(zone_lines(&name_of(&selector, &domain), &record).as_bytes())?;
    let out = args.out.display();
    eprintln!(
        "Publish the record, then sign with the key:\n[dkim.domains.{domain:?}]\nselectors = [{{ selector = \
         {selector:?}, key = \"{out}\" }}]\nThe user that ringpost runs as must be able to read the file, others must not. \
         `ringpost dkim check` sees whether the record is there."
    );
    Ok(ExitCode::SUCCESS)
}

impl Keygen {
    fn name_in_dns(&self, name: &str) -> Result<String, DkimError> {
        let wrong = DkimError::Usage("--domain and --selector are names in the DNS");
        match ascii(name).filter(|name| message::Domain::parse(name).is_ok()) {
            Some(name) => Ok(name),
            None => Err(wrong),
        }
    }

    /// In PKCS#8.
    fn generate(&self) -> Result<Zeroizing<Vec<u8>>, aws_lc_rs::error::Unspecified> {
        let size = match self.bits {
            Bits::B2048 => KeySize::Rsa2048,
            Bits::B3072 => KeySize::Rsa3072,
            Bits::B4096 => KeySize::Rsa4096,
        };
        let der = match self.kind {
            Kind::Rsa => {
                let der: Pkcs8V1Der<'_> = KeyPair::generate(size)?.as_der()?;
                der.as_ref().to_vec()
            }
            // Version 1: OpenSSL does not read the public key that version 2 has in it.
            Kind::Ed25519 => Ed25519KeyPair::generate()?.to_pkcs8v1()?.as_ref().to_vec(),
        };
        Ok(Zeroizing::new(der))
    }
}

fn pem(der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    let mut pem = Zeroizing::new(String::with_capacity(base64.len() * 66 / 64 + 64));
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    // Base64 is ASCII.
    for line in base64.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()) {
        pem.push_str(line);
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

/// The whole file durable, or none.
fn write_new(path: &Path, pem: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Err(error) = file.write_all(pem).and_then(|()| file.sync_all()) {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
