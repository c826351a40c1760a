//! The connections of a listener, as the gRPC server takes them.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use aquifer_storage::seam::{
    Seams,
    net::{Listener, Stream},
};
use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Nothing is accepted for this long after an attempt failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What `listener` accepts, for ever: out of descriptors, it waits until some are free again.
pub(super) fn connections(
    listener: Listener,
    seams: Seams,
) -> impl stream::Stream<Item = io::Result<Incoming>> {
    let local = listener.local_addr().ok();
    stream::unfold((listener, seams), move |(listener, seams)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    return Some((Ok(Incoming { stream, peer, local }), (listener, seams)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to metadata");
                    seams.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// A connection and its ends.
pub(super) struct Incoming {
    stream: Stream,
    peer: SocketAddr,
    local: Option<SocketAddr>,
}

impl Connected for Incoming {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.local, remote_addr: Some(self.peer) }
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
