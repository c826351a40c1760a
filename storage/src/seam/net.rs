//! The seam to the network: byte streams between named addresses.
//!
//! TCP is named in the types, not hidden behind a trait object: a client's bytes take no detour,
//! and vectored writes stay vectored.

use std::{
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::BoxFuture;

/// Connects and listens.
pub trait Net: Send + Sync + 'static {
    /// Connects to `address`, a `host:port`. Takes as long as the network likes: callers bound it.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>>;

    /// Listens on `address`; port 0 is any free one.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Listener>>;
}

/// Any byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// Hands out the connections of a listener that is not TCP.
pub trait Accept: Send + Sync + 'static {
    /// The next connection, and the address of its other end.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>>;

    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Where connections arrive.
pub enum Listener {
    /// The operating system's.
    Tcp(TcpListener),
    /// Anything else: the simulator's.
    Boxed(Box<dyn Accept>),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.local_addr().ok()).finish()
    }
}

impl Listener {
    /// The next connection, and the address of its other end. TCP connections do not delay small
    /// writes.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::tcp(stream), peer))
            }
            Self::Boxed(listener) => listener.accept().await,
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Boxed(listener) => listener.local_addr(),
        }
    }
}

/// A connection.
pub enum Stream {
    /// The operating system's.
    Tcp(TcpStream),
    /// Anything else: the simulator's.
    Boxed(Box<dyn Duplex>),
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream) => stream.fmt(f),
            Self::Boxed(_) => f.write_str("Stream"),
        }
    }
}

impl Stream {
    /// A TCP connection that does not delay small writes.
    pub fn tcp(stream: TcpStream) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY"); // Slower, not wrong.
        }
        Self::Tcp(stream)
    }

    /// Takes the two directions apart.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Boxed(stream) => {
                let (read, write) = tokio::io::split(stream);
                (ReadHalf::Boxed(read), WriteHalf::Boxed(write))
            }
        }
    }
}

/// What arrives on a connection.
pub enum ReadHalf {
    /// The operating system's.
    Tcp(OwnedReadHalf),
    /// Anything else: the simulator's.
    Boxed(tokio::io::ReadHalf<Box<dyn Duplex>>),
}

/// What is sent on a connection.
pub enum WriteHalf {
    /// The operating system's.
    Tcp(OwnedWriteHalf),
    /// Anything else: the simulator's.
    Boxed(tokio::io::WriteHalf<Box<dyn Duplex>>),
}

macro_rules! delegate_read {
    ($name:ident) => {
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
                    Self::Boxed(stream) => Pin::new(stream).poll_read(context, buffer),
                }
            }
        }
    };
}

macro_rules! delegate_write {
    ($name:ident) => {
        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
                    Self::Boxed(stream) => Pin::new(stream).poll_write(context, bytes),
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
                    Self::Boxed(stream) => Pin::new(stream).poll_write_vectored(context, slices),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    Self::Tcp(stream) => stream.is_write_vectored(),
                    Self::Boxed(stream) => stream.is_write_vectored(),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
                    Self::Boxed(stream) => Pin::new(stream).poll_flush(context),
                }
            }

            fn poll_shutdown(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
                    Self::Boxed(stream) => Pin::new(stream).poll_shutdown(context),
                }
            }
        }
    };
}

delegate_read!(Stream);
delegate_read!(ReadHalf);
delegate_write!(Stream);
delegate_write!(WriteHalf);

/// The operating system's TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpNet;

impl Net for TcpNet {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let address = address.to_owned();
        Box::pin(async move { TcpStream::connect(address).await.map(Stream::tcp) })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Listener>> {
        Box::pin(async move { TcpListener::bind(address).await.map(Listener::Tcp) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn tcp_streams_write_vectored_without_delay_and_tell_their_peer() {
        let listener = TcpNet.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (accepted, connected) =
            tokio::join!(listener.accept(), async { TcpNet.connect(&address).await.unwrap() });
        let (mut accepted, peer) = accepted.unwrap();
        assert!(matches!(&accepted, Stream::Tcp(stream) if stream.nodelay().unwrap()));
        assert!(matches!(&connected, Stream::Tcp(stream)
            if stream.nodelay().unwrap() && stream.local_addr().unwrap() == peer));
        let (mut read, mut write) = connected.into_split();
        assert!(write.is_write_vectored(), "one system call for an answer of many pieces");
        let slices = [IoSlice::new(b"pi"), IoSlice::new(b"ece")];
        assert_eq!(write.write_vectored(&slices).await.unwrap(), 5);
        let mut five = [0; 5];
        accepted.read_exact(&mut five).await.unwrap();
        assert_eq!(&five, b"piece");
        accepted.write_all(b"ok").await.unwrap();
        drop(accepted);
        let mut rest = Vec::new();
        read.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"ok");
    }

    #[tokio::test]
    async fn a_boxed_stream_is_a_stream() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut read, mut write) = Stream::Boxed(Box::new(near)).into_split();
        write.write_all(b"there").await.unwrap();
        let mut five = [0; 5];
        far.read_exact(&mut five).await.unwrap();
        assert_eq!(&five, b"there");
        far.write_all(b"back").await.unwrap();
        drop(far);
        let mut rest = Vec::new();
        read.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"back");
    }
}
