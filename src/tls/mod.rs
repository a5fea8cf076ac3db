//! TLS: the certificate in force, and the handshakes made with it.
//!
//! A connection keeps the certificate that it was made with. Handshakes that begin after a reload see the new one.

mod certificate;
mod current;
mod handshake;

pub use certificate::Files;
pub use current::{Source, Tls, TlsConfig, TlsFigures};
pub use handshake::HandshakeError;
