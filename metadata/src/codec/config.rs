//! Changes of configs, their replies, and the overrides of a resource.

use super::{
    CodecError, NAME_BYTES_MAX, configs_from_proto, configs_to_proto, name, topic_from_proto,
    topic_to_proto,
};
use crate::{
    machine::config::{
        AlterConfigs, ConfigAction, ConfigChange, ConfigKey, ConfigKind, ConfigOp, ConfigOrder,
        ConfigRejected, ConfigResource, ListChange, Overrides, RESOURCE_CONFIGS_MAX,
    },
    proto::{
        self, alter_configs::Change, alter_configs::Resource, config_key::Kind, config_op::Action,
        configs_outcome::Outcome,
    },
};

/// The longest name of a group or of a client metrics subscription, as a Kafka string may be.
pub const RESOURCE_NAME_BYTES_MAX: usize = 32_767;

/// Orders of one change: a handful of rules know of two configs each.
const ORDERS_MAX: usize = 64;

/// A change as a message.
pub(super) fn alter_to_proto(alter: &AlterConfigs) -> proto::AlterConfigs {
    let resource = match &alter.resource {
        ConfigResource::Topic(topic) => Resource::Topic(topic_to_proto(*topic)),
        ConfigResource::Other(key) => Resource::Other(key_to_proto(key)),
    };
    let change = match &alter.change {
        ConfigChange::Incremental(ops) => {
            Change::Incremental(proto::ConfigOps { ops: ops.iter().map(op_to_proto).collect() })
        }
        ConfigChange::Replace(overrides) => {
            Change::Replace(proto::Configs { configs: configs_to_proto(overrides) })
        }
    };
    let order = |order: &ConfigOrder| order_to_proto(&order.lesser, &order.greater);
    proto::AlterConfigs {
        resource: Some(resource),
        change: Some(change),
        orders: alter.orders.iter().map(order).collect(),
    }
}

/// A change from a message.
pub(super) fn alter_from_proto(alter: proto::AlterConfigs) -> Result<AlterConfigs, CodecError> {
    let resource = match alter.resource.ok_or(CodecError::Missing("config resource"))? {
        Resource::Topic(topic) => ConfigResource::Topic(topic_from_proto(&topic)?),
        Resource::Other(key) => ConfigResource::Other(key_from_proto(Some(key))?),
    };
    let change = match alter.change.ok_or(CodecError::Missing("config change"))? {
        Change::Incremental(ops) if ops.ops.len() > RESOURCE_CONFIGS_MAX => {
            return Err(CodecError::TooLong("config operations"));
        }
        Change::Incremental(ops) => ConfigChange::Incremental(
            ops.ops.into_iter().map(op_from_proto).collect::<Result<_, _>>()?,
        ),
        Change::Replace(replace) => {
            let overrides = configs_from_proto(replace.configs)?;
            overrides.keys().try_for_each(|key| config_name(key))?;
            ConfigChange::Replace(overrides)
        }
    };
    if alter.orders.len() > ORDERS_MAX {
        return Err(CodecError::TooLong("config orders"));
    }
    let order =
        |order| order_from_proto(order).map(|(lesser, greater)| ConfigOrder { lesser, greater });
    let orders = alter.orders.into_iter().map(order).collect::<Result<_, _>>()?;
    Ok(AlterConfigs { resource, change, orders })
}

fn op_to_proto(op: &ConfigOp) -> proto::ConfigOp {
    let list = |list: &ListChange| proto::ListChange {
        items: list.items.clone(),
        default: list.default.clone(),
    };
    let action = match &op.action {
        ConfigAction::Set(value) => Action::Set(value.clone()),
        ConfigAction::Delete => Action::Delete(proto::Done {}),
        ConfigAction::Append(change) => Action::Append(list(change)),
        ConfigAction::Subtract(change) => Action::Subtract(list(change)),
    };
    proto::ConfigOp { name: op.name.clone(), action: Some(action) }
}

fn op_from_proto(op: proto::ConfigOp) -> Result<ConfigOp, CodecError> {
    config_name(&op.name)?;
    let list = |list: proto::ListChange| ListChange { items: list.items, default: list.default };
    let action = match op.action.ok_or(CodecError::Missing("config action"))? {
        Action::Set(value) => ConfigAction::Set(value),
        Action::Delete(proto::Done {}) => ConfigAction::Delete,
        Action::Append(change) => ConfigAction::Append(list(change)),
        Action::Subtract(change) => ConfigAction::Subtract(list(change)),
    };
    Ok(ConfigOp { name: op.name, action })
}

