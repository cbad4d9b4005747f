//! The certificate authority of this machine alone, kept in a folder, and TLS with the certificate it gave this server.
//!
//! What is in the folder is judged by what a client would say: a certificate is kept while one that trusts `ca.pem` alone will
//! take it for every name for another thirty days, and while it is for no other name. What fails that is made anew.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{RootCertStore, ServerConfig};

use super::certificate::{self, DAY, Pair};

/// The names that fal's clients use. A tunnel leads to these, and to nothing else.
pub const FAL_NAMES: &[&str] = &[
    "fal.run",
    "queue.fal.run",
    "rest.fal.ai",
    "v3.fal.media",
    "v3b.fal.media",
    "fal.media",
    "ws.fal.run",
    "api.fal.ai",
    "rest.alpha.fal.ai",
    "falrun.com",
    "queue.falrun.com",
    "fal.ai",
];

/// The names of the machine that the server runs on.
pub const LOCAL_NAMES: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// What a certificate must still last for to be kept.
const RENEW: Duration = DAY.saturating_mul(30);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the authority cannot be read or written.
    #[error("{}: the certificate authority keeps this here, and cannot {action} it. \
         Give the server the right to, or another folder", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A name that no certificate can be for.
    #[error(
        "`{name}` is neither a host name in ASCII letters nor an IP address, so no certificate can be for it. \
         Give it without port, scheme and wildcard"
    )]
    Name {
        /// As it was given.
        name: String,
    },
    /// A certificate cannot be made from what is there.
    #[error("{}: no certificate can be made from what is in this folder ({problem}). \
         Remove the folder to make a new authority", folder.display())]
    Certificate {
        /// Where.
        folder: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// The authority and the certificate that it gave this server.
#[derive(Clone, Debug)]
pub struct Authority {
    folder: PathBuf,
    config: Arc<ServerConfig>,
}

impl Authority {
    /// The authority in `folder`, made if there is none, with a certificate for fal's names, this machine's and `names`.
    ///
    /// Whoever trusts the authority trusts it for these names alone. Hence a name that is new to it needs a new authority,
    /// which clients must be told to trust again; a warning says so.
    pub fn open(folder: &Path, names: &[String]) -> Result<Self, Error> {
        Self::open_at(folder, names, SystemTime::now())
    }

    /// [`Authority::open`] at another time than the present.
    pub fn open_at(folder: &Path, names: &[String], now: SystemTime) -> Result<Self, Error> {
        let names = all_names(names)?;
        let folder = Folder { path: folder, names: &names, now };
        let _lock = folder.lock()?;
        let config = match folder.kept()? {
            Some(config) => config,
            None => folder.renewed()?,
        };
        Ok(Self { folder: folder.path.into(), config })
    }

    /// TLS with the server's certificate, for HTTP/1.1.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// The authority's certificate, for clients that add it to those they know (`NODE_EXTRA_CA_CERTS`).
    pub fn ca_path(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The authority's certificate and the public ones, for clients that take a file in place of those they know
    /// (`SSL_CERT_FILE`).
    pub fn bundle_path(&self) -> PathBuf {
        self.folder.join("bundle.pem")
    }
}

/// Every name of the certificate, each once.
fn all_names(more: &[String]) -> Result<Vec<ServerName<'static>>, Error> {
    let given = FAL_NAMES.iter().chain(LOCAL_NAMES).copied().chain(more.iter().map(String::as_str));
    let mut names = Vec::new();
    for name in given {
        let plain = name.trim().trim_end_matches('.').to_ascii_lowercase();
        let parsed = ServerName::try_from(plain).map_err(|_| Error::Name { name: name.into() })?;
        if !names.contains(&parsed) {
            names.push(parsed);
        }
    }
    Ok(names)
}

/// Where the authority is kept, and what is wanted of it.
struct Folder<'a> {
    path: &'a Path,
    names: &'a [ServerName<'static>],
    now: SystemTime,
}

