//! TLS: what is verified, by which files, and why a handshake failed.
//!
//! The provider of cryptography is that of the process, if it has set one, or else ring. No global
//! is set, so that another library's choice neither changes nor panics.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::socket::Socket;
use crate::base::error::{CauseText, Error, ErrorKind, Reason, Result};
use crate::base::lock::lock;
use crate::base::settings::Settings;

/// How to speak TLS to servers.
pub(super) struct Tls {
    /// Whose certificate they have to have, if it is not that of the host.
    name: Option<ServerName<'static>>,
    source: ConfigSource,
}

enum ConfigSource {
    /// The user's own.
    Given(Arc<ClientConfig>),
    Files(TlsFiles, Mutex<LoadedFiles>),
}

/// The options that say which files there are.
struct TlsFiles {
    ca: Option<PathBuf>,
    identity: Option<ClientIdentity>,
    is_insecure: bool,
    /// Those of the system, if they are needed. They are read once.
    system_roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

/// The certificate that this process shows.
struct ClientIdentity {
    certificate: PathBuf,
    key: PathBuf,
}

/// What the files held when they were last read.
struct LoadedFiles {
    config: Arc<ClientConfig>,
    versions: Vec<FileVersion>,
    /// Why they could not be used, if what is used is older than they are.
    problem: Option<Problem>,
}

struct Problem {
    error: Error,
    is_reported: bool,
}

/// By what another content of a file is noticed; `None` if there is no such file.
type FileVersion = Option<(SystemTime, u64)>;

/// Why TLS could not be spoken, in the words of `rustls`.
#[derive(Debug, Clone)]
pub(super) struct TlsFailure {
    pub(super) kind: TlsFailureKind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsFailureKind {
    /// We refuse the server's certificate.
    RefusedHere,
    /// The server refuses the connection, for want of a certificate say.
    RefusedThere,
    /// What the server sent is no TLS.
    NoTls,
    /// The connection is gone, as any other may be.
    Lost,
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TlsFailure {
    /// What TLS says about the error of a stream, if that is one of TLS.
    pub(super) fn of_stream(error: &io::Error) -> Option<Self> {
        let of_tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(Self {
            kind: TlsFailureKind::of(of_tls),
            text: of_tls.to_string(),
        })
    }

    fn of_handshake(error: &io::Error) -> Self {
        Self::of_stream(error).unwrap_or_else(|| Self {
            kind: TlsFailureKind::Lost,
            text: error.to_string(),
        })
    }
}

impl TlsFailureKind {
    fn of(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::UnsupportedNameType
            | rustls::Error::PeerIncompatible(_)
            | rustls::Error::InvalidCertRevocationList(_) => Self::RefusedHere,
            rustls::Error::AlertReceived(
                AlertDescription::CloseNotify
                | AlertDescription::UserCanceled
                | AlertDescription::InternalError,
            ) => Self::Lost,
            rustls::Error::AlertReceived(_) => Self::RefusedThere,
            rustls::Error::InvalidMessage(_) => Self::NoTls,
            _ => Self::Lost,
        }
    }
}

impl Tls {
    /// TLS as the options say.
    ///
    /// # Errors
    ///
    /// `Config` for a file that cannot be used, and for a name that no certificate can have.
    pub(super) fn from_files(settings: &Settings) -> Result<Self> {
        let name = given_name(settings)?;
        let files = TlsFiles::new(settings)?;
        let loaded = LoadedFiles {
            versions: files.versions(),
            config: Arc::new(files.read()?),
            problem: None,
        };
        Ok(Self {
            name,
            source: ConfigSource::Files(files, Mutex::new(loaded)),
        })
    }

    /// TLS by a configuration of the user's.
    ///
    /// # Errors
    ///
    /// `Config` for a name that no certificate can have.
    pub(super) fn given(config: Arc<ClientConfig>, settings: &Settings) -> Result<Self> {
        Ok(Self {
            name: given_name(settings)?,
            source: ConfigSource::Given(config),
        })
    }

