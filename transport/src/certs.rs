//! A cluster's own certificate authority, and the certificates it issues to nodes.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use towline_protocol::id::{ClusterId, NodeId};

use crate::identity::{InvalidName, PeerIdentity};

/// Ten years: replacing an authority touches every node, so it should outlive the hardware.
const AUTHORITY_LIFETIME: Duration = Duration::days(3650);
/// Two years: long enough not to surprise anybody who set a cluster up by hand, short enough that
/// issuing anew is practised before the authority itself ends.
const NODE_LIFETIME: Duration = Duration::days(730);
/// Certificates are valid from a little earlier, because hosts' clocks differ.
const CLOCK_SLACK: Duration = Duration::hours(1);

/// Issues the certificates of one cluster's nodes.
pub struct CertificateAuthority {
    cluster: ClusterId,
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
}

/// A certificate with its key, both as PEM.
#[derive(Clone)]
pub struct IssuedCertificate {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key, PKCS #8. Keep it readable by the node alone (mode 0600).
    pub key_pem: String,
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The node's name cannot stand in a certificate.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Key or certificate could not be made or read.
    #[error("cannot make a certificate: {0}")]
    Crypto(#[from] rcgen::Error),
    /// The authority that was loaded is not this cluster's, or the key is not its key.
    #[error("this is not the authority of cluster {0}, or the key is not its key")]
    OtherAuthority(ClusterId),
}

impl CertificateAuthority {
    /// A new authority with a new key (ECDSA P-256), valid for ten years.
    ///
    /// # Errors
    /// [`CertificateError::Crypto`] if the system has no randomness.
    pub fn new(cluster: &ClusterId, cluster_name: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let params = authority_params(*cluster, cluster_name);
        let cert_pem = params.self_signed(&key)?.pem();
        Ok(Self { cluster: *cluster, issuer: Issuer::new(params, key), cert_pem })
    }

    /// The authority that [`Self::new`] made earlier.
    ///
    /// # Errors
    /// [`CertificateError::OtherAuthority`] if the PEM is not of this cluster's authority.
    pub fn from_pem(
        cluster: &ClusterId,
        cluster_name: &str,
        cert_pem: &str,
        key_pem: &str,
    ) -> Result<Self, CertificateError> {
        let key = KeyPair::from_pem(key_pem)?;
        let params = authority_params(*cluster, cluster_name);
        // Made again from its parts, it must be the same authority in name and key.
        let again = params.self_signed(&key)?;
        let loaded = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|_| CertificateError::OtherAuthority(*cluster))?;
        match (
            webpki::anchor_from_trusted_cert(&loaded),
            webpki::anchor_from_trusted_cert(again.der()),
        ) {
            (Ok(loaded), Ok(again))
                if loaded.subject == again.subject
                    && loaded.subject_public_key_info == again.subject_public_key_info => {}
            _ => return Err(CertificateError::OtherAuthority(*cluster)),
        }
        Ok(Self {
            cluster: *cluster,
            issuer: Issuer::new(params, key),
            cert_pem: cert_pem.to_owned(),
        })
    }

    /// The authority's certificate: every node of the cluster needs it.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The authority's private key: no node needs it; keep it away from them.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for `node` with a new key, valid for two years.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn issue(&self, node: NodeId) -> Result<IssuedCertificate, CertificateError> {
        let now = OffsetDateTime::now_utc();
        self.issue_with_validity(node, now - CLOCK_SLACK, now + NODE_LIFETIME)
    }

    /// A certificate for `node` with a new key, valid from `not_before` to `not_after`.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn issue_with_validity(
        &self,
        node: NodeId,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<IssuedCertificate, CertificateError> {
        let identity = PeerIdentity { node, cluster: self.cluster };
        let mut params = CertificateParams::new(vec![identity.dns_name()?])?;
        params.distinguished_name = named(node.as_str());
        params.not_before = not_before;
        params.not_after = not_after;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Both: a node dials and is dialled.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(IssuedCertificate { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn authority_params(cluster: ClusterId, cluster_name: &str) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("Towline {cluster_name} {cluster}"));
    params.not_before = now - CLOCK_SLACK;
    params.not_after = now + AUTHORITY_LIFETIME;
    // It signs nodes, never another authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CertificateAuthority({})", self.cluster)
    }
}

impl std::fmt::Debug for IssuedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IssuedCertificate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credentials;

    #[test]
    fn an_authority_that_was_kept_issues_on() {
        let cluster = ClusterId(7);
        let first = CertificateAuthority::new(&cluster, "east").unwrap();
        let key = first.key_pem();
        let again =
            CertificateAuthority::from_pem(&cluster, "east", first.cert_pem(), &key).unwrap();
        let issued = again.issue("a".parse().unwrap()).unwrap();
        let credentials = Credentials::from_pem(
            first.cert_pem().as_bytes(),
            issued.cert_pem.as_bytes(),
            issued.key_pem.as_bytes(),
        );
        assert_eq!(credentials.unwrap().identity().cluster, cluster);

        let other = CertificateAuthority::from_pem(&ClusterId(8), "east", first.cert_pem(), &key);
        assert!(matches!(other, Err(CertificateError::OtherAuthority(_))));
    }

    #[test]
    fn a_key_of_another_certificate_is_told() {
        let authority = CertificateAuthority::new(&ClusterId(7), "east").unwrap();
        let a = authority.issue("a".parse().unwrap()).unwrap();
        let b = authority.issue("b".parse().unwrap()).unwrap();
        let mixed = Credentials::from_pem(
            authority.cert_pem().as_bytes(),
            a.cert_pem.as_bytes(),
            b.key_pem.as_bytes(),
        );
        assert!(matches!(mixed, Err(crate::CredentialsError::Mismatch(_))));
    }
}
