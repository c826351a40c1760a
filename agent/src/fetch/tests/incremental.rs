//! Laws of what a fetch looks at: what it leaves out changes no answer.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_metadata::watch::WatchRequest;
use aquifer_storage::model::{PartitionIndex, TopicId, TopicPartition};
use proptest::prelude::*;

use super::{
    super::{
        session::{Asked, Begun, Context, PartitionKey, SessionRequest, Told},
        testing::offset,
    },
    *,
};
use crate::wire::{error_code::ErrorCode, walk::TopicRef};

const KEYS: u8 = 5;

fn key(index: u8) -> PartitionKey {
    (TopicRef::Name(format!("topic-{index}").as_str().into()), 0)
}

fn asked(offset: i64) -> Asked {
    Asked { offset, bytes_max: 1 << 20, leader_epoch: -1 }
}

/// Where a client reads on.
#[derive(Clone, Copy, Debug)]
enum ReadFrom {
    /// So many records before the end, or behind it.
    End(i64),
    /// The log start, less this.
    Start(i64),
}

#[derive(Clone, Debug)]
enum Step {
    /// A row of so many batches, all but the last `open` records of it stable; so many of the last
    /// rows are pushed.
    Append {
        key: u8,
        batches: usize,
        open: i64,
        window: usize,
    },
    /// The log start moves up by so many records.
    Trim {
        key: u8,
        by: i64,
    },
    /// A push without news.
    Again {
        key: u8,
    },
    Delete {
        key: u8,
    },
    /// Under the old name, if that is free.
    Create {
        key: u8,
    },
    Request {
        /// Whether the client goes on behind what it was given.
        goes_on: bool,
        named: Vec<(u8, ReadFrom, i32)>,
        forgotten: Vec<u8>,
        committed: bool,
        bytes_max: usize,
        waits: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let from = prop_oneof![
        4 => Just(ReadFrom::End(0)),
        2 => (0..6i64).prop_map(ReadFrom::End),
        1 => (-2..0i64).prop_map(ReadFrom::End),
        1 => (0..2i64).prop_map(ReadFrom::Start),
    ];
    let epoch = prop_oneof![6 => Just(-1), 3 => Just(3), 1 => Just(2), 1 => Just(4)];
    let named = prop::collection::vec((0..KEYS, from, epoch), 0..3);
    let forgotten = prop::collection::vec(0..KEYS, 0..2);
    let forgotten = prop_oneof![3 => Just(Vec::new()), 1 => forgotten];
    let committed = prop::bool::weighted(0.2);
    let bytes_max = prop_oneof![Just(1), Just(400), Just(1 << 20)];
    let append = (0..KEYS, 1..3usize, 0..3i64, 1..4usize);
    prop_oneof![
        4 => append.prop_map(|(key, batches, open, window)| {
            Step::Append { key, batches, open, window }
        }),
        1 => (0..KEYS, 1..4i64).prop_map(|(key, by)| Step::Trim { key, by }),
        1 => (0..KEYS).prop_map(|key| Step::Again { key }),
        1 => (0..KEYS).prop_map(|key| Step::Delete { key }),
        2 => (0..KEYS).prop_map(|key| Step::Create { key }),
        6 => (prop::bool::ANY, named, forgotten, committed, bytes_max, prop::bool::ANY).prop_map(
            |(goes_on, named, forgotten, committed, bytes_max, waits)| Step::Request {
                goes_on, named, forgotten, committed, bytes_max, waits,
            }
        ),
    ]
}

/// One partition that exists.
#[derive(Clone, Debug)]
struct Live {
    partition: TopicPartition,
    log: ModelLog,
    log_start: i64,
    last_stable: i64,
    window: usize,
}

impl Live {
    fn state(&self, index: u64) -> PartitionState {
        let runs = self.log.runs[self.log.runs.len().saturating_sub(self.window)..].to_vec();
        let end = self.log.end();
        let last_stable = offset(self.last_stable);
        let pointers = Pointers { last_stable, ..pointers(self.log_start, end) };
        PartitionState { partition: self.partition, index: LogIndex::new(index), runs, pointers }
    }
}

/// What metadata holds.
#[derive(Default)]
struct Model {
    index: u64,
    named: BTreeMap<u8, Live>,
    generations: u8,
    objects: u64,
}

impl Model {
    fn found(&self, key: &PartitionKey) -> Result<TopicPartition, ErrorCode> {
        let named = |index: &u8| self::key(*index) == *key;
        let live = (0..KEYS).find(named).and_then(|index| self.named.get(&index));
        live.map(|live| live.partition).ok_or(ErrorCode::UnknownTopicOrPartition)
    }
}

/// One partition as it was answered.
type Row = (PartitionKey, Result<Fetched, ErrorCode>);

fn told(row: &Row) -> Told {
    let (_, one) = row;
    let pointers = one.as_ref().ok().and_then(|one| one.pointers);
    let failed = one.as_ref().map_or(true, |one| one.records.is_err());
    Told {
        has_records: !failed && has_records(row),
        error: if failed { ErrorCode::KafkaStorageError } else { ErrorCode::None },
        high_watermark: pointers.map_or(-1, |pointers| pointers.high_watermark.value()),
        log_start: pointers.map_or(-1, |pointers| pointers.log_start.value()),
        is_at_end: one.as_ref().is_ok_and(|one| one.is_at_end),
    }
}

fn has_records((_, one): &Row) -> bool {
    one.as_ref().is_ok_and(|one| one.records.as_ref().is_ok_and(|records| !records.is_empty()))
}

fn answers_at_once(row: &Row) -> bool {
    has_records(row) || told(row).error != ErrorCode::None
}

/// Without how it is known.
fn shown(rows: &[Row]) -> Vec<String> {
    let of = |(key, one): &Row| {
        let one = one.as_ref().map(|one| {
            let records = one.records.as_ref().map(|records| records.concat());
            (one.pointers, records)
        });
        format!("{key:?}: {one:?}")
    };
    rows.iter().map(of).collect()
}

/// A session that looks at each of its partitions for each answer.
#[derive(Clone, Debug, Default)]
struct Reference {
    entries: BTreeMap<PartitionKey, (Asked, Option<(i64, i64)>)>,
    line: Vec<PartitionKey>,
}

impl Reference {
    fn begin(&mut self, asked: &[(PartitionKey, Asked)], forgotten: &[PartitionKey]) {
        for key in forgotten {
            self.entries.remove(key);
            self.line.retain(|other| other != key);
        }
        for (key, one) in asked {
            if let Some((asked, _)) = self.entries.get_mut(key) {
                *asked = *one;
            } else {
                self.entries.insert(key.clone(), (*one, None));
                self.line.push(key.clone());
            }
        }
    }

