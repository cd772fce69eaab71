//! Certificates as the product's authority issues them, but with keys whose signatures are all of
//! one length: packets then have the same sizes in every process.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SerialNumber, date_time_ymd,
};
use towline_protocol::id::{ClusterId, NodeId};
use towline_transport::{Credentials, PeerIdentity};

/// The credentials of `nodes`, in their order.
pub(crate) fn issue(cluster: ClusterId, nodes: &[NodeId]) -> Vec<Credentials> {
    let key = || KeyPair::generate_for(&PKCS_ED25519).expect("the system has randomness");
    let authority_key = key();
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "simulated");
    authority.serial_number = Some(SerialNumber::from(1_u64));
    authority.not_before = date_time_ymd(2020, 1, 1);
    authority.not_after = date_time_ymd(2120, 1, 1);
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = authority.self_signed(&authority_key).expect("its parameters are valid").pem();
    let issuer = Issuer::new(authority, authority_key);
    let issue = |(n, node): (usize, &NodeId)| {
        let name = PeerIdentity { node: *node, cluster }.dns_name().expect("names are plain");
        let mut params = CertificateParams::new(vec![name]).expect("a name of a host");
        params.serial_number = Some(SerialNumber::from(n as u64 + 2));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2120, 1, 1);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let own = key();
        let issued = params.signed_by(&own, &issuer).expect("its parameters are valid");
        let (cert, own) = (issued.pem(), own.serialize_pem());
        Credentials::from_pem(root.as_bytes(), cert.as_bytes(), own.as_bytes())
            .expect("they were made together")
    };
    nodes.iter().enumerate().map(issue).collect()
}