    /// Refuses a host that no certificate can name.
    ///
    /// # Errors
    ///
    /// `Config`.
    pub(super) fn check_host(&self, host: &str) -> Result<()> {
        self.name_at(host).map(drop).map_err(config_error)
    }

    /// Makes a TLS connection of a new socket to `host`.
    pub(super) async fn handshake(
        &self,
        host: &str,
        socket: Socket,
    ) -> std::result::Result<TlsStream<Socket>, TlsFailure> {
        let name = self.name_at(host).map_err(|text| TlsFailure {
            kind: TlsFailureKind::RefusedHere,
            text,
        })?;
        let connector = TlsConnector::from(self.config());
        let stream = connector.connect(name, socket).await;
        stream.map_err(|error| TlsFailure::of_handshake(&error))
    }

    /// Whose certificate the server at `host` has to have.
    fn name_at(&self, host: &str) -> std::result::Result<ServerName<'static>, String> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        ServerName::try_from(host.to_owned()).map_err(|_| {
            format!(
                "no certificate can have the name `{host}`: say by `tls_name` which one the server \
                 has"
            )
        })
    }

    /// Whether this process has a certificate to show, as far as known.
    pub(super) fn has_certificate(&self) -> bool {
        match &self.source {
            ConfigSource::Given(config) => config.client_auth_cert_resolver.has_certs(),
            ConfigSource::Files(files, _) => files.identity.is_some(),
        }
    }

    /// The newest configuration. New files that cannot be used change nothing, and are a
    /// [`problem`](Self::problem).
    fn config(&self) -> Arc<ClientConfig> {
        let (files, loaded) = match &self.source {
            ConfigSource::Given(config) => return Arc::clone(config),
            ConfigSource::Files(files, loaded) => (files, loaded),
        };
        // Before they are read: what changes meanwhile is noticed the next time.
        let versions = files.versions();
        let mut loaded = lock(loaded);
        if loaded.versions != versions {
            loaded.versions = versions;
            match files.read() {
                Ok(config) => {
                    loaded.config = Arc::new(config);
                    loaded.problem = None;
                }
                Err(error) => {
                    loaded.problem = Some(Problem {
                        error,
                        is_reported: false,
                    });
                }
            }
        }
        Arc::clone(&loaded.config)
    }

    /// What is wrong with the files, while older ones are used.
    pub(super) fn problem(&self) -> Option<String> {
        self.with_problem(|problem| problem.text())
    }

    /// The same, once for each change of the files.
    pub(super) fn new_problem(&self) -> Option<String> {
        self.with_problem(|problem| {
            let is_reported = std::mem::replace(&mut problem.is_reported, true);
            (!is_reported).then(|| problem.text())
        })
        .flatten()
    }

    fn with_problem<T>(&self, read: impl FnOnce(&mut Problem) -> T) -> Option<T> {
        match &self.source {
            ConfigSource::Given(_) => None,
            ConfigSource::Files(_, loaded) => lock(loaded).problem.as_mut().map(read),
        }
    }
}

impl Problem {
    fn text(&self) -> String {
        format!(
            "the files of TLS have changed, and those of before are used: {}",
            self.error
        )
    }
}

/// The name that the options say.
fn given_name(settings: &Settings) -> Result<Option<ServerName<'static>>> {
    let name = settings.tls_name.as_ref().map(|name| {
        ServerName::try_from(name.clone()).map_err(|_| {
            config_error(format!(
                "`tls_name` is `{name}`, which is neither a host nor an address"
            ))
        })
    });
    name.transpose()
}

impl TlsFiles {
    fn new(settings: &Settings) -> Result<Self> {
        let identity = settings.tls_cert.clone().zip(settings.tls_key.clone());
        let is_insecure = settings.tls_insecure;
        let system_roots = if settings.tls_ca.is_none() && !is_insecure {
            system_roots()?
        } else {
            RootCertStore::empty()
        };
        Ok(Self {
            ca: settings.tls_ca.clone(),
            identity: identity.map(|(certificate, key)| ClientIdentity { certificate, key }),
            is_insecure,
            system_roots: Arc::new(system_roots),
            provider: provider(),
        })
    }