impl Folder<'_> {
    /// Keeps other processes out, so that no two make halves of an authority each.
    fn lock(&self) -> Result<File, Error> {
        fs::create_dir_all(self.path).map_err(|source| self.failed("", "make", source))?;
        let lock =
            File::create(self.path.join(".lock")).and_then(|file| file.lock().map(|()| file));
        lock.map_err(|source| self.failed(".lock", "lock", source))
    }

    /// TLS with what is in the folder; `None` if a part is missing or no longer good.
    fn kept(&self) -> Result<Option<Arc<ServerConfig>>, Error> {
        let Some(ca) = self.read_pair("ca")? else { return Ok(None) };
        self.write_bundle(&ca)?; // the public roots come with the binary, so another binary may have others
        let Some(server) = self.read_pair("server")? else { return Ok(None) };
        let exact = server.certificate.lines().next() == Some(&certificate::title(self.names));
        Ok(self.trusted(&ca, &server, self.now + RENEW).ok().filter(|_| exact))
    }

    /// TLS with a new certificate, of the authority in the folder if clients take it from that, else of a new one.
    fn renewed(&self) -> Result<Arc<ServerConfig>, Error> {
        if let Some(ca) = self.read_pair("ca")? {
            let server =
                certificate::issue(&ca, self.names, self.now).map_err(|e| self.problem(e))?;
            match self.trusted(&ca, &server, self.now) {
                Ok(config) => return self.write_pair("server", &server).map(|()| config),
                Err(problem) => tracing::warn!(
                    folder = %self.path.display(), %problem,
                    "the certificate authority cannot answer for every name and is made anew; \
                     programs that trust it must be given the new ca.pem or bundle.pem"
                ),
            }
        }
        let ca = certificate::authority(self.names, self.now).map_err(|e| self.problem(e))?;
        let server = certificate::issue(&ca, self.names, self.now).map_err(|e| self.problem(e))?;
        let config = self.trusted(&ca, &server, self.now).map_err(|e| self.problem(e))?;
        self.write_pair("ca", &ca)?;
        self.write_bundle(&ca)?;
        self.write_pair("server", &server)?;
        Ok(config)
    }

    /// TLS with `server`, if a client that trusts `ca` alone takes it for every name at `time`.
    fn trusted(
        &self,
        ca: &Pair,
        server: &Pair,
        time: SystemTime,
    ) -> Result<Arc<ServerConfig>, Box<dyn std::error::Error>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let leaf = CertificateDer::from_pem_slice(server.certificate.as_bytes())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.certificate.as_bytes())?)?;
        let client = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()?;
        let time = UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH)?);
        for name in self.names {
            client.verify_server_cert(&leaf, &[], name, &[], time)?;
        }
        Ok(Arc::new(tls(provider, leaf, &server.key)?))
    }

    fn read_pair(&self, name: &str) -> Result<Option<Pair>, Error> {
        let certificate = self.read(&format!("{name}.pem"))?;
        let key = self.read(&format!("{name}-key.pem"))?;
        Ok(certificate.zip(key).map(|(certificate, key)| Pair { certificate, key }))
    }

    /// The key first; a half that a crash leaves behind fits nothing, and is made anew.
    fn write_pair(&self, name: &str, pair: &Pair) -> Result<(), Error> {
        self.write(&format!("{name}-key.pem"), &pair.key, Readers::Owner)?;
        self.write(&format!("{name}.pem"), &pair.certificate, Readers::All)
    }

    fn write_bundle(&self, ca: &Pair) -> Result<(), Error> {
        let bundle = certificate::bundle(ca);
        if self.read("bundle.pem")?.as_ref() == Some(&bundle) {
            Ok(())
        } else {
            self.write("bundle.pem", &bundle, Readers::All)
        }
    }

    fn read(&self, name: &str) -> Result<Option<String>, Error> {
        match fs::read_to_string(self.path.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed(name, "read", source)),
        }
    }

    /// In whole or not at all.
    fn write(&self, name: &str, text: &str, readers: Readers) -> Result<(), Error> {
        let written = readers.file_in(self.path).and_then(|mut part| {
            part.write_all(text.as_bytes())?;
            part.as_file().sync_all()?;
            part.persist(self.path.join(name)).map(drop).map_err(|e| e.error)
        });
        written.map_err(|source| self.failed(name, "write", source))
    }

    fn failed(&self, name: &str, action: &'static str, source: io::Error) -> Error {
        Error::File { file: self.path.join(name), action, source }
    }

    fn problem(&self, problem: impl std::fmt::Display) -> Error {
        Error::Certificate { folder: self.path.into(), problem: problem.to_string() }
    }
}

/// HTTP/1.1 alone: fal's clients need no more, and WebSockets are opened there.
fn tls(
    provider: Arc<CryptoProvider>,
    leaf: CertificateDer<'static>,
    key: &str,
) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(vec![leaf], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A ticket comes right behind the handshake. Where one thread reads and another writes, as in fal's WebSockets in Python, OpenSSL
    // takes it as the reader's while the writer sends the first request, and older Pythons (seen with 3.11) keep them apart by nothing:
    // now and then the request was never sent. All that a ticket saves is a handshake.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Who may read a file.
#[derive(Clone, Copy)]
enum Readers {
    /// The user that the server runs as: a key.
    Owner,
    /// Everybody: what programs are given to trust.
    All,
}

impl Readers {
    #[cfg(unix)]
    fn file_in(self, folder: &Path) -> io::Result<tempfile::NamedTempFile> {
        use std::os::unix::fs::PermissionsExt;
        let mode = match self {
            Self::Owner => 0o600,
            Self::All => 0o644,
        };
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(mode)).tempfile_in(folder)
    }

    /// Elsewhere the folder decides, as Windows' access lists are inherited.
    #[cfg(not(unix))]
    fn file_in(self, folder: &Path) -> io::Result<tempfile::NamedTempFile> {
        tempfile::NamedTempFile::new_in(folder)
    }
}