    /// What an answer would say of each now.
    async fn look(
        &self,
        fetcher: &Fetcher,
        found: &BTreeMap<PartitionKey, Result<TopicPartition, ErrorCode>>,
        params: FetchParams,
    ) -> Vec<Row> {
        let known = self.line.iter().filter_map(|key| Some((key, found[key].ok()?)));
        let wanted: Vec<_> = known.map(|(key, of)| self.entries[key].0.of(of)).collect();
        let params = FetchParams { bytes_min: 0, wait: Duration::ZERO, ..params };
        let answer = fetcher.fetch(&mut fetcher.positions(), &wanted, params).await;
        let mut fetched = answer.partitions.into_iter();
        let row = |key: &PartitionKey| {
            let one = found[key].map(|_| fetched.next().expect("one for each"));
            (key.clone(), one)
        };
        self.line.iter().map(row).collect()
    }

    /// Those that are listed.
    fn tell(&mut self, rows: Vec<Row>, is_first: bool) -> Vec<Row> {
        let mut listed = Vec::new();
        for row in rows {
            let told = told(&row);
            let pointers = (told.high_watermark, told.log_start);
            let failed = told.error != ErrorCode::None;
            let entry = self.entries.get_mut(&row.0).expect("it is in line");
            let moves = told.has_records || failed;
            let is_new = entry.1 != Some(pointers);
            entry.1 = (!failed).then_some(pointers);
            if moves {
                self.line.retain(|other| *other != row.0);
                self.line.push(row.0.clone());
            }
            if is_first || moves || is_new {
                listed.push(row);
            }
        }
        listed
    }
}

/// A fetch that has not been answered yet.
struct Parked {
    answer: oneshot::Receiver<(ConnectionSessions, Begun, Vec<Row>)>,
    found: BTreeMap<PartitionKey, Result<TopicPartition, ErrorCode>>,
    params: FetchParams,
}

/// A client, and beside it the session that looks at everything.
struct Client {
    connection: Option<ConnectionSessions>,
    session: Option<(i32, i32)>,
    reference: Reference,
    /// Records that were given, and where they end.
    next: BTreeMap<PartitionKey, i64>,
    parked: Option<Parked>,
}

struct Run {
    world: World,
    model: Arc<Mutex<Model>>,
    client: Client,
}

impl Run {
    async fn new() -> Self {
        let mut world = world().await;
        let model: Arc<Mutex<Model>> = Arc::default();
        let (_, none) = mpsc::channel(1);
        let mut requests = std::mem::replace(&mut world.end.requests, none);
        let (events, known) = (world.end.events.clone(), model.clone());
        world.seams.spawn("metadata", async move {
            while let Some(request) = requests.recv().await {
                let WatchRequest::Watch(partition) = request else { continue };
                let event = {
                    let model = known.lock().unwrap();
                    let index = model.index;
                    let mut named = model.named.values();
                    let live = named.find(|live| live.partition == partition);
                    live.map_or(
                        WatchEvent::PartitionGone(partition, LogIndex::new(index)),
                        |live| WatchEvent::PartitionState(live.state(index)),
                    )
                };
                events.send(event).await.unwrap();
            }
        });
        let client = Client {
            connection: Some(world.fetcher.sessions()),
            session: None,
            reference: Reference::default(),
            next: BTreeMap::new(),
            parked: None,
        };
        model.lock().unwrap().index = 1;
        world.applied(1).await;
        Self { world, model, client }
    }

