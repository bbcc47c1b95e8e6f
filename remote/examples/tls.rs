//! Channels through TLS, with rustls: both sides show a certificate that the other one knows.
//!
//! ```text
//! cargo run -p ipc-remote --example tls
//! ```

use std::error::Error;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use ipc::{Link, Receiver, Sender, TcpLink, TcpOptions};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs over any link.
fn shout(jobs: Receiver<String, impl Link>, results: Sender<String, impl Link>) -> ipc::Result<()> {
    for job in jobs.iter() {
        results.send(job?.to_uppercase())?;
        results.flush()?;
    }
    results.close()
}

/// A certificate for one machine, and its key. A real one comes from an authority of one's own.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn identity(name: &str) -> Result<Identity> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()])?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der())?;
    Ok(Identity { certificate: cert.der().clone(), key })
}

fn only(certificate: &CertificateDer<'static>) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    Ok(Arc::new(roots))
}

fn main() -> Result<()> {
    let (master, worker) = (identity("master")?, identity("worker")?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let known = worker.certificate.clone();
    let master_is = master.certificate.clone();
    let child = ipc::fork((), move |()| work(address, worker, &master_is).map_err(|error| error.to_string()))?;

    let verifier = WebPkiClientVerifier::builder(only(&known)?).build()?;
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![master.certificate], master.key)?;
    let (socket, _) = listener.accept()?;
    let tls = StreamOwned::new(ServerConnection::new(Arc::new(config))?, socket.try_clone()?);
    let link: TcpLink = TcpOptions::new().greet_over(tls, socket, |tls| {
        tls.conn.send_close_notify();
        tls.flush()
    })?;

    let (jobs, results) = (Sender::new(link.writer), Receiver::<String, _>::new(link.reader));
    let mut longest = 0;
    for number in 0..1000 {
        let len = if number == 500 { 1_000_000 } else { number };
        jobs.send("x".repeat(len))?;
        jobs.flush()?;
        let answer = results.recv()?.ok_or("the worker has left")?;
        assert_eq!(answer, "X".repeat(len));
        longest = longest.max(answer.len());
    }
    jobs.close()?;
    assert_eq!(results.recv()?, None); // EOF, and TLS has said so
    assert!(child.wait()?.success());
    println!("1000 answers, the longest of {longest} bytes");
    Ok(())
}

/// The other machine.
fn work(address: SocketAddr, own: Identity, master: &CertificateDer<'static>) -> Result<()> {
    let config = ClientConfig::builder()
        .with_root_certificates(only(master)?)
        .with_client_auth_cert(vec![own.certificate], own.key)?;
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("master")?)?;
    let socket = TcpStream::connect(address)?;
    let tls = StreamOwned::new(connection, socket.try_clone()?);
    let link = TcpOptions::new().greet_over(tls, socket, |tls| {
        tls.conn.send_close_notify();
        tls.flush()
    })?;
    Ok(shout(Receiver::new(link.reader), Sender::new(link.writer))?)
}
