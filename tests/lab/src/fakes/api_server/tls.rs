//! The server's TLS: it shows a certificate and asks each client for one of the same authority.

use std::{fmt::Display, io, net::SocketAddr, path::Path, sync::Arc};

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
    server::TlsStream,
};

/// Files of a server, in PEM format.
#[derive(Debug)]
pub struct Identity<'a> {
    pub certificate: &'a Path,
    pub key: &'a Path,
    /// The authority of the clients' certificates.
    pub authority: &'a Path,
}

impl Identity<'_> {
    /// # Errors
    /// If a file cannot be read, or has no usable certificate or key.
    pub(super) fn acceptor(&self) -> io::Result<TlsAcceptor> {
        let provider = Arc::new(ring::default_provider());
        let mut authorities = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.authority).map_err(invalid)?;
        authorities.add(authority).map_err(invalid)?;
        let clients = WebPkiClientVerifier::builder_with_provider(
            Arc::new(authorities),
            Arc::clone(&provider),
        );
        let certificate = CertificateDer::from_pem_file(self.certificate).map_err(invalid)?;
        let key = PrivateKeyDer::from_pem_file(self.key).map_err(invalid)?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(invalid)?
            .with_client_cert_verifier(clients.build().map_err(invalid)?)
            .with_single_cert(vec![certificate], key)
            .map_err(invalid)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn invalid(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// Accepts connections whose TLS handshake succeeds.
pub(super) struct Secured<Refused> {
    pub listener: TcpListener,
    pub acceptor: TlsAcceptor,
    /// Called when a handshake fails.
    pub refused: Refused,
}

impl<Refused: Fn() + Send + 'static> Listener for Secured<Refused> {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            // Fails if either side does not trust the other one.
            match self.acceptor.accept(stream).await {
                Ok(stream) => return (stream, address),
                Err(_) => (self.refused)(),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