    /// Pushes what there is of a partition now.
    async fn push(&self, index: u8) {
        let state = {
            let mut model = self.model.lock().unwrap();
            model.index += 1;
            let at = model.index;
            model.named.get(&index).map(|live| live.state(at))
        };
        let Some(state) = state else { return };
        let at = state.index.value();
        self.world.end.events.send(WatchEvent::PartitionState(state)).await.unwrap();
        self.world.applied(at).await;
    }

    async fn append(&self, key: u8, batches: usize, open: i64, window: usize) {
        let (mut log, object) = {
            let mut model = self.model.lock().unwrap();
            model.objects += 1;
            let object = model.objects;
            let Some(live) = model.named.get(&key) else { return };
            (live.log.clone(), object)
        };
        let shapes = vec![(2, 32); batches];
        log.append(&*self.world.store, object_name(object, false), (0, &shapes)).await;
        let partition = {
            let mut model = self.model.lock().unwrap();
            let live = model.named.get_mut(&key).unwrap();
            live.last_stable = live.last_stable.max(log.end() - open);
            (live.log, live.window) = (log.clone(), window);
            live.partition
        };
        self.world.metadata.logs.lock().unwrap().insert(partition, log);
        self.push(key).await;
    }

    async fn delete(&self, key: u8) {
        let (partition, at) = {
            let mut model = self.model.lock().unwrap();
            model.index += 1;
            let Some(live) = model.named.remove(&key) else { return };
            (live.partition, model.index)
        };
        let gone = WatchEvent::PartitionGone(partition, LogIndex::new(at));
        self.world.end.events.send(gone).await.unwrap();
        self.world.applied(at).await;
    }

