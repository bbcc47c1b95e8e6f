//! A link through TLS, with rustls: both sides show a certificate that the other one knows.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use ipc::{TcpLink, TcpOptions};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig, ServerConnection, SideData,
    StreamOwned,
};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A certificate for one machine, and its key. A real one comes from an authority of one's own.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

pub fn identity(name: &str) -> Result<Identity> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()])?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der())?;
    Ok(Identity { certificate: cert.der().clone(), key })
}

/// Greets the worker at the other end of the socket, which has to have the certificate `known`.
pub fn accept(
    options: &TcpOptions,
    socket: TcpStream,
    own: Identity,
    known: &CertificateDer<'static>,
) -> Result<TcpLink> {
    let verifier = WebPkiClientVerifier::builder(only(known)?).build()?;
    let config =
        ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(vec![own.certificate], own.key)?;
    let connection = ServerConnection::new(Arc::new(config))?;
    greet(options, StreamOwned::new(connection, socket.try_clone()?), socket)
}

/// Connects to the master at the address, which has to have the certificate `known` for the name "master".
pub fn connect(
    options: &TcpOptions,
    address: SocketAddr,
    own: Identity,
    known: &CertificateDer<'static>,
) -> Result<TcpLink> {
    let config = ClientConfig::builder()
        .with_root_certificates(only(known)?)
        .with_client_auth_cert(vec![own.certificate], own.key)?;
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("master")?)?;
    let socket = TcpStream::connect(address)?;
    greet(options, StreamOwned::new(connection, socket.try_clone()?), socket)
}

/// The handshake takes place with the hello, within the deadline of the options.
fn greet<C, D>(options: &TcpOptions, tls: StreamOwned<C, TcpStream>, socket: TcpStream) -> Result<TcpLink>
where
    C: DerefMut + Deref<Target = ConnectionCommon<D>> + Send + 'static,
    D: SideData + 'static,
    StreamOwned<C, TcpStream>: Read + Write,
{
    let link = options.greet_over(tls, socket, |tls| {
        tls.conn.send_close_notify();
        tls.flush()
    })?;
    Ok(link)
}

fn only(certificate: &CertificateDer<'static>) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    Ok(Arc::new(roots))
}
