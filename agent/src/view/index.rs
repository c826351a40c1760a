//! The catalog and its index by name [pure].

use std::{collections::BTreeMap, sync::Arc};

use aquifer_metadata::watch::{Catalog, CatalogNode, CatalogTopic, ResourceConfigs};
use aquifer_storage::model::TopicId;

/// The catalog as a whole with deltas folded in.
#[derive(Debug, Default)]
pub(super) struct CatalogIndex {
    catalog: Arc<Catalog>,
    by_name: BTreeMap<String, TopicId>,
}

impl CatalogIndex {
    /// The catalog now.
    pub(super) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }

    /// The topic of this id.
    pub(super) fn topic(&self, topic: TopicId) -> Option<Arc<CatalogTopic>> {
        self.catalog.topics.get(&topic).cloned()
    }

    /// The topic of this name.
    pub(super) fn topic_by_name(&self, name: &str) -> Option<Arc<CatalogTopic>> {
        self.by_name.get(name).and_then(|topic| self.topic(*topic))
    }

    /// Takes a whole catalog.
    pub(super) fn replace(&mut self, catalog: Arc<Catalog>) {
        self.by_name =
            catalog.topics.values().map(|topic| (topic.name.clone(), topic.id)).collect();
        self.catalog = catalog;
    }

    /// A topic was created or changed.
    pub(super) fn put_topic(&mut self, topic: Arc<CatalogTopic>) {
        self.by_name.insert(topic.name.clone(), topic.id);
        Arc::make_mut(&mut self.catalog).topics.insert(topic.id, topic);
    }

    /// A topic is gone. Its name may already belong to a newer one.
    pub(super) fn drop_topic(&mut self, topic: TopicId) {
        let Some(gone) = Arc::make_mut(&mut self.catalog).topics.remove(&topic) else { return };
        if self.by_name.get(&gone.name) == Some(&topic) {
            self.by_name.remove(&gone.name);
        }
    }

    /// The overrides of a resource changed.
    pub(super) fn put_configs(&mut self, told: &ResourceConfigs) {
        let configs = &mut Arc::make_mut(&mut self.catalog).configs;
        if told.overrides.is_empty() {
            configs.remove(&told.key);
        } else {
            configs.insert(told.key.clone(), Arc::clone(&told.overrides));
        }
    }

    /// The live agents, whole.
    pub(super) fn replace_nodes(&mut self, nodes: Vec<CatalogNode>) {
        Arc::make_mut(&mut self.catalog).nodes = nodes;
    }
}