    fn create(&self, key: u8) {
        let mut model = self.model.lock().unwrap();
        model.generations += 1;
        let topic = TopicId::from_bytes([model.generations; 16]);
        let partition = TopicPartition { topic, partition: PartitionIndex::new(0) };
        let log = ModelLog::default();
        let live = Live { partition, log, log_start: 0, last_stable: 0, window: 1 };
        model.named.entry(key).or_insert(live);
    }

    fn trim(&self, key: u8, by: i64) {
        if let Some(live) = self.model.lock().unwrap().named.get_mut(&key) {
            live.log_start = (live.log_start + by).min(live.last_stable);
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append { key, batches, open, window } => {
                self.append(key, batches, open, window).await;
            }
            Step::Trim { key, by } => {
                self.trim(key, by);
                self.push(key).await;
            }
            Step::Again { key } => self.push(key).await,
            Step::Delete { key } => self.delete(key).await,
            Step::Create { key } => self.create(key),
            Step::Request { goes_on, named, forgotten, committed, bytes_max, waits } => {
                self.end_wait().await;
                let isolation =
                    if committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
                let wait = if waits { WAIT } else { Duration::ZERO };
                let params = FetchParams { bytes_min: 1, bytes_max, wait, isolation };
                let named = self.named(goes_on, &named);
                let forgotten: Vec<_> = forgotten.iter().map(|index| key(*index)).collect();
                self.request(named, &forgotten, params).await;
            }
        }
        self.look().await;
    }

    fn named(
        &mut self,
        goes_on: bool,
        named: &[(u8, ReadFrom, i32)],
    ) -> Vec<(PartitionKey, Asked)> {
        let model = self.model.lock().unwrap();
        let given = std::mem::take(&mut self.client.next).into_iter().filter(|_| goes_on);
        let mut all: BTreeMap<PartitionKey, Asked> =
            given.map(|(key, next)| (key, asked(next))).collect();
        for (index, from, leader_epoch) in named {
            let live = model.named.get(index);
            let (start, end) = live.map_or((0, 0), |live| (live.log_start, live.log.end()));
            let offset = match from {
                ReadFrom::End(before) => (end - before).max(start - 1),
                ReadFrom::Start(before) => start - before,
            };
            all.insert(key(*index), Asked { leader_epoch: *leader_epoch, ..asked(offset) });
        }
        all.into_iter().collect()
    }

    async fn request(
        &mut self,
        named: Vec<(PartitionKey, Asked)>,
        forgotten: &[PartitionKey],
        params: FetchParams,
    ) {
        let client = &mut self.client;
        let (id, epoch) = client.session.unwrap_or((0, 0));
        let committed = params.isolation == Isolation::ReadCommitted;
        let request = SessionRequest { id, epoch, by_id: false, committed };
        if client.session.is_none() {
            client.reference = Reference::default();
        }
        let gone = if client.session.is_none() { &[] } else { forgotten };
        client.reference.begin(&named, gone);
        let mut connection = client.connection.take().unwrap();
        let begun = connection.begin(request, || 7, named, gone.iter().cloned()).unwrap();
        client.session = match begun.0 {
            Context::Full => None,
            Context::Opened(id) => Some((id, 1)),
            Context::Incremental(id) => Some((id, epoch + 1)),
        };
        let (all, found) = {
            let model = self.model.lock().unwrap();
            let all = client.reference.line.iter();
            let all: BTreeMap<_, _> = all.map(|key| (key.clone(), model.found(key))).collect();
            let found: Vec<_> = begun.1.iter().map(|due| model.found(&due.key)).collect();
            (all, found)
        };
        let bytes_min = if found.iter().any(Result::is_err) { 0 } else { params.bytes_min };
        let (fetcher, (sender, answer)) = (self.world.fetcher.clone(), oneshot::channel());
        self.world.seams.spawn("fetch", async move {
            let params = FetchParams { bytes_min, ..params };
            let answer = fetcher.fetch_begun(&mut connection, &begun, &found, params).await;
            let _ = sender.send((connection, begun, answer.partitions));
        });
        settle().await;
        client.parked = Some(Parked { answer, found: all, params });
    }

