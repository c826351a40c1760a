//! The Raft crate's own suite for stores, run on the log store and state machine together.
#![cfg(feature = "server")]

use std::sync::Arc;

use aquifer_metadata::{
    machine::{Genesis, MetadataState, effect::Effect},
    raft::{
        TypeConfig,
        log_store::LogStore,
        snapshot_file::SnapshotFiles,
        state_machine::{ApplySink, StateMachine},
    },
    wal::{Wal, WalConfig, disk::FsDisk},
};
use aquifer_storage::{
    model::{Lineage, LogIndex},
    seam::system,
};
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

struct Nobody;

impl ApplySink for Nobody {
    fn applied(&self, _: LogIndex, _: Vec<Effect>, _: &MetadataState) {}
    fn installed(&self, _: LogIndex, _: &MetadataState) {}
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let (files, newest) = SnapshotFiles::open(folder.path()).unwrap();
        let config = WalConfig::new("suite", 1, 7);
        let (wal, _) = Wal::open(Arc::new(FsDisk::new(folder.path())), &config).unwrap();
        let lineage = Lineage { number: 0, nonce: 1 };
        let genesis = MetadataState::new(Genesis { cluster_id: "suite".into(), lineage });
        let machine = StateMachine::new(files, newest, genesis, Arc::new(Nobody)).unwrap();
        Ok((folder, LogStore::new(wal, system::seams()), machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_stores_keep_every_law_of_the_raft_crate() {
    Suite::test_all(Builder).await.unwrap();
}
