//! The cloud layout on one machine: agents in three zones behind HAProxy, one metadata node, S3.

use std::{net::SocketAddr, path::Path, process::Command};

use crate::process::{
    Place, Process, free_address, metadata_node, minio, s3_environment, wait_ready,
};
use crate::stub::StoreStub;

/// All its processes, killed when dropped.
pub struct Cluster {
    /// What clients connect to: HAProxy, or the first agent where there is none.
    pub balancer: SocketAddr,
    /// The proxy before the S3 server.
    pub store: StoreStub,
    metadata_place: Place,
    metadata_address: SocketAddr,
    metadata: Process,
    agents: Vec<(Place, Process)>,
    _haproxy: Option<Process>,
    _minio: Process,
}

impl Cluster {
    /// Starts everything, with data in `folder`.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        Self::begin(folder, true)
    }

    /// As [`Cluster::start`], without HAProxy: clients are told of each agent at its own address.
    pub fn start_without_balancer(folder: &Path) -> anyhow::Result<Self> {
        Self::begin(folder, false)
    }

    fn begin(folder: &Path, balanced: bool) -> anyhow::Result<Self> {
        let (minio, s3) = minio(&folder.join("minio"))?;
        let store = StoreStub::before(s3)?;
        let balancer = free_address()?;
        let mut place = Place::new(folder.join("data"))?;
        place.store = Some("s3://aquifer/test".to_owned());
        place.environment = s3_environment(store.address);
        let metadata_address = free_address()?;
        let metadata = metadata_node(&place, metadata_address)?;
        let mut agents = Vec::new();
        for zone in ["a", "b", "c"] {
            let mut agent = place.clone();
            (agent.kafka, agent.http) = (free_address()?, free_address()?);
            agent.arguments = vec!["--zone".to_owned(), zone.to_owned()];
            if balanced {
                agent.arguments.extend(["--advertise".to_owned(), balancer.to_string()]);
            }
            let process = agent.agent(metadata_address)?;
            agents.push((agent, process));
        }
        let places: Vec<&Place> = agents.iter().map(|(place, _)| place).collect();
        let haproxy = match balanced {
            true => Some(haproxy(folder, balancer, &places)?),
            false => None,
        };
        Ok(Self {
            balancer: if balanced { balancer } else { places[0].kafka },
            store,
            metadata_place: place,
            metadata_address,
            metadata,
            agents,
            _haproxy: haproxy,
            _minio: minio,
        })
    }

    /// Kills agent `index` (modulo three) as `kill -9` does and starts it again.
    pub fn restart_agent(&mut self, index: usize) -> anyhow::Result<()> {
        let index = index % self.agents.len();
        let (place, process) = &mut self.agents[index];
        process.kill()?;
        *process = place.agent(self.metadata_address)?;
        Ok(())
    }

    /// Kills the metadata node as `kill -9` does and starts it again.
    pub fn restart_metadata(&mut self) -> anyhow::Result<()> {
        self.metadata.kill()?;
        self.metadata = metadata_node(&self.metadata_place, self.metadata_address)?;
        Ok(())
    }
}

/// HAProxy in TCP mode over `agents`, checked at `/readyz`.
fn haproxy(folder: &Path, listen: SocketAddr, agents: &[&Place]) -> anyhow::Result<Process> {
    let status = free_address()?;
    let mut text = format!(
        "defaults\n  mode tcp\n  timeout client 10m\n  timeout server 10m\n  timeout connect 2s\n\
         frontend status\n  bind {status}\n  mode http\n  monitor-uri /up\n\
         listen kafka\n  bind {listen}\n  balance roundrobin\n  option redispatch\n  \
         option httpchk GET /readyz\n"
    );
    for (index, Place { kafka, http, .. }) in agents.iter().enumerate() {
        let line = format!("  server agent{index} {kafka} check port {} inter 500\n", http.port());
        text.push_str(&line);
    }
    let path = folder.join("haproxy.cfg");
    std::fs::write(&path, text)?;
    let mut process =
        Process::start("haproxy", Command::new("haproxy").arg("-db").arg("-f").arg(path))?;
    wait_ready(&mut process, status, "/up")?;
    Ok(process)
}
