use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

/// An authority of the test's own, which signs certificates into files of a temporary directory.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    issued: AtomicU32,
}

/// A certificate and its private key, as files in PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The file with the certificate.
    pub file: PathBuf,
    /// The file with the key.
    pub key: PathBuf,
}

impl Authority {
    /// One that nobody trusts unless it is told to.
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("it can sign itself");
        let dir = TempDir::new().expect("a temporary directory can be made");
        write(&dir.path().join("ca.pem"), &certificate.pem());
        Self {
            dir,
            issuer: Issuer::new(params, key),
            issued: AtomicU32::new(0),
        }
    }

    /// The file with its own certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for the hosts at which [`Server`](crate::Server)s of this machine are.
    pub fn local(&self) -> Certificate {
        self.named(&["localhost", "127.0.0.1"])
    }

    /// A certificate for these hosts and addresses.
    pub fn named(&self, names: &[&str]) -> Certificate {
        self.sign(&params("server", names))
    }

    /// The same of one that expired long ago.
    pub fn expired(&self, names: &[&str]) -> Certificate {
        let mut params = params("server", names);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Certificate {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("it can be signed");
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let issued = Certificate {
            file: self.dir.path().join(format!("{number}.pem")),
            key: self.dir.path().join(format!("{number}.key")),
        };
        write(&issued.file, &certificate.pem());
        write(&issued.key, &key.serialize_pem());
        issued
    }
}

impl Certificate {
    /// Puts another certificate and its key into the files of this one, as a rotation does.
    pub fn replace_by(&self, other: &Self) {
        replace(&self.key, &other.key);
        replace(&self.file, &other.file);
    }
}

/// Puts the content of `new` into the file `old`, in one step. The file is noticed as another one
/// even if both have one length and were made at one moment.
pub fn replace(old: &Path, new: &Path) {
    let beside = old.with_extension("new");
    let mut content = fs::read(new).expect("the new file is there");
    if fs::metadata(old).is_ok_and(|old| old.len() == content.len() as u64) {
        content.push(b'\n');
    }
    fs::write(&beside, content).expect("a file can be written beside it");
    fs::rename(&beside, old).expect("a file can be replaced");
}

fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("the names are good");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a file can be written");
}
