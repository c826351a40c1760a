//! The simulated network: reliable streams between hosts, over links that delay, hold back and
//! break.
//!
//! A cut link loses nothing for ever: as with TCP, what was sent arrives once the link is whole,
//! unless an end gave up before. A process that is killed resets its connections; a machine that
//! loses power says nothing, and answers with resets once it is back.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use aquifer_storage::seam::{
    BoxFuture,
    net::{Accept, Listener, Net, Stream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{
    aim::{self, Aim, Moment},
    pause::{Gate, Pause},
    rng::SimRng,
    trace::Trace,
};

/// Unread bytes of one direction; a writer waits above it.
const WINDOW_BYTES: usize = 1 << 20;
/// How soon a lost first packet is sent again.
const CONNECT_RETRY: Duration = Duration::from_millis(1_000);

/// A host, by its address.
pub type Host = IpAddr;

/// The links between all hosts. Clones share it.
#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
    trace: Trace,
}

struct State {
    rng: SimRng,
    /// One-way links that carry nothing, with how many reasons there are.
    cut: BTreeMap<(Host, Host), u32>,
    /// Hosts without power.
    dark: BTreeSet<Host>,
    listeners: BTreeMap<SocketAddr, Arc<Mutex<Backlog>>>,
    pipes: BTreeMap<u64, Arc<Mutex<Pipe>>>,
    next_pipe: u64,
    next_port: u16,
    latency: Latency,
    aim: Aim,
}

/// How long a segment takes.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// At least.
    pub min: Duration,
    /// Usually at most.
    pub max: Duration,
    /// Of a thousand segments, so many take up to [`Self::slow_max`].
    pub slow_per_mille: u64,
    /// The longest.
    pub slow_max: Duration,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(1),
            max: Duration::from_millis(3),
            slow_per_mille: 5,
            slow_max: Duration::from_millis(60),
        }
    }
}

struct Backlog {
    alive: Arc<AtomicBool>,
    pause: Pause,
    arrived: VecDeque<(Stream, SocketAddr)>,
    waiting: Option<Waker>,
}

/// One direction of a connection.
struct Pipe {
    from: Host,
    to: Host,
    /// The processes at its ends.
    writer: Arc<AtomicBool>,
    reader: Arc<AtomicBool>,
    segments: VecDeque<(Instant, Segment)>,
    unread_bytes: usize,
    reading: Option<Waker>,
    writing: Option<Waker>,
    /// The reader closed, or one end was reset: nothing goes in any more.
    broken: bool,
}

enum Segment {
    Bytes(Vec<u8>, usize),
    End,
    Reset,
}

impl Pipe {
    fn wake(&mut self) {
        self.reading.take().into_iter().chain(self.writing.take()).for_each(Waker::wake);
    }
}

impl State {
    fn is_cut(&self, from: Host, to: Host) -> bool {
        self.cut.contains_key(&(from, to)) || self.dark.contains(&from) || self.dark.contains(&to)
    }

    fn draw_latency(&mut self) -> Duration {
        let Latency { min, max, slow_per_mille, slow_max } = self.latency;
        let max = if self.rng.below(1000) < slow_per_mille { slow_max } else { max };
        self.rng.between(min, max)
    }

    /// Whether what is next in `pipe` does not arrive now. What a machine had sent before it lost
    /// power is on its way all the same; that its connections are reset shows only once it is back.
    fn is_held(&self, pipe: &Pipe) -> bool {
        let from_the_dark = match pipe.segments.front() {
            Some((_, Segment::Reset)) | None => self.dark.contains(&pipe.from),
            Some(_) => false,
        };
        self.cut.contains_key(&(pipe.from, pipe.to))
            || self.dark.contains(&pipe.to)
            || from_the_dark
    }

