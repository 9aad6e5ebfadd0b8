//! A server that speaks TLS and asks its clients for certificates: what is refused, and
//! certificates that are replaced while the process runs.
//!
//! ```text
//! cargo run --example tls
//! ```
//!
//! It starts a redis-server of its own (which must be installed, with TLS), with certificates of an
//! authority of its own.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use synced_memory::{Builder, ErrorKind, Memory, SyncedMemory, Written};
use synced_memory_examples::{RedisServer, TlsFiles, wait_until};
use tempfile::TempDir;

#[derive(SyncedMemory)]
struct Job {
    #[synced(default)]
    step: u64,
}

/// The files (PEM) of the server and of this process.
struct Files {
    dir: TempDir,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts certificates of a new authority there, with their keys, instead of what is there.
    fn issue(&self, authority: &str) -> Result<(), Box<dyn Error>> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, authority);
        let key = KeyPair::generate()?;
        fs::write(self.path("ca.pem"), params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);

        for (name, hosts) in [("server", vec!["127.0.0.1".to_string()]), ("job", vec![])] {
            let key = KeyPair::generate()?;
            let certificate = CertificateParams::new(hosts)?.signed_by(&key, &issuer)?;
            fs::write(self.path(&format!("{name}.pem")), certificate.pem())?;
            fs::write(self.path(&format!("{name}.key")), key.serialize_pem())?;
        }
        Ok(())
    }
}

/// How this process speaks to the server. The same can be said in the URL:
/// `rediss://host?tls_ca=/etc/job/ca.pem&tls_cert=/etc/job/job.pem&tls_key=/etc/job/job.key`.
fn with_certificate(files: &Files, server: &RedisServer) -> Builder {
    without_certificate(&files.path("ca.pem"), server)
        .tls_cert(files.path("job.pem"))
        .tls_key(files.path("job.key"))
}

fn without_certificate(ca: &Path, server: &RedisServer) -> Builder {
    Memory::builder().url(server.url()).tls_ca(ca)
}

fn print_refused(builder: Builder) {
    let error = builder.build().unwrap_err();
    println!("  refused: {error}");
    assert_eq!(error.kind(), ErrorKind::Rejected);
}

fn main() -> Result<(), Box<dyn Error>> {
    let files = Files {
        dir: TempDir::new()?,
    };
    files.issue("this year's authority")?;
    let mut server = RedisServer::with_tls(TlsFiles {
        ca: files.path("ca.pem"),
        certificate: files.path("server.pem"),
        key: files.path("server.key"),
    });

    println!("both sides show a certificate");
    let memory = with_certificate(&files, &server).build()?;
    let job = Job::attach(&memory);
    assert_eq!(job.set_step(1)?, Written::Stored);
    println!("  stored, at {}", server.url());

    println!("this process shows none");
    print_refused(without_certificate(&files.path("ca.pem"), &server));

    println!("both get certificates of another authority, and the server is started again");
    let old_ca = files.path("old-ca.pem");
    fs::copy(files.path("ca.pem"), &old_ca)?;
    files.issue("next year's authority")?;
    // What is connected stays connected: files are read at the next connect.
    assert_eq!(job.set_step(2)?, Written::Stored);
    server.kill();
    assert_eq!(job.set_step(3)?, Written::Queued);
    server.start();
    memory.flush(Duration::from_secs(10))?;
    wait_until("the memory is connected", || memory.status().connected);
    assert_eq!(job.set_step(4)?, Written::Stored);
    println!("  the same memory goes on");

    println!("this process trusts the old authority alone");
    print_refused(with_certificate(&files, &server).tls_ca(old_ca));
    Ok(())
}
