//! `aquifer cluster status --bootstrap`: the cluster as its clients see it.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{
    World,
    client::{ANY, Client, ClientError, ConnectArgs},
    output::{Format, Output, Table},
};
use crate::wire::{
    ApiKey, Str,
    client::address_of,
    messages::{
        DescribeClusterRequest, DescribeClusterResponse, DescribeQuorumRequest,
        DescribeQuorumRequestTopics, DescribeQuorumRequestTopicsPartitions, DescribeQuorumResponse,
        DescribeQuorumResponseTopicsPartitionsCurrentVoters as VoterRow,
    },
};

#[derive(Serialize)]
struct Document {
    cluster_id: Option<String>,
    brokers: Vec<Broker>,
    /// `None` when the cluster does not tell.
    quorum: Option<Quorum>,
}

#[derive(Serialize)]
struct Broker {
    id: i32,
    address: String,
    rack: Option<String>,
    /// Whether it takes changes of the cluster.
    controller: bool,
    fenced: bool,
}

#[derive(Serialize)]
struct Quorum {
    leader: i32,
    term: i32,
    high_watermark: i64,
    nodes: Vec<QuorumNode>,
}

#[derive(Serialize)]
struct QuorumNode {
    id: i32,
    voter: bool,
    log_end_offset: i64,
    /// How many entries it is behind the leader.
    lag: i64,
}

/// Prints the brokers and the metadata quorum, as any Kafka cluster tells them.
///
/// # Errors
/// Nobody answers.
pub async fn run(connect: &ConnectArgs, format: Format, world: &World) -> anyhow::Result<()> {
    let mut client = Client::connect(connect, world.seams.clone()).await?;
    let mut output = Output::new(world.terminal);
    let document = described(&mut client).await?;
    if format == Format::Json {
        return Ok(output.document(&document)?);
    }
    let id = document.cluster_id.as_deref().unwrap_or("without an id");
    output.title(&format!("cluster {id}"))?;
    let mut table = Table::new(&["broker", "address", "rack", "role"]);
    for broker in &document.brokers {
        let rack = broker.rack.clone().unwrap_or_else(|| "-".to_owned());
        let role = match (broker.fenced, broker.controller) {
            (true, _) => "fenced",
            (false, true) => "takes changes",
            (false, false) => "",
        };
        table.row([broker.id.to_string(), broker.address.clone(), rack, role.to_owned()]);
    }
    output.table(&table)?;
    let Some(quorum) = &document.quorum else { return Ok(()) };
    output.text("\n")?;
    output.title(&format!("metadata quorum, led by {} in term {}", quorum.leader, quorum.term))?;
    let mut table = Table::new(&["node", "role", "log end", "lag"]);
    for node in &quorum.nodes {
        let role = match (node.id == quorum.leader, node.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "observer",
        };
        let (end, lag) = (node.log_end_offset.to_string(), node.lag.to_string());
        table.row([node.id.to_string(), role.to_owned(), end, lag]);
    }
    Ok(output.table(&table)?)
}

async fn described(client: &mut Client) -> Result<Document, ClientError> {
    let cluster = client.cluster(Some(&[])).await?;
    let addresses = client.brokers().clone();
    let mut brokers: BTreeMap<i32, Broker> = addresses
        .iter()
        .map(|(id, address)| {
            let (controller, address) = (cluster.controller == Some(*id), address.clone());
            (*id, Broker { id: *id, address, rack: None, controller, fenced: false })
        })
        .collect();
    let any = client.bootstrapped().await?;
    if client.serves(&any, ApiKey::DescribeCluster).await? {
        let request = DescribeClusterRequest {
            endpoint_type: 1,
            include_fenced_brokers: true,
            ..DescribeClusterRequest::default()
        };
        let answer: DescribeClusterResponse =
            client.call_at(&any, ANY, &request, Duration::ZERO).await?;
        let message = answer.error_message.as_deref();
        ClientError::check_told(|| "DescribeCluster".to_owned(), answer.error_code, message)?;
        for row in &answer.brokers {
            let broker = Broker {
                id: row.broker_id,
                address: address_of(&row.host, row.port),
                rack: row.rack.as_ref().map(Str::to_string),
                controller: cluster.controller == Some(row.broker_id),
                fenced: row.is_fenced,
            };
            brokers.insert(row.broker_id, broker);
        }
    }
    let quorum = match client.serves(&any, ApiKey::DescribeQuorum).await? {
        true => quorum(client, &any).await?,
        false => None,
    };
    Ok(Document { cluster_id: cluster.id, brokers: brokers.into_values().collect(), quorum })
}

async fn quorum(client: &mut Client, broker: &str) -> Result<Option<Quorum>, ClientError> {
    let partition = DescribeQuorumRequestTopicsPartitions { partition_index: 0 };
    let topic = DescribeQuorumRequestTopics {
        topic_name: Str::from_static("__cluster_metadata"),
        partitions: vec![partition],
    };
    let request = DescribeQuorumRequest { topics: vec![topic] };
    let answer: DescribeQuorumResponse =
        client.call_at(broker, ANY, &request, Duration::ZERO).await?;
    let subject = || "the metadata quorum".to_owned();
    ClientError::check_told(subject, answer.error_code, answer.error_message.as_deref())?;
    let Some(told) = answer.topics.first().and_then(|topic| topic.partitions.first()) else {
        return Ok(None);
    };
    ClientError::check_told(subject, told.error_code, told.error_message.as_deref())?;
    let voters = told.current_voters.iter();
    let voters = voters.map(|row: &VoterRow| (row.replica_id, true, row.log_end_offset));
    let observers = told.observers.iter().map(|row| (row.replica_id, false, row.log_end_offset));
    let rows: Vec<(i32, bool, i64)> = voters.chain(observers).collect();
    let leader_end = rows.iter().find(|(id, ..)| *id == told.leader_id).map(|(.., end)| *end);
    let nodes = rows.into_iter().map(|(id, voter, end)| QuorumNode {
        id,
        voter,
        log_end_offset: end,
        lag: leader_end.map_or(0, |leader_end| (leader_end - end).max(0)),
    });
    Ok(Some(Quorum {
        leader: told.leader_id,
        term: told.leader_epoch,
        high_watermark: told.high_watermark,
        nodes: nodes.collect(),
    }))
}
