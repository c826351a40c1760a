//! The layer in front of every request: counts it, lets it fail or makes it slow.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::{
    Request, Response, body::Incoming, http::request::Parts, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::Instant,
};

use super::{
    admin,
    body::{AnswerBody, Bandwidth, Closed, Delivery, RequestBody, wait_until},
    counters::Counters,
    fault::{Action, FaultRules},
    latency::LatencyModel,
    local::{LocalStore, refusal},
    request::{self, Kind, Target, TargetRefused},
    upstream::{Forwarder, UpstreamAddress},
    xml::S3Error,
};

/// Out of file descriptors, accepting again at once would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// How late a wait ends on average: tokio's timer ticks at a millisecond and rounds up.
const TICK: Duration = Duration::from_millis(1);

/// The rules in force, and word of their being replaced.
#[derive(Debug)]
pub struct Faults {
    rules: Mutex<FaultRules>,
    replaced: watch::Sender<()>,
}

impl Faults {
    fn next(&self, target: &Target) -> Option<(Action, watch::Receiver<()>)> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that no replacement falls between.
        rules.next_action(target).map(|action| (action, self.replaced.subscribe()))
    }

    /// Puts other rules in force and lets go whom the old ones hold.
    pub fn replace(&self, rules: FaultRules) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
        self.replaced.send_replace(());
    }

    /// The rules as JSON, with what is left of their counts.
    pub fn to_json(&self) -> String {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_string(&*rules).expect("rules came from JSON")
    }
}

/// Who carries requests out.
#[derive(Debug)]
pub enum Backend {
    /// We do.
    Local(LocalStore),
    /// A real store.
    Upstream(UpstreamAddress),
}

/// Everything that connections share.
#[derive(Debug)]
pub struct Stub {
    /// Who carries requests out.
    pub backend: Backend,
    /// What came.
    pub counters: Arc<Counters>,
    /// What fails.
    pub faults: Faults,
    /// Seed of the rules' fractions.
    pub seed: u64,
    latency: Mutex<LatencyModel>,
    bandwidth: Bandwidth,
}

impl Stub {
    /// A store without faults.
    pub fn new(backend: Backend, latency: LatencyModel, bandwidth: Bandwidth, seed: u64) -> Self {
        Self {
            backend,
            counters: Arc::new(Counters::zero()),
            faults: Faults {
                rules: Mutex::new(FaultRules::none()),
                replaced: watch::Sender::new(()),
            },
            seed,
            latency: Mutex::new(latency),
            bandwidth,
        }
    }

    fn draw(&self, kind: Kind) -> Option<Duration> {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).draw(kind)
    }
}

/// Serves connections until it is dropped, and they with it.
pub async fn serve(listener: TcpListener, stub: Arc<Stub>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, Arc::clone(&stub)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection of the store failed");
                }
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, stub: Arc<Stub>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client left at once");
        return;
    }
    let forwarder = match &stub.backend {
        Backend::Local(_) => None,
        Backend::Upstream(address) => Some(Forwarder::new(address.clone())),
    };
    let connection = Connection { stub, forwarder };
    let service = service_fn(|request| connection.answer(request));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection closed");
    }
}

/// One client connection.
struct Connection {
    stub: Arc<Stub>,
    forwarder: Option<Forwarder>,
}

/// When a request came, and what is known of how long it is to take.
struct Timing {
    arrived: Instant,
    latency: Option<Duration>,
    received: Arc<AtomicU64>,
    bandwidth: Bandwidth,
    factor: f64,
}

impl Timing {
    /// When the answer may leave, counted from the end of the head: after the drawn latency, and
    /// not before the body could have come at the bandwidth. `None` is at once.
    fn due(&self) -> Option<Instant> {
        let transfer = self.bandwidth.time_of(self.received.load(Ordering::Relaxed));
        let mut latency = self.latency.unwrap_or_default();
        let mut least = transfer;
        if 1.0 < self.factor {
            let slowed = |wait: Duration| {
                let seconds = wait.as_secs_f64() * self.factor;
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            };
            latency = slowed(latency);
            least = slowed(transfer.max(self.arrived.elapsed()));
        }
        let wait = least.max(latency.saturating_sub(TICK));
        if wait.is_zero() { None } else { self.arrived.checked_add(wait) }
    }
}