    /// Puts `segment` behind what is on its way.
    fn send(&mut self, pipe: &mut Pipe, segment: Segment) {
        let due = Instant::now() + self.draw_latency();
        let due = pipe.segments.back().map_or(due, |(last, _)| due.max(*last));
        if let Segment::Bytes(bytes, _) = &segment {
            pipe.unread_bytes += bytes.len();
            if aim::is_node(pipe.from) && aim::is_agent(pipe.to) {
                self.aim.pass(Moment::Told(pipe.from));
            }
        }
        pipe.segments.push_back((due, segment));
        if let Some(reading) = pipe.reading.take() {
            reading.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

impl Network {
    /// A network without faults.
    pub fn new(rng: SimRng, trace: Trace, aim: Aim) -> Self {
        let state = State {
            rng,
            cut: BTreeMap::new(),
            dark: BTreeSet::new(),
            listeners: BTreeMap::new(),
            pipes: BTreeMap::new(),
            next_pipe: 0,
            next_port: 20_000,
            latency: Latency::default(),
            aim,
        };
        Self { state: Arc::new(Mutex::new(state)), trace }
    }

    /// The network as a process on `host` sees it, for as long as it is `alive`.
    pub fn of(&self, host: Host, alive: Arc<AtomicBool>, pause: Pause) -> Arc<dyn Net> {
        Arc::new(HostNet { network: self.clone(), near: End { host, alive, pause } })
    }

    /// Changes how long segments take that are sent from now on.
    pub fn set_latency(&self, latency: Latency) {
        lock(&self.state).latency = latency;
    }

    /// Resets every connection between the two. What `to` was sent is lost; what it sent still
    /// arrives before the reset: questions are heard, and their answers are not.
    pub fn lose_answers(&self, from: Host, to: Host) {
        let mut state = lock(&self.state);
        let pipes: Vec<_> = state.pipes.values().cloned().collect();
        for pipe in pipes {
            let mut pipe = lock(&pipe);
            let is_answer = (pipe.from, pipe.to) == (from, to);
            if !is_answer && (pipe.from, pipe.to) != (to, from) {
                continue;
            }
            if is_answer {
                pipe.segments.clear();
                pipe.unread_bytes = 0;
            }
            state.send(&mut pipe, Segment::Reset);
            pipe.wake();
        }
    }

    /// Stops carrying anything from one host to another.
    pub fn cut(&self, from: Host, to: Host) {
        *lock(&self.state).cut.entry((from, to)).or_default() += 1;
    }

    /// Takes back one [`Self::cut`]; once the last is taken back, what was held arrives.
    pub fn mend(&self, from: Host, to: Host) {
        let mut state = lock(&self.state);
        if let Some(reasons) = state.cut.get_mut(&(from, to)) {
            *reasons -= 1;
            if *reasons == 0 {
                state.cut.remove(&(from, to));
            }
        }
        state.release(|pipe| pipe.from == from && pipe.to == to);
    }

    /// Ends every connection of the dead process marked by `alive`: resets them, or, without
    /// power, says nothing.
    pub fn kill(&self, host: Host, alive: &Arc<AtomicBool>, with_power: bool) {
        let mut state = lock(&self.state);
        if !with_power {
            state.dark.insert(host);
        }
        state.listeners.retain(|_, backlog| !Arc::ptr_eq(&lock(backlog).alive, alive));
        let pipes: Vec<_> = state.pipes.values().cloned().collect();
        for pipe in pipes {
            let mut pipe = lock(&pipe);
            if Arc::ptr_eq(&pipe.writer, alive) {
                state.send(&mut pipe, Segment::Reset);
                pipe.wake();
            } else if Arc::ptr_eq(&pipe.reader, alive) {
                pipe.wake();
            }
        }
        state.prune();
    }

    /// Gives `host` power again: its old connections are reset.
    pub fn power(&self, host: Host) {
        let mut state = lock(&self.state);
        state.dark.remove(&host);
        state.release(|pipe| pipe.from == host || pipe.to == host);
    }
}

impl State {
    /// Lets what was held on mended links go on its way again.
    fn release(&mut self, is_mended: impl Fn(&Pipe) -> bool) {
        let pipes: Vec<_> = self.pipes.values().cloned().collect();
        for pipe in pipes {
            let mut pipe = lock(&pipe);
            if !is_mended(&pipe) || self.is_cut(pipe.from, pipe.to) {
                continue;
            }
            let due = Instant::now() + self.draw_latency();
            for (at, _) in &mut pipe.segments {
                *at = due.max(*at);
            }
            pipe.wake();
        }
    }

    /// Forgets connections both of whose ends are gone.
    fn prune(&mut self) {
        self.pipes.retain(|_, pipe| 1 < Arc::strong_count(pipe));
    }

    fn open_pipe(&mut self, from: &End, to: &End) -> Arc<Mutex<Pipe>> {
        let pipe = Arc::new(Mutex::new(Pipe {
            from: from.host,
            to: to.host,
            writer: from.alive.clone(),
            reader: to.alive.clone(),
            segments: VecDeque::new(),
            unread_bytes: 0,
            reading: None,
            writing: None,
            broken: false,
        }));
        self.pipes.insert(self.next_pipe, pipe.clone());
        self.next_pipe += 1;
        if self.next_pipe.is_multiple_of(64) {
            self.prune();
        }
        pipe
    }
}

/// A process at one end of a connection.
#[derive(Clone)]
struct End {
    host: Host,
    alive: Arc<AtomicBool>,
    pause: Pause,
}

struct HostNet {
    network: Network,
    near: End,
}

impl Net for HostNet {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let near = self.near.clone();
        let network = self.network.clone();
        let address = address.parse::<SocketAddr>();
        Box::pin(async move {
            let address = address.map_err(|_| io::ErrorKind::InvalidInput)?;
            network.connect(near, address).await
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Listener>> {
        let backlog = Arc::new(Mutex::new(Backlog {
            alive: self.near.alive.clone(),
            pause: self.near.pause.clone(),
            arrived: VecDeque::new(),
            waiting: None,
        }));
        lock(&self.network.state).listeners.insert(address, backlog.clone());
        let listener = SimListener { network: self.network.clone(), address, backlog };
        Box::pin(async move { Ok(Listener::Boxed(Box::new(listener))) })
    }
}

impl Network {
    async fn connect(&self, near: End, address: SocketAddr) -> io::Result<Stream> {
        let far = address.ip();
        loop {
            let (there, back, open) = {
                let mut state = lock(&self.state);
                let open = !state.is_cut(near.host, far) && !state.is_cut(far, near.host);
                (state.draw_latency(), state.draw_latency(), open)
            };
            if !open {
                sleep(CONNECT_RETRY).await;
                continue;
            }
            sleep(there).await;
            let arrived = self.arrive(&near, address);
            sleep(back).await;
            near.pause.passed().await;
            if !near.alive.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            return arrived;
        }
    }

    fn arrive(&self, near: &End, address: SocketAddr) -> io::Result<Stream> {
        let mut state = lock(&self.state);
        let backlog = state.listeners.get(&address).cloned();
        let Some(backlog) = backlog else {
            self.trace.note(|| format!("net {} refused by {address}", near.host));
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let mut backlog = lock(&backlog);
        let far =
            End { host: address.ip(), alive: backlog.alive.clone(), pause: backlog.pause.clone() };
        let (out, back) = (state.open_pipe(near, &far), state.open_pipe(&far, near));
        state.next_port = state.next_port.checked_add(1).unwrap_or(20_000);
        let peer = SocketAddr::new(near.host, state.next_port);
        self.trace.note(|| format!("net {peer} connects to {address}"));
        let ours = SimStream::new(self.clone(), near.clone(), back.clone(), out.clone());
        let theirs = SimStream::new(self.clone(), far, out, back);
        backlog.arrived.push_back((Stream::Boxed(Box::new(theirs)), peer));
        if let Some(waiting) = backlog.waiting.take() {
            waiting.wake();
        }
        Ok(Stream::Boxed(Box::new(ours)))
    }
}

struct SimListener {
    network: Network,
    address: SocketAddr,
    backlog: Arc<Mutex<Backlog>>,
}

impl Accept for SimListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        let pause = lock(&self.backlog).pause.clone();
        Box::pin(async move {
            let arrived = poll_fn(|context| {
                let mut backlog = lock(&self.backlog);
                match backlog.arrived.pop_front() {
                    Some(arrived) => Poll::Ready(Ok(arrived)),
                    None => {
                        backlog.waiting = Some(context.waker().clone());
                        Poll::Pending
                    }
                }
            });
            pause.passed().await;
            arrived.await
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut state = lock(&self.network.state);
        let ours = |found: &Arc<Mutex<Backlog>>| Arc::ptr_eq(found, &self.backlog);
        if state.listeners.get(&self.address).is_some_and(ours) {
            state.listeners.remove(&self.address);
        }
    }
}

/// One end of a connection.
struct SimStream {
    network: Network,
    alive: Arc<AtomicBool>,
    /// Readers and writers wait apart: each has the waker of its own.
    reads: Gate,
    writes: Gate,
    input: Arc<Mutex<Pipe>>,
    output: Arc<Mutex<Pipe>>,
    due: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl SimStream {
    fn new(network: Network, near: End, input: Arc<Mutex<Pipe>>, output: Arc<Mutex<Pipe>>) -> Self {
        let End { alive, pause, .. } = near;
        let (reads, writes) = (Gate::new(pause.clone()), Gate::new(pause));
        Self { network, alive, reads, writes, input, output, due: None, ended: false }
    }

    fn is_dead(&self) -> bool {
        !self.alive.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        if !self.ended && !self.is_dead() {
            let mut state = lock(&self.network.state);
            state.send(&mut lock(&self.output), Segment::End);
        }
        self.ended = true;
    }

    /// Resets the connection when the other end's process is gone and its machine is not.
    fn far_is_gone(&self, state: &State, input: &Pipe) -> bool {
        !input.writer.load(Ordering::Relaxed) && !state.is_cut(input.to, input.from)
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_dead() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if this.reads.poll(context).is_pending() {
            return Poll::Pending;
        }
        loop {
            let state = lock(&this.network.state);
            let mut pipe = lock(&this.input);
            if pipe.broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let due = pipe.segments.front().map(|(due, _)| *due);
            let Some(due) = due.filter(|_| !state.is_held(&pipe)) else {
                pipe.reading = Some(context.waker().clone());
                return Poll::Pending;
            };
            if Instant::now() < due {
                pipe.reading = Some(context.waker().clone());
                let sleep = this.due.get_or_insert_with(|| Box::pin(sleep_until(due)));
                if sleep.deadline() != due {
                    sleep.as_mut().reset(due);
                }
                drop((pipe, state));
                if sleep.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            match &mut pipe.segments.front_mut().expect("it is due").1 {
                Segment::End => return Poll::Ready(Ok(())),
                Segment::Reset => {
                    pipe.broken = true;
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Segment::Bytes(bytes, read) => {
                    let count = buffer.remaining().min(bytes.len() - *read);
                    buffer.put_slice(&bytes[*read..*read + count]);
                    *read += count;
                    if *read == bytes.len() {
                        pipe.segments.pop_front();
                    }
                    pipe.unread_bytes -= count;
                    if aim::is_agent(pipe.from) && aim::is_node(pipe.to) {
                        state.aim.pass(Moment::Heard(pipe.to));
                    }
                    if let Some(writing) = pipe.writing.take() {
                        writing.wake();
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.writes.poll(context).is_pending() {
            return Poll::Pending;
        }
        let mut state = lock(&self.network.state);
        let gone = {
            let input = lock(&self.input);
            input.broken || self.far_is_gone(&state, &input)
        };
        let mut pipe = lock(&self.output);
        if self.is_dead() || self.ended || pipe.broken || gone {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if WINDOW_BYTES <= pipe.unread_bytes {
            pipe.writing = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(WINDOW_BYTES);
        state.send(&mut pipe, Segment::Bytes(bytes[..count].to_vec(), 0));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.end();
        // Whoever writes to a closed end is told so.
        if !self.is_dead() {
            let mut pipe = lock(&self.input);
            pipe.broken = true;
            pipe.wake();
        }
    }
}