fn config_name(name: &str) -> Result<(), CodecError> {
    if name.len() > NAME_BYTES_MAX { Err(CodecError::TooLong("config name")) } else { Ok(()) }
}

type Number = (String, i64);

fn order_to_proto(lesser: &Number, greater: &Number) -> proto::ConfigOrder {
    let number =
        |(name, number): &Number| proto::ConfigNumber { name: name.clone(), number: *number };
    proto::ConfigOrder { lesser: Some(number(lesser)), greater: Some(number(greater)) }
}

fn order_from_proto(order: proto::ConfigOrder) -> Result<(Number, Number), CodecError> {
    let number = |number: Option<proto::ConfigNumber>| {
        let number = number.ok_or(CodecError::Missing("config number"))?;
        config_name(&number.name)?;
        Ok::<_, CodecError>((number.name, number.number))
    };
    Ok((number(order.lesser)?, number(order.greater)?))
}

fn key_to_proto(key: &ConfigKey) -> proto::ConfigKey {
    let kind = match key.kind {
        ConfigKind::Broker => Kind::Broker,
        ConfigKind::Group => Kind::Group,
        ConfigKind::ClientMetrics => Kind::ClientMetrics,
        ConfigKind::GroupDefaults => Kind::GroupDefaults,
    };
    proto::ConfigKey { kind: kind.into(), name: key.name.clone() }
}

fn key_from_proto(key: Option<proto::ConfigKey>) -> Result<ConfigKey, CodecError> {
    let key = key.ok_or(CodecError::Missing("config resource"))?;
    let kind = match key.kind() {
        Kind::Broker => ConfigKind::Broker,
        Kind::Group => ConfigKind::Group,
        Kind::ClientMetrics => ConfigKind::ClientMetrics,
        Kind::GroupDefaults => ConfigKind::GroupDefaults,
        Kind::Unspecified => return Err(CodecError::Missing("kind of config resource")),
    };
    Ok(ConfigKey { kind, name: name(key.name, "resource name", RESOURCE_NAME_BYTES_MAX)? })
}

/// A resource with its overrides as a message.
pub(super) fn resource_to_proto(key: &ConfigKey, overrides: &Overrides) -> proto::ResourceConfigs {
    proto::ResourceConfigs { key: Some(key_to_proto(key)), configs: configs_to_proto(overrides) }
}

/// A resource with its overrides from a message.
pub(super) fn resource_from_proto(
    resource: proto::ResourceConfigs,
) -> Result<(ConfigKey, Overrides), CodecError> {
    Ok((key_from_proto(resource.key)?, configs_from_proto(resource.configs)?))
}

/// The reply to a change as a message.
pub(super) fn outcome_to_proto(outcome: &Result<(), ConfigRejected>) -> proto::ConfigsOutcome {
    let done = proto::Done {};
    let outcome = match outcome {
        Ok(()) => Outcome::Done(done),
        Err(ConfigRejected::UnknownTopic) => Outcome::UnknownTopic(done),
        Err(ConfigRejected::Order { lesser, greater }) => {
            Outcome::Order(order_to_proto(lesser, greater))
        }
        Err(ConfigRejected::ResourceFull) => Outcome::ResourceFull(done),
        Err(ConfigRejected::StoreFull) => Outcome::StoreFull(done),
    };
    proto::ConfigsOutcome { outcome: Some(outcome) }
}

/// The reply to a change from a message.
pub(super) fn outcome_from_proto(
    outcome: proto::ConfigsOutcome,
) -> Result<Result<(), ConfigRejected>, CodecError> {
    Ok(match outcome.outcome.ok_or(CodecError::Missing("configs outcome"))? {
        Outcome::Done(_) => Ok(()),
        Outcome::UnknownTopic(_) => Err(ConfigRejected::UnknownTopic),
        Outcome::Order(order) => {
            let (lesser, greater) = order_from_proto(order)?;
            Err(ConfigRejected::Order { lesser, greater })
        }
        Outcome::ResourceFull(_) => Err(ConfigRejected::ResourceFull),
        Outcome::StoreFull(_) => Err(ConfigRejected::StoreFull),
    })
}