    /// The client's wait is over.
    async fn end_wait(&mut self) {
        if self.client.parked.is_some() {
            self.world.clock.advance(WAIT).await;
            let at = self.model.lock().unwrap().index;
            self.world.applied(at).await;
            let mut parked = self.client.parked.take().unwrap();
            let answer = parked.answer.try_recv().expect("the wait is over");
            let rows =
                self.client.reference.look(&self.world.fetcher, &parked.found, parked.params);
            let rows = rows.await;
            self.compare(answer, rows);
        }
    }

    /// A fetch is answered exactly when looking at everything finds a reason to, and in the same way.
    async fn look(&mut self) {
        let Some(mut parked) = self.client.parked.take() else { return };
        let rows = self.client.reference.look(&self.world.fetcher, &parked.found, parked.params);
        let rows = rows.await;
        let is_due =
            rows.is_empty() || parked.params.wait.is_zero() || rows.iter().any(answers_at_once);
        match parked.answer.try_recv() {
            Ok(answer) => {
                assert!(is_due, "nothing is to be told: {:?}", shown(&rows));
                self.compare(answer, rows);
            }
            Err(_) => {
                assert!(!is_due, "to be answered: {:?}", shown(&rows));
                self.client.parked = Some(parked);
            }
        }
    }

    fn compare(
        &mut self,
        (mut connection, begun, rows): (ConnectionSessions, Begun, Vec<Row>),
        all: Vec<Row>,
    ) {
        let client = &mut self.client;
        let is_first = matches!(begun.0, Context::Opened(_));
        let mut listed = Vec::new();
        for row in rows {
            if connection.tell(begun.0, &row.0, told(&row)) {
                listed.push(row);
            }
        }
        let expected = client.reference.tell(all, is_first);
        assert_eq!(shown(&listed), shown(&expected));
        client.connection = Some(connection);
        let model = self.model.lock().unwrap();
        for (key, one) in listed.iter().filter(|row| has_records(row)) {
            let first = client.reference.entries[key].0.offset;
            let bytes = one.as_ref().map(|one| one.records.clone().unwrap().concat().len());
            let live = model.named.values().find(|live| Ok(live.partition) == model.found(key));
            let Some(live) = live else { continue };
            // All batches are of one size.
            let batches = bytes.unwrap() / live.log.batches[0].bytes.len();
            client.next.insert(key.clone(), (first / 2 + batches as i64) * 2);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn what_a_session_does_not_look_at_changes_no_answer(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new().await;
            for index in 0..KEYS {
                run.create(index);
            }
            for step in steps {
                run.step(step).await;
            }
            run.end_wait().await;
        });
    }
}

/// A world in which partitions 0 to `count` are pushed, empty.
async fn many(count: u32) -> World {
    let world = world().await;
    let watches: Vec<_> = (0..count).map(|of| world.fetcher.view.watch(partition(of))).collect();
    settle().await;
    for of in 0..count {
        world.push_empty(5, of, 0).await;
    }
    world.applied(5).await;
    drop(watches);
    world
}

impl World {
    /// Pushes that a partition has no rows, and ends at `end`.
    async fn push_empty(&self, index: u64, of: u32, end: i64) {
        let state = PartitionState {
            partition: partition(of),
            index: LogIndex::new(index),
            runs: Vec::new(),
            pointers: pointers(end, end),
        };
        self.end.events.send(WatchEvent::PartitionState(state)).await.unwrap();
        if of % 64 == 63 {
            settle().await;
        }
    }
}

/// A session over partitions 0 to `count`, told of all.
async fn session(world: &World, count: u32) -> ConnectionSessions {
    let mut connection = world.fetcher.sessions();
    let all: Vec<_> =
        (0..count).map(|of| ((TopicRef::Name("t".into()), of as i32), asked(0))).collect();
    let request = SessionRequest { id: 0, epoch: 0, by_id: false, committed: false };
    let begun = connection.begin(request, || 7, all, std::iter::empty()).unwrap();
    let found: Vec<_> = (0..count).map(|of| Ok(partition(of))).collect();
    let at_once = FetchParams { wait: Duration::ZERO, ..params() };
    let answer = world.fetcher.fetch_begun(&mut connection, &begun, &found, at_once).await;
    for row in &answer.partitions {
        assert!(connection.tell(begun.0, &row.0, told(row)));
    }
    connection
}

fn resume(connection: &mut ConnectionSessions, epoch: i32) -> Begun {
    let request = SessionRequest { id: 7, epoch, by_id: false, committed: false };
    connection.begin(request, || 8, Vec::new(), std::iter::empty()).unwrap()
}

#[tokio::test]
async fn a_wake_and_a_request_of_a_session_plan_what_was_pushed_and_not_what_is_wanted() {
    let world = many(1000).await;
    let mut connection = session(&world, 1000).await;
    let planned = || world.fetcher.metrics.planned.get();
    let before = planned();
    let at_once = FetchParams { wait: Duration::ZERO, ..params() };
    for epoch in 1..11 {
        let begun = resume(&mut connection, epoch);
        let answer = world.fetcher.fetch_begun(&mut connection, &begun, &[], at_once).await;
        assert_eq!(answer.partitions.len(), 0);
    }
    assert_eq!(planned(), before, "nothing was pushed or named");
    let begun = resume(&mut connection, 11);
    let (sender, mut receiver) = oneshot::channel();
    let fetcher = world.fetcher.clone();
    world.seams.spawn("fetch", async move {
        let answer = fetcher.fetch_begun(&mut connection, &begun, &[], params()).await;
        let _ = sender.send(answer.partitions.len());
    });
    settle().await;
    for of in 0..10 {
        world.push_empty(6, of, 0).await;
        settle().await;
    }
    assert!(receiver.try_recv().is_err(), "there is nothing to send");
    assert_eq!(planned(), before + 10, "one for each push");
    world.clock.advance(WAIT).await;
    assert_eq!(receiver.try_recv(), Ok(10));
    assert_eq!(planned(), before + 10);
}

#[tokio::test]
async fn a_full_fetch_plans_again_only_what_was_pushed_while_it_waited() {
    let world = many(1000).await;
    let wanted: Vec<_> = (0..1000).map(|of| Wanted { partition: partition(of), ..at(0) }).collect();
    let (sender, mut receiver) = oneshot::channel();
    let fetcher = world.fetcher.clone();
    world.seams.spawn("fetch", async move {
        let mut positions = fetcher.positions();
        let answer = fetcher.fetch(&mut positions, &wanted, params()).await;
        let _ = sender.send(answer.partitions.len());
    });
    settle().await;
    let planned = || world.fetcher.metrics.planned.get();
    assert_eq!(planned(), 1000);
    for of in 0..10 {
        world.push_empty(6, of, 0).await;
        settle().await;
    }
    assert_eq!(planned(), 1010);
    world.clock.advance(WAIT).await;
    assert_eq!(receiver.try_recv(), Ok(1000));
    assert_eq!(planned(), 1010);
}

#[tokio::test]
async fn silent_metadata_is_told_of_every_partition_of_a_session_and_so_is_its_end() {
    let world = many(10).await;
    let mut connection = session(&world, 10).await;
    for _ in 0..15 {
        world.clock.advance(Duration::from_secs(1)).await;
    }
    let begun = resume(&mut connection, 1);
    let answer = world.fetcher.fetch_begun(&mut connection, &begun, &[], params()).await;
    assert_eq!(answer.partitions.len(), 10);
    for row in &answer.partitions {
        assert_eq!(row.1.as_ref().unwrap().records, Err(FetchRefused::Elsewhere));
        assert!(connection.tell(begun.0, &row.0, told(row)));
    }
    let keys: BTreeSet<_> = answer.partitions.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(resume(&mut connection, 2).1.len(), keys.len(), "all are looked at again");
}
