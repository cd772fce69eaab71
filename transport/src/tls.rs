//! Who may connect: TLS 1.3 with certificates on both sides, under the cluster's own authority.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use towline_protocol::id::NodeId;

use crate::error::Refusal;
use crate::identity::PeerIdentity;

/// The protocol both sides must name; raised with every incompatible change of the wire.
const ALPN: &[u8] = b"towline/1";
/// The most certificates read from one file.
const CERTIFICATES_MAX: usize = 16;

/// What a verifier thought of the peer's certificate; set once per handshake.
pub(crate) type Verdict = Arc<OnceLock<Result<PeerIdentity, Refusal>>>;

/// A node's certificate and key, and the authority that it and its peers must come from.
#[derive(Clone)]
pub struct Credentials {
    identity: PeerIdentity,
    provider: Arc<CryptoProvider>,
    own: Arc<SingleCertAndKey>,
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
}

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file is not PEM of the right kind.
    #[error("the {what} cannot be read: {reason}")]
    Unreadable {
        /// Which of them.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate names no node.
    #[error("the node's certificate: {0}")]
    NoIdentity(Refusal),
    /// The key is not the certificate's, or is of a kind that TLS does not take.
    #[error("the node's certificate and key do not go together: {0}")]
    Mismatch(String),
}

impl Credentials {
    /// Reads the cluster's authority, the node's certificate and the node's key, each as PEM.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn from_pem(
        authority: &[u8],
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Self, CredentialsError> {
        let mut roots = RootCertStore::empty();
        for root in certificates("authority", authority)? {
            roots.add(root).map_err(|error| unreadable("authority", error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("certificate", certificate)?;
        let identity = identity_of(&chain[0]).map_err(CredentialsError::NoIdentity)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unreadable("key", error))?;
        let provider = Arc::new(provider());
        let own = CertifiedKey::from_der(chain, key, &provider)
            .map_err(|error| CredentialsError::Mismatch(error.to_string()))?;
        let servers =
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
        Ok(Self {
            identity,
            provider,
            own: Arc::new(SingleCertAndKey::from(own)),
            servers: servers.map_err(|error| unreadable("authority", error))?,
            clients: clients.map_err(|error| unreadable("authority", error))?,
        })
    }

    /// Who this node is.
    #[must_use]
    pub const fn identity(&self) -> PeerIdentity {
        self.identity
    }

    fn verifier(&self, expected: Option<NodeId>, verdict: &Verdict) -> Arc<PeerVerifier> {
        Arc::new(PeerVerifier {
            own: self.identity,
            expected,
            servers: self.servers.clone(),
            clients: self.clients.clone(),
            verdict: verdict.clone(),
        })
    }

    /// The TLS side of one dial.
    pub(crate) fn dialling(&self, expected: NodeId, verdict: &Verdict) -> rustls::ClientConfig {
        let builder = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider's suites are those of TLS 1.3");
        // Not weaker than the built-in verifier: it asks that one first.
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(Some(expected), verdict))
            .with_client_cert_resolver(self.own.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would skip the check of the certificate.
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config
    }

    /// The TLS side of one accepted handshake.
    pub(crate) fn accepting(&self, verdict: &Verdict) -> rustls::ServerConfig {
        let builder = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider's suites are those of TLS 1.3");
        let mut config = builder
            .with_client_cert_verifier(self.verifier(None, verdict))
            .with_cert_resolver(self.own.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.identity)
    }
}

/// AES-128 first: the fastest where the processor helps, and no weaker link than P-256 beside it.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    }
}

fn unreadable(what: &'static str, reason: impl ToString) -> CredentialsError {
    CredentialsError::Unreadable { what, reason: reason.to_string() }
}

fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem).take(CERTIFICATES_MAX).collect();
    let read = read.map_err(|error| unreadable(what, error))?;
    if read.is_empty() {
        return Err(unreadable(what, "no certificate in it"));
    }
    Ok(read)
}

/// The one node that a certificate names. Two names would let one key be two voters.
fn identity_of(certificate: &CertificateDer<'_>) -> Result<PeerIdentity, Refusal> {
    let parsed = webpki::EndEntityCert::try_from(certificate)
        .map_err(|error| Refusal::Unacceptable(error.to_string()))?;
    let mut names = parsed.valid_dns_names();
    match (names.next(), names.next()) {
        (Some(name), None) => PeerIdentity::from_dns_name(name).ok_or(Refusal::NoIdentity),
        _ => Err(Refusal::NoIdentity),
    }
}

/// Asks TLS's own verifier first, then whether this cluster knows the owner.
#[derive(Debug)]
struct PeerVerifier {
    own: PeerIdentity,
    expected: Option<NodeId>,
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
    verdict: Verdict,
}

impl PeerVerifier {
    fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        chain: Result<(), rustls::Error>,
    ) -> Result<(), rustls::Error> {
        use rustls::CertificateError as E;
        let identity = match &chain {
            // A wrong name is told apart below, by whose it is.
            Ok(())
            | Err(rustls::Error::InvalidCertificate(
                E::NotValidForName | E::NotValidForNameContext { .. },
            )) => identity_of(certificate),
            Err(error) => Err(Refusal::from_tls(error)),
        };
        let verdict = identity.and_then(|found| authorise(self.own, self.expected, found));
        let accepted = verdict.is_ok();
        // A second certificate in one handshake is TLS's to refuse; the first verdict stands.
        let _ = self.verdict.set(verdict);
        match chain {
            // An authority of the same name with another key; the peer should hear the same as of
            // one with another name.
            Err(rustls::Error::InvalidCertificate(E::BadSignature)) => {
                return Err(E::UnknownIssuer.into());
            }
            chain => chain?,
        }
        if accepted { Ok(()) } else { Err(E::ApplicationVerificationFailure.into()) }
    }
}

/// A valid certificate alone grants nothing: it must be of this cluster and of the expected node.
fn authorise(
    own: PeerIdentity,
    expected: Option<NodeId>,
    found: PeerIdentity,
) -> Result<PeerIdentity, Refusal> {
    if found.cluster != own.cluster {
        return Err(Refusal::OtherCluster { found: found.cluster, own: own.cluster });
    }
    match expected {
        Some(expected) if expected != found.node => {
            Err(Refusal::OtherNode { found: found.node, expected })
        }
        _ => Ok(found),
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = self.servers.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        self.judge(end_entity, chain.map(drop))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.servers.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.servers.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.servers.supported_verify_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: a client with a foreign certificate then shows it and is told why it is refused.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain = self.clients.verify_client_cert(end_entity, intermediates, now);
        self.judge(end_entity, chain.map(drop))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towline_protocol::id::ClusterId;

    #[test]
    fn a_valid_certificate_alone_grants_nothing() {
        let identity = |node: &str, cluster| PeerIdentity {
            node: node.parse().unwrap(),
            cluster: ClusterId(cluster),
        };
        let own = identity("a", 1);
        let b = identity("b", 1);
        assert_eq!(authorise(own, None, b), Ok(b));
        assert_eq!(authorise(own, Some(b.node), b), Ok(b));
        assert!(matches!(
            authorise(own, None, identity("b", 2)),
            Err(Refusal::OtherCluster { .. })
        ));
        assert!(matches!(authorise(own, Some(own.node), b), Err(Refusal::OtherNode { .. })));
    }
}