    fn versions(&self) -> Vec<FileVersion> {
        let identity = self.identity.iter();
        let of_identity = identity.flat_map(|identity| [&identity.certificate, &identity.key]);
        self.ca
            .iter()
            .chain(of_identity)
            .map(|path| version(path))
            .collect()
    }

    /// The configuration by what the files hold now.
    fn read(&self) -> Result<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| config_error(of_rustls("the process's provider of TLS", &error)))?;
        let builder = if self.is_insecure {
            let verifier = Arc::new(NoVerification(Arc::clone(&self.provider)));
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let mut config = match &self.identity {
            Some(identity) => {
                let (certificates, key) = identity.read()?;
                let config = builder.with_client_auth_cert(certificates, key);
                config.map_err(|error| identity.unusable(&error))?
            }
            None => builder.with_no_client_auth(),
        };
        // A resumed session verifies nothing anew, and shows the certificate of before.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn roots(&self) -> Result<Arc<RootCertStore>> {
        let Some(path) = &self.ca else {
            return Ok(Arc::clone(&self.system_roots));
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("tls_ca", path)? {
            roots.add(certificate).map_err(|error| {
                let what = format!("`tls_ca`: a certificate in `{}`", path.display());
                config_error(of_rustls(&what, &error))
            })?;
        }
        Ok(Arc::new(roots))
    }
}

impl ClientIdentity {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let certificates = certificates("tls_cert", &self.certificate)?;
        // No text of the parser's: it may repeat what it has read.
        let key = PrivateKeyDer::from_pem_slice(&contents("tls_key", &self.key)?);
        let key = key.map_err(|_| {
            config_error(format!(
                "`tls_key`: there is no private key in `{}` that can be read: PEM is expected, \
                 without a passphrase",
                self.key.display()
            ))
        })?;
        Ok((certificates, key))
    }

    fn unusable(&self, error: &rustls::Error) -> Error {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        config_error(match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "`tls_key`: the key in `{key}` is not that of the certificate in `{certificate}` \
                 (`tls_cert`)"
            )
            .into(),
            error => {
                let what = format!("`tls_cert` and `tls_key`: `{certificate}` and `{key}`");
                of_rustls(&what, error)
            }
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    let of_process = CryptoProvider::get_default().map(Arc::clone);
    of_process.unwrap_or_else(|| Arc::new(crypto::ring::default_provider()))
}

/// The authorities that this system trusts. Those that cannot be read are left out.
fn system_roots() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let causes: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let what = "this system has no certificate authorities: name a file with them by `tls_ca`";
        return Err(config_error(Reason::caused_by(
            what,
            CauseText(causes.join("; ")),
        )));
    }
    Ok(roots)
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = contents(option, path)?;
    let certificates: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&pem).collect();
    certificates
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| {
            config_error(format!(
                "`{option}`: there is no certificate in `{}` that can be read: PEM is expected",
                path.display()
            ))
        })
}

fn contents(option: &str, path: &Path) -> Result<Vec<u8>> {
    let subject = format!("`{option}`: the file `{}`", path.display());
    let io_error = |error: &io::Error| config_error(Reason::io(&subject, error));
    let metadata = fs::metadata(path).map_err(|error| io_error(&error))?;
    if !metadata.is_file() {
        // To read it may never end.
        return Err(config_error(format!("{subject} is no file")));
    }
    fs::read(path).map_err(|error| io_error(&error))
}

fn version(path: &Path) -> FileVersion {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn of_rustls(subject: &str, error: &rustls::Error) -> Reason {
    format!("{subject}: {error}").into()
}

fn config_error(what: impl Into<Reason>) -> Error {
    Error::new(ErrorKind::Config, what)
}

/// Takes every certificate. The other side still has to have the key of the one that it shows.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
