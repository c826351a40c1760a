//! The bucket as a process reaches it: slow, failing, losing answers, and carrying out what was
//! asked after the asker gave up or died.

use std::{
    future::{Future, pending},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aquifer_storage::{
    error::{Outcome, StoreCondition, StoreError},
    store::{Listed, Store, memory::MemoryStore},
};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::{sync::oneshot, time::sleep};

use super::{
    aim::{Aim, Moment},
    net::Host,
    pause::Pause,
    process::Process,
    rng::SimRng,
    trace::Trace,
};

/// How the bucket behaves now. Of a thousand requests, so many ...
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// ... are refused without an effect.
    pub refused: u64,
    /// ... are refused as with credentials that expired: it helps nothing to try again.
    pub denied: u64,
    /// ... are answered 503, with an effect every other time.
    pub slow_down: u64,
    /// ... take effect and are never answered.
    pub answer_lost: u64,
    /// ... neither take effect nor are answered.
    pub hung: u64,
    /// ... take up to 8 s.
    pub slow: u64,
    /// ... of reads: one bit of the answer is wrong.
    pub flipped: u64,
    /// ... of reads: the object is said not to be there.
    pub absent: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub const FAIR: Self = Self {
        refused: 0,
        denied: 0,
        slow_down: 0,
        answer_lost: 0,
        hung: 0,
        slow: 0,
        flipped: 0,
        absent: 0,
    };
}

/// The bucket, shared by all. Clones share it.
#[derive(Clone)]
pub struct Bucket {
    objects: Arc<MemoryStore>,
    weather: Arc<Mutex<Weather>>,
    trace: Trace,
}

impl Bucket {
    /// An empty bucket.
    pub fn new(trace: Trace) -> Self {
        Self { objects: Arc::default(), weather: Arc::default(), trace }
    }

    /// Changes how it behaves.
    pub fn set_weather(&self, weather: Weather) {
        *self.weather.lock().expect("no holder of this lock panics") = weather;
    }

    /// The bucket without faults.
    pub fn objects(&self) -> &Arc<MemoryStore> {
        &self.objects
    }

    /// The bucket as `process` reaches it.
    pub fn of(&self, process: &Process, stored: (Aim, Host), rng: SimRng) -> SimStore {
        let (alive, pause) = (process.alive.clone(), process.pause.clone());
        let name = process.name().to_owned();
        SimStore { bucket: self.clone(), alive, pause, rng, name, stored }
    }
}

/// The bucket from one process.
pub struct SimStore {
    bucket: Bucket,
    alive: Arc<AtomicBool>,
    pause: Pause,
    rng: SimRng,
    name: String,
    stored: (Aim, Host),
}

/// What will become of one request.
#[derive(Debug)]
struct Plan {
    before: Duration,
    takes_effect: bool,
    after: Duration,
    answer: PlannedAnswer,
    flip: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlannedAnswer {
    True,
    Refused,
    Denied,
    Busy,
    Absent,
    Never,
}

impl SimStore {
    fn plan(&self, is_read: bool) -> Plan {
        let weather = *self.bucket.weather.lock().expect("no holder of this lock panics");
        let drawn = self.rng.below(1000);
        let mut bound = 0;
        let mut falls = |share: u64| {
            let hit = (bound..bound + share).contains(&drawn);
            bound += share;
            hit
        };
        let usual = (Duration::from_millis(5), Duration::from_millis(40));
        let half = |rng: &SimRng| rng.between(usual.0 / 2, usual.1 / 2);
        let mut plan = Plan {
            before: half(&self.rng),
            takes_effect: true,
            after: half(&self.rng),
            answer: PlannedAnswer::True,
            flip: None,
        };
        if falls(weather.refused) {
            (plan.takes_effect, plan.answer) = (false, PlannedAnswer::Refused);
        } else if falls(weather.denied) {
            (plan.takes_effect, plan.answer) = (false, PlannedAnswer::Denied);
        } else if falls(weather.slow_down) {
            plan.takes_effect = self.rng.one_in(2);
            plan.answer = PlannedAnswer::Busy;
        } else if falls(weather.answer_lost) {
            plan.answer = PlannedAnswer::Never;
        } else if falls(weather.hung) {
            (plan.takes_effect, plan.answer) = (false, PlannedAnswer::Never);
        } else if falls(weather.slow) {
            plan.before = self.rng.between(usual.1, Duration::from_secs(4));
            plan.after = self.rng.between(usual.1, Duration::from_secs(4));
        } else if is_read && falls(weather.flipped) {
            plan.flip = Some(self.rng.next());
        } else if is_read && falls(weather.absent) {
            (plan.takes_effect, plan.answer) = (false, PlannedAnswer::Absent);
        }
        plan
    }

