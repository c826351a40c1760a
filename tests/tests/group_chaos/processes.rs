//! X1, X2, X3, X7, X8, X9, X10, X20: processes that die, stand still, come back, lose their clock.

use super::*;

/// Goals for one agent and one leader: Kafka's clients would not notice shorter ones.
const TOLD_AGENT: &str = "goal: median <= 1 s, longest < 2 s";
const TOLD_LEADER: &str = "goal: median <= 600 ms, longest < 1 s";
/// What fails the test: a busy machine doubles everything, a retry that waits for a time-out shows.
const PAUSE_MAX: Duration = Duration::from_secs(5);

fn rounds(few: usize) -> usize {
    if full() { 100 } else { few }
}

/// Waits until a node that came back is as far as the leader was when asked.
fn caught_up(lab: &mut Lab, place: u64) -> anyhow::Result<()> {
    let leader = lab.leader()?;
    let due = lab.status(leader, false).context("the leader answers")?.committed_index;
    lab.until("the node caught up", |lab| {
        lab.status(place, false).is_some_and(|status| due <= status.applied_index)
    })
}

#[test]
fn x1_an_agent_is_killed() -> anyhow::Result<()> {
    let mut lab = Lab::start(Shape::default())?;
    let mut load = Load::start(&mut lab, &LoadShape { steady: 2, ..shape() })?;
    let mut pauses = Vec::new();
    for round in 0..rounds(4) {
        settled();
        let (agent, from) = (round % 2, load.now());
        lab.kill(Server::Agent(agent))?;
        sleep(millis(500));
        pauses.push(load.longest_pause(from));
        lab.launch(Server::Agent(agent))?;
        lab.ready(agent)?;
    }
    let (_, longest) = tell(&format!("agent killed ({TOLD_AGENT})"), pauses);
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    ensure!(longest < PAUSE_MAX, "{longest:?} without an ack");
    Ok(())
}

#[test]
fn x2_an_agent_stands_still_for_a_second() -> anyhow::Result<()> {
    stands_still(Duration::from_secs(1))
}

/// Past the 15 s after which its session is fenced: what it still holds must not come in.
#[test]
fn x2_an_agent_stands_still_past_its_session() -> anyhow::Result<()> {
    if !full() {
        println!("SKIPPED: it takes 20 s; TEST_FULL=1 runs it");
        return Ok(());
    }
    stands_still(Duration::from_secs(18))
}

fn stands_still(length: Duration) -> anyhow::Result<()> {
    let mut lab = Lab::start(Shape::default())?;
    let mut load = Load::start(&mut lab, &LoadShape { steady: 2, ..shape() })?;
    for agent in lab.agents() {
        settled();
        let from = load.now();
        lab.pause(Server::Agent(agent))?;
        sleep(length);
        lab.resume(Server::Agent(agent))?;
        println!("agent {agent} works after {:?}", load.progress()?);
        tell("agent stood still", vec![load.longest_pause(from)]);
        lab.ready(agent)?;
    }
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}

#[test]
fn x3_the_leader_is_killed() -> anyhow::Result<()> {
    let mut lab = Lab::start(Shape::default())?;
    let mut load = Load::start(&mut lab, &shape())?;
    let mut pauses = Vec::new();
    for _ in 0..rounds(4) {
        settled();
        let (leader, from) = (lab.leader()?, load.now());
        lab.kill(Server::Node(leader))?;
        sleep(millis(1200));
        pauses.push(load.longest_pause(from));
        lab.launch(Server::Node(leader))?;
        caught_up(&mut lab, leader)?;
    }
    let (_, longest) = tell(&format!("leader killed ({TOLD_LEADER})"), pauses);
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    ensure!(longest < PAUSE_MAX, "{longest:?} without an ack");
    Ok(())
}

#[test]
fn x3_the_leader_hands_over() -> anyhow::Result<()> {
    let mut lab = Lab::start(Shape::default())?;
    let mut load = Load::start(&mut lab, &shape())?;
    let mut pauses = Vec::new();
    for _ in 0..rounds(4) {
        settled();
        let (before, from) = (lab.leader()?, load.now());
        lab.operate(&["transfer-leader"])?;
        ensure!(lab.leader()? != before, "node {before} leads on");
        sleep(millis(300));
        pauses.push(load.longest_pause(from));
    }
    let (_, longest) = tell("leader handed over", pauses);
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    ensure!(longest < PAUSE_MAX, "{longest:?} without an ack");
    Ok(())
}

#[test]
fn x7_a_minority_is_gone() -> anyhow::Result<()> {
    let mut lab = Lab::start(Shape::default())?;
    let mut load = Load::start(&mut lab, &shape())?;
    for place in lab.followers()? {
        settled();
        let from = load.now();
        lab.kill(Server::Node(place))?;
        sleep(if full() { Duration::from_secs(60) } else { millis(1000) });
        let (_, longest) = tell("a follower is gone", vec![load.longest_pause(from)]);
        ensure!(longest < PAUSE_MAX, "{longest:?} without an ack");
        lab.launch(Server::Node(place))?;
        caught_up(&mut lab, place)?;
    }
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}

