//! What agents ask of metadata while nobody answers, and after (RELIABILITY H2): counted, on a
//! clock that the test moves.

use std::sync::atomic::{AtomicBool, AtomicU64};

use aquifer_metadata::{
    client::{CommitStream, WatchStream},
    machine::{
        command::AppliedReply,
        query::{Answer, Query},
    },
    watch::WatchEvent,
};
use aquifer_storage::{model::Lineage, store::MemoryStore};
use async_trait::async_trait;

use super::*;
use crate::{
    produce::{FlushLimits, Producer, ProducerConfig, ProducerDeps, PutBudget, testing::WatchEnd},
    view::{
        View,
        testing::{ManualClock, manual_seams},
    },
};

/// After this long a client gives a call up that nobody answers.
const DEADLINE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(50);

/// The model behind a network that counts calls, and may lose them.
struct Counted {
    inner: Arc<ModelMetadata>,
    seams: Seams,
    calls: AtomicU64,
    hangs: AtomicBool,
}

impl Counted {
    async fn call(&self) -> Result<(), CallError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if !self.hangs.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.seams.sleep(DEADLINE).await;
        let reason = "nobody answers".to_owned();
        Err(CallError { call: "counted", outcome: Outcome::Indefinite, reason })
    }

    /// Calls made while so much time passes.
    async fn during(&self, clock: &ManualClock, time: Duration) -> u64 {
        let before = self.calls.load(Ordering::SeqCst);
        for _ in 0..time.as_millis() / STEP.as_millis() {
            clock.advance(STEP).await;
        }
        self.calls.load(Ordering::SeqCst) - before
    }

    fn is_away(&self) -> bool {
        self.hangs.load(Ordering::SeqCst) || self.inner.away.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Metadata for Counted {
    async fn propose(&self, command: Command) -> Result<AppliedReply, CallError> {
        self.call().await?;
        self.inner.propose(command).await
    }

    async fn read_index(&self) -> Result<LogIndex, CallError> {
        self.call().await?;
        self.inner.read_index().await
    }

    async fn query(&self, query: Query) -> Result<(LogIndex, Answer), CallError> {
        self.call().await?;
        self.inner.query(query).await
    }

    async fn heartbeat(&self, session: SessionId) -> Result<Heartbeat, CallError> {
        self.call().await?;
        self.inner.heartbeat(session).await
    }

    async fn open_commits(&self, session: SessionId) -> Result<CommitStream, CallError> {
        self.call().await?;
        self.inner.open_commits(session).await
    }

    async fn open_watch(&self, seen: LogIndex) -> Result<WatchStream, CallError> {
        self.call().await?;
        self.inner.open_watch(seen).await
    }
}

/// Speaks on every watch stream while it is there, and ends them when it goes away.
async fn speak(metadata: Arc<Counted>, mut opened: mpsc::Receiver<WatchEnd>) {
    let mut ends: Vec<WatchEnd> = Vec::new();
    loop {
        while let Ok(end) = opened.try_recv() {
            ends.push(end);
        }
        if metadata.is_away() {
            ends.clear();
        }
        for end in &mut ends {
            let _ = end.events.try_send(WatchEvent::Applied(LogIndex::new(1)));
            while end.requests.try_recv().is_ok() {}
        }
        ends.retain(|end| !end.events.is_closed());
        metadata.seams.sleep(Duration::from_millis(250)).await;
    }
}

/// The parts of an agent that call metadata of their own accord.
fn agent(metadata: &Arc<Counted>) -> (Session, View) {
    let seams = &metadata.seams;
    let shared: Arc<dyn Metadata> = metadata.clone();
    let advertised = HostPort { host: "agent".to_owned(), port: 9092 };
    let config = SessionConfig { advertised, zone: None };
    let (session, service) = Session::new(config, shared.clone(), seams.clone());
    seams.spawn("session", service.run(std::future::pending()));
    let (view, service) = View::new(shared.clone(), seams.clone());
    seams.spawn("view", service.run(std::future::pending()));
    let deps = ProducerDeps {
        store: Arc::new(MemoryStore::default()),
        metadata: shared,
        session: session.clone(),
        written: Arc::new(()),
        seams: seams.clone(),
    };
    let put_budget = PutBudget { per_second: 0, burst: 1 };
    let limits = FlushLimits { put_budget, ..FlushLimits::default() };
    let lineage = Lineage { number: 1, nonce: 9 };
    let (producer, service) = Producer::new(ProducerConfig { limits, lineage }, deps);
    seams.spawn("produce", async move {
        let _producer = producer; // As long as it is there, it serves.
        service.run(std::future::pending()).await;
    });
    (session, view)
}

#[tokio::test]
async fn an_outage_brings_no_storm_of_calls_while_it_lasts_nor_when_it_ends() {
    for hangs in [false, true] {
        let (clock, seams) = manual_seams();
        let (inner, opened) = ModelMetadata::new(seams.clone());
        let (calls, away) = (AtomicU64::new(0), AtomicBool::new(false));
        let metadata = Arc::new(Counted { inner, seams: seams.clone(), calls, hangs: away });
        seams.spawn("node", speak(metadata.clone(), opened));
        let agents: Vec<_> = (0..3).map(|_| agent(&metadata)).collect();
        metadata.during(&clock, Duration::from_secs(5)).await;
        let steady = metadata.during(&clock, Duration::from_secs(5)).await;
        assert!((50..100).contains(&steady), "three agents, four heartbeats a second: {steady}");

        let switch = if hangs { &metadata.hangs } else { &*metadata.inner.away };
        switch.store(true, Ordering::SeqCst);
        let lost = metadata.during(&clock, Duration::from_secs(10)).await;
        switch.store(false, Ordering::SeqCst);
        let healed = metadata.during(&clock, Duration::from_secs(5)).await;
        println!("hangs: {hangs}, steady: {steady}, in the outage: {lost}, after it: {healed}");
        // Twice as long, and two streams of each agent are tried again and again.
        assert!(
            lost <= 2 * 2 * steady,
            "{lost} calls in the outage, {steady} in half of it before"
        );
        assert!(healed <= steady + steady / 2, "{healed} calls after it, {steady} before");
        metadata.during(&clock, Duration::from_secs(5)).await;
        for (session, view) in &agents {
            assert!(session.silent_for() < Duration::from_secs(1), "its heartbeats are answered");
            assert!(view.silent_for() < Duration::from_secs(1), "its stream speaks");
        }
    }
}