    /// Carries a request out according to plan, whether or not anyone still waits for it.
    async fn carry_out<T: Send + 'static>(
        &self,
        (operation, key): (&'static str, &str),
        plan: Plan,
        request: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        if !self.alive.load(Ordering::Relaxed) {
            return pending().await; // The dead reach nothing.
        }
        let Plan { before, takes_effect, after, answer, .. } = plan;
        let (reply, replied) = oneshot::channel();
        let (trace, name, owned) = (self.bucket.trace.clone(), self.name.clone(), key.to_owned());
        let (aim, host) = self.stored.clone();
        tokio::spawn(async move {
            sleep(before).await;
            let result = if takes_effect { Some(request.await) } else { None };
            trace.note(|| format!("store {name} {operation} {owned} {takes_effect} {answer:?}"));
            if operation == "put" && takes_effect {
                aim.pass(Moment::Stored(host));
            }
            sleep(after).await;
            // Whoever gave up meanwhile does not hear of it.
            let _ = reply.send(result);
        });
        let result = replied.await;
        self.pause.passed().await;
        let error = |outcome, condition, reason: &str| StoreError {
            operation,
            key: key.to_owned(),
            outcome,
            condition,
            reason: reason.to_owned(),
        };
        match (answer, result) {
            (PlannedAnswer::True, Ok(Some(result))) => result,
            (PlannedAnswer::Refused, _) => {
                Err(error(Outcome::Unavailable, StoreCondition::Busy, "simulated refusal"))
            }
            (PlannedAnswer::Denied, _) => {
                Err(error(Outcome::Rejected, StoreCondition::Denied, "simulated 403"))
            }
            (PlannedAnswer::Absent, _) => {
                let reason = "simulated 404";
                Err(error(Outcome::Rejected, StoreCondition::NotFound, reason))
            }
            (PlannedAnswer::Busy, _) => {
                let is_read = matches!(operation, "get" | "list");
                let outcome = if is_read { Outcome::Unavailable } else { Outcome::Indefinite };
                Err(error(outcome, StoreCondition::Busy, "simulated 503"))
            }
            _ => pending().await,
        }
    }
}

fn flipped(bytes: Bytes, place: u64) -> Bytes {
    let mut bytes = bytes.to_vec();
    let bits = (bytes.len() as u64 * 8).max(1);
    let bit = usize::try_from(place % bits).expect("a place in memory");
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
    bytes.into()
}

#[async_trait]
impl Store for SimStore {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        let (objects, owned) = (self.bucket.objects.clone(), key.to_owned());
        let request = async move { objects.put(&owned, body).await };
        self.carry_out(("put", key), self.plan(false), request).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let (objects, owned) = (self.bucket.objects.clone(), key.to_owned());
        let request = async move { objects.put_if_absent(&owned, body).await };
        self.carry_out(("put", key), self.plan(false), request).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (objects, owned) = (self.bucket.objects.clone(), key.to_owned());
        let plan = self.plan(true);
        let flip = plan.flip;
        let request = async move { objects.get_range(&owned, range).await };
        let bytes = self.carry_out(("get", key), plan, request).await?;
        Ok(match flip {
            Some(place) => flipped(bytes, place),
            None => bytes,
        })
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let (objects, owned) = (self.bucket.objects.clone(), key.to_owned());
        let request = async move { objects.get(&owned).await };
        self.carry_out(("get", key), self.plan(true), request).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        let objects = self.bucket.objects.clone();
        let first = keys.first().cloned().unwrap_or_default();
        let request = async move { objects.delete_many(keys).await };
        self.carry_out(("delete", &first), self.plan(false), request).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let (objects, owned) = (self.bucket.objects.clone(), prefix.to_owned());
        let after = start_after.map(str::to_owned);
        let request = async move { objects.list(&owned, after.as_deref(), limit).await };
        self.carry_out(("list", prefix), self.plan(false), request).await
    }
}