#[test]
fn x8_the_majority_is_gone_for_a_while() -> anyhow::Result<()> {
    let mut lab = Lab::start(Shape::default())?;
    let mut load = Load::start(&mut lab, &shape())?;
    let (leader, [follower, _]) = (lab.leader()?, lab.followers()?);
    lab.kill(Server::Node(leader))?;
    lab.kill(Server::Node(follower))?;
    sleep(millis(300)); // What was committed is told.
    let from = load.now();
    let end = Instant::now() + if full() { Duration::from_secs(600) } else { millis(2000) };
    while Instant::now() < end {
        serves_what_it_knows(&lab, 0)?;
        serves_what_it_knows(&lab, 1)?;
        sleep(millis(100));
    }
    ensure!(load.acks_since(from) == 0, "one of three acknowledged");
    lab.all_running()?;
    lab.launch(Server::Node(follower))?;
    println!("two of three work after {:?}", load.progress()?);
    lab.launch(Server::Node(leader))?;
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}

#[test]
fn x9_all_are_killed_at_once() -> anyhow::Result<()> {
    let mut lab = Lab::start(Shape::default())?;
    let mut load = Load::start(&mut lab, &shape())?;
    for round in 0..if full() { 20 } else { 3 } {
        settled();
        NODES.into_iter().try_for_each(|node| lab.kill(node))?;
        let with_agents = round % 2 == 1;
        if with_agents {
            lab.agents().map(Server::Agent).try_for_each(|agent| lab.kill(agent))?;
        }
        // As power loss leaves the end of a log that was being written.
        let torn = 1 + round % 3;
        disk::append_half_a_record(&lab.data(torn))?;
        NODES.into_iter().try_for_each(|node| lab.launch(node))?;
        if with_agents {
            lab.agents().map(Server::Agent).try_for_each(|agent| lab.launch(agent))?;
        }
        println!("round {round}: works after {:?}", load.progress()?);
        lab.says(Server::Node(torn), "cut a torn tail")?;
    }
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}

#[test]
fn x10_they_start_in_any_order_and_the_store_last() -> anyhow::Result<()> {
    let mut lab = Lab::prepare(Shape { bucket: true, ..Shape::default() })?;
    lab.launch(Server::Agent(0))?;
    lab.until("the agent answers at /readyz", |lab| lab.readiness(0).is_ok())?;
    let (code, why) = lab.readiness(0)?;
    ensure!(code == 503 && why.contains("metadata"), "{code}: {why}");
    for place in [3, 2, 1] {
        lab.launch(Server::Node(place))?;
        sleep(millis(300));
    }
    lab.launch(Server::Agent(1))?;
    sleep(millis(700));
    ensure!(lab.readiness(0)?.0 == 503, "nobody claimed the bucket, and an agent serves");
    lab.all_running()?;
    lab.launch(Server::Store)?;
    lab.agents().try_for_each(|agent| lab.ready(agent))?;
    let mut load = Load::start(&mut lab, &shape())?;
    // And again, with data.
    NODES.into_iter().try_for_each(|node| lab.kill(node))?;
    lab.agents().map(Server::Agent).try_for_each(|agent| lab.kill(agent))?;
    for server in [Server::Agent(1), Server::Node(2), Server::Agent(0), Server::Node(3)] {
        lab.launch(server)?;
        sleep(millis(200));
    }
    println!("two of three work after {:?}", load.progress()?);
    lab.launch(Server::Node(1))?;
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}

/// librdkafka produces, Java consumes.
#[test]
fn x1_x3_real_clients_lose_nothing_while_leaders_and_agents_are_killed() -> anyhow::Result<()> {
    let mut lab = Lab::start(Shape::default())?;
    let folder = lab.path("");
    let bootstrap = lab.address(Server::Agent(1));
    nothing_is_lost_while(bootstrap, &folder, || {
        for round in 0..rounds(4) {
            sleep(millis(600));
            if round % 2 == 0 {
                let leader = lab.leader()?;
                lab.restart(Server::Node(leader))?;
                caught_up(&mut lab, leader)?;
            } else {
                let agent = round / 2 % 2;
                lab.restart(Server::Agent(agent))?;
                lab.ready(agent)?;
            }
        }
        Ok(())
    })
}

/// Where distributions put the library that fakes a process's wall clock.
fn faketime() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    let paths = folders.map(|folder| Path::new(folder).join("faketime/libfaketime.so.1"));
    paths.into_iter().find(|path| path.exists())
}

#[test]
fn x20_wall_clocks_jump() -> anyhow::Result<()> {
    let Some(library) = faketime() else {
        println!("SKIPPED: it needs libfaketime");
        return Ok(());
    };
    let mut lab = Lab::start(Shape { faketime: Some(library), ..Shape::default() })?;
    let mut load = Load::start(&mut lab, &shape())?;
    let agents = lab.agents().map(Server::Agent);
    let everybody: Vec<Server> = NODES.into_iter().chain(agents).collect();
    for off in ["+3600", "-3600", "+10y", "-10y", "+0"] {
        let leader = Server::Node(lab.leader()?);
        for servers in [&[leader][..], &[Server::Agent(0)], &everybody] {
            let from = load.now();
            servers.iter().try_for_each(|server| lab.set_clock(*server, off))?;
            sleep(millis(if full() { 5000 } else { 200 }));
            let pause = load.longest_pause(from);
            ensure!(pause < Duration::from_secs(2), "{off} at {servers:?}: {pause:?} without ack");
        }
        lab.all_running()?;
    }
    ensure!(!lab.log(Server::Agent(0)).contains("fenced"), "a jump ended a session");
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}