impl Connection {
    /// # Errors
    /// The connection is to be closed: by a fault, or because the other side did so.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>, Closed> {
        let arrived = Instant::now();
        let (head, incoming) = request.into_parts();
        if admin::is_about_the_stub(head.uri.path()) {
            let mut body = RequestBody::new(incoming, None);
            return admin::answer(&self.stub, &head, &mut body).await;
        }
        let mut body = RequestBody::new(incoming, Some(Arc::clone(&self.stub.counters)));
        let query = head.uri.query().unwrap_or_default();
        let target = match request::target(head.method.as_str(), head.uri.path(), query) {
            Ok(target) => target,
            Err(refused) => {
                body.drain().await?;
                return Ok(refusal(unreadable(refused), head.uri.path()));
            }
        };
        let kind = target.kind;
        self.stub.counters.count(kind);
        let mut timing = Timing {
            arrived,
            latency: self.stub.draw(kind),
            received: body.received(),
            bandwidth: self.stub.bandwidth,
            factor: 1.0,
        };
        let fault = self.stub.faults.next(&target);
        if fault.is_some() {
            self.stub.counters.count_fault();
        }
        match fault {
            None => self.carry_out(&target, head, body, &timing).await,
            Some((Action::Slow(factor), _)) => {
                timing.factor = factor;
                self.carry_out(&target, head, body, &timing).await
            }
            Some((Action::DropAnswer, _)) => {
                let answer = self.carry_out(&target, head, body, &timing).await?;
                answer.into_body().discard().await;
                Err(Closed)
            }
            Some((Action::Status(status), _)) => {
                body.drain().await?;
                wait_until(timing.due()).await;
                let mut answer = refusal(S3Error::of_status(status), head.uri.path());
                self.deliver(&mut answer, &target, &timing);
                Ok(answer)
            }
            Some((Action::Reset, _)) => {
                body.drain_half().await?;
                Err(Closed)
            }
            Some((Action::Hang, replaced)) => hang(body, replaced).await,
        }
    }

    async fn carry_out(
        &self,
        target: &Target,
        head: Parts,
        mut body: RequestBody,
        timing: &Timing,
    ) -> Result<Response<AnswerBody>, Closed> {
        let mut answer = match (&self.stub.backend, &self.forwarder) {
            (Backend::Local(store), _) => store.answer(target, &head, &mut body).await?,
            (Backend::Upstream(_), Some(forwarder)) => forwarder.forward(head, body).await?,
            (Backend::Upstream(_), None) => unreachable!("such connections have a forwarder"),
        };
        wait_until(timing.due()).await;
        if target.kind == Kind::Put {
            self.stub.counters.record(Kind::Put, timing.arrived.elapsed());
        }
        self.deliver(&mut answer, target, timing);
        Ok(answer)
    }

    fn deliver(&self, answer: &mut Response<AnswerBody>, target: &Target, timing: &Timing) {
        answer.body_mut().deliver(Delivery {
            counters: Arc::clone(&self.stub.counters),
            kind: target.kind,
            arrived: timing.arrived,
            bandwidth: timing.bandwidth.slowed(timing.factor),
        });
    }
}

/// Holds a connection until other rules are in force. Its body is read, since only so the client
/// is seen to leave.
async fn hang(
    mut body: RequestBody,
    mut replaced: watch::Receiver<()>,
) -> Result<Response<AnswerBody>, Closed> {
    let drain_and_wait = async {
        body.drain().await?;
        std::future::pending::<Result<(), Closed>>().await
    };
    tokio::select! {
        left = drain_and_wait => left?,
        // The sender lives as long as the stub, which we hold.
        _ = replaced.changed() => {}
    }
    Err(Closed)
}

fn unreadable(refused: TargetRefused) -> S3Error {
    match refused {
        TargetRefused::Method => S3Error {
            status: 405,
            code: "MethodNotAllowed",
            message: "The method is not allowed against this resource.",
        },
        TargetRefused::Uri => S3Error {
            status: 400,
            code: "InvalidURI",
            message: "The URI is not percent-encoded UTF-8.",
        },
        TargetRefused::KeyTooLong => S3Error {
            status: 400,
            code: "KeyTooLongError",
            message: "The key is longer than 1024 bytes.",
        },
    }
}
