//! A network between named nodes whose connections can be cut: at once, in both directions, as a
//! process that dies or a link that is lost would.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use aquifer_storage::seam::{
    BoxFuture, Seams,
    net::{Accept, Listener, Net, Stream},
    system,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Whoever is no node: the clients.
pub const OUTSIDE: u64 = 0;

#[derive(Clone, Default)]
struct Links {
    /// A node's connections do not outlive its process.
    lives: BTreeMap<u64, u64>,
    cut: BTreeSet<(u64, u64)>,
    addresses: BTreeMap<SocketAddr, u64>,
}

impl Links {
    fn life(&self, id: u64) -> u64 {
        self.lives.get(&id).copied().unwrap_or_default()
    }

    fn is_cut(&self, a: u64, b: u64) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }
}

/// The network.
#[derive(Clone, Default)]
pub struct World {
    links: Arc<watch::Sender<Links>>,
    ports: Arc<Mutex<BTreeMap<u16, u64>>>,
}

impl World {
    /// The seams of node `id`.
    pub fn seams(&self, id: u64) -> Seams {
        Seams { net: Arc::new(Place { world: self.clone(), id }), ..system::seams() }
    }

    /// Ends every connection of node `id`.
    pub fn kill(&self, id: u64) {
        self.links.send_modify(|links| *links.lives.entry(id).or_default() += 1);
    }

    /// Cuts nodes `a` and `b` apart.
    pub fn cut(&self, a: u64, b: u64) {
        self.links.send_modify(|links| {
            links.cut.insert((a.min(b), a.max(b)));
        });
    }

    /// Mends every cut.
    pub fn heal(&self) {
        self.links.send_modify(|links| links.cut.clear());
    }

    fn connection(&self, stream: TcpStream, (a, b): (u64, u64)) -> Stream {
        let mut links = self.links.subscribe();
        let lives = {
            let links = links.borrow_and_update();
            (links.life(a), links.life(b))
        };
        let broken = async move {
            let broken =
                |links: &Links| (links.life(a), links.life(b)) != lives || links.is_cut(a, b);
            let _ = links.wait_for(broken).await;
        };
        stream.set_nodelay(true).unwrap();
        Stream::Boxed(Box::new(Link { stream, broken: Some(Box::pin(broken)) }))
    }
}

struct Place {
    world: World,
    id: u64,
}

impl Net for Place {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let (world, id, address) = (self.world.clone(), self.id, address.to_owned());
        Box::pin(async move {
            let stream = TcpStream::connect(&address).await?;
            let to = world.links.borrow().addresses.get(&stream.peer_addr()?).copied();
            let to = to.ok_or(io::ErrorKind::ConnectionRefused)?;
            if world.links.borrow().is_cut(id, to) {
                return Err(io::ErrorKind::HostUnreachable.into());
            }
            let from = stream.local_addr()?.port();
            world.ports.lock().unwrap().insert(from, id);
            Ok(world.connection(stream, (id, to)))
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Listener>> {
        let (world, id) = (self.world.clone(), self.id);
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            world.links.send_modify(|links| {
                links.addresses.insert(address, id);
            });
            Ok(Listener::Boxed(Box::new(Door { world, id, listener })))
        })
    }
}

struct Door {
    world: World,
    id: u64,
    listener: TcpListener,
}

impl Accept for Door {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            let from = self.world.ports.lock().unwrap().get(&peer.port()).copied();
            let stream = self.world.connection(stream, (from.unwrap_or(OUTSIDE), self.id));
            Ok((stream, peer))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct Link {
    stream: TcpStream,
    /// `None` once it is.
    broken: Option<BoxFuture<'static, ()>>,
}

impl Link {
    fn look(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(broken) = &mut self.broken
            && broken.as_mut().poll(context).is_ready()
        {
            self.broken = None;
        }
        match self.broken {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.look(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.look(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
