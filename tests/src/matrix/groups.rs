//! Which client went through what as a member of a group, and the table of it.

use std::{collections::BTreeMap, fmt::Write, sync::Mutex};

use anyhow::{Context, ensure};

use super::{brief, tables};
use crate::client::{ALL, Client, Protocol};

/// A kind of group: its protocol, and whether members are of several families.
type Column = (Protocol, bool);

/// The columns, and what stands above each.
const COLUMNS: [(Column, &str); 6] = [
    ((Protocol::Eager, false), "eager"),
    ((Protocol::Cooperative, false), "cooperative"),
    ((Protocol::Consumer, false), "KIP-848"),
    ((Protocol::Eager, true), "eager, mixed"),
    ((Protocol::Cooperative, true), "cooperative, mixed"),
    ((Protocol::Consumer, true), "KIP-848, mixed"),
];

/// What came of each client in each kind of group.
#[derive(Default)]
pub struct Groups {
    cells: Mutex<BTreeMap<(Client, Column), Result<(), String>>>,
}

impl Groups {
    /// Keeps what came of a group of `clients`; of several outcomes the failure.
    pub fn note(&self, protocol: Protocol, clients: &[Client], outcome: &anyhow::Result<()>) {
        let cell = outcome.as_ref().map_or_else(|why| Err(brief(&format!("{why:#}"))), |()| Ok(()));
        let is_mixed = clients.iter().any(|client| *client != clients[0]);
        let mut cells = self.cells.lock().expect("no thread panics with it");
        for client in clients {
            let kept = cells.entry((*client, (protocol, is_mixed))).or_insert_with(|| cell.clone());
            if kept.is_ok() {
                kept.clone_from(&cell);
            }
        }
    }

    /// A row per client whose program can be a member.
    pub fn markdown(&self) -> String {
        let cells = self.cells.lock().expect("no thread panics with it");
        let mut text = "## groups\n\n| client |".to_owned();
        for (_, name) in COLUMNS {
            let _infallible = write!(text, " {name} |");
        }
        text.push_str("\n|---|---|---|---|---|---|---|\n");
        for client in ALL.into_iter().filter(|client| !client.protocols().is_empty()) {
            let _infallible = write!(text, "| {client:?} |");
            for ((protocol, is_mixed), _) in COLUMNS {
                let can = client.protocols().contains(&protocol) && (client.mixes() || !is_mixed);
                let told = match cells.get(&(client, (protocol, is_mixed))) {
                    Some(Ok(())) => "yes",
                    Some(Err(_)) => "**FAILED**",
                    None if can => "not run",
                    None => "–",
                };
                let _infallible = write!(text, " {told} |");
            }
            text.push('\n');
        }
        text
    }

    /// Writes the table beside the others, and fails with every failure.
    pub fn finish(self) -> anyhow::Result<()> {
        let (file, text) = (tables()?.join("groups.md"), self.markdown());
        std::fs::write(&file, &text).with_context(|| format!("write {}", file.display()))?;
        println!("{text}");
        let cells = self.cells.into_inner().expect("no thread panics with it");
        let failed = cells.into_iter().filter_map(|((client, (protocol, is_mixed)), cell)| {
            let company = if is_mixed { "among others" } else { "alone" };
            Some(format!("{client:?}, {protocol:?}, {company}: {}", cell.err()?))
        });
        let failures: Vec<String> = failed.collect();
        ensure!(failures.is_empty(), "groups:\n{}", failures.join("\n"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_groups_says_who_failed_who_cannot_and_who_was_not_asked() {
        let groups = Groups::default();
        let broken = Err(anyhow::anyhow!("no partition"));
        groups.note(Protocol::Eager, &[Client::Java; 2], &broken);
        groups.note(Protocol::Eager, &[Client::Java; 2], &Ok(()));
        groups.note(Protocol::Eager, &[Client::Java, Client::Sarama], &Ok(()));
        let text = groups.markdown();
        let row = |name: &str| text.lines().find(|line| line.starts_with(&format!("| {name} |")));
        let java = "| Java | **FAILED** | not run | not run | yes | not run | not run |";
        assert_eq!(row("Java"), Some(java));
        assert_eq!(row("Sarama"), Some("| Sarama | not run | – | – | yes | – | – |"));
        assert_eq!(row("KafkaJs"), Some("| KafkaJs | not run | – | – | – | – | – |"));
        assert_eq!(row("Rskafka"), None);
    }
}
