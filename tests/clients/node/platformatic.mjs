// @platformatic/kafka behind the common command line of README.md.

import { Admin, Consumer, Producer } from '@platformatic/kafka'
import common from './common.cjs'

const TOPIC = 2 // A resource of DescribeConfigs.
const SET = 0 // An operation of IncrementalAlterConfigs.
const EARLIEST = -2n
const LATEST = -1n

async function produce (bootstrap, topic, compression, path, idempotent = false) {
  const producer = new Producer({
    clientId: 'producer',
    bootstrapBrokers: [bootstrap],
    autocreateTopics: true,
    idempotent
  })
  for (const records of common.batches(common.read(path))) {
    const messages = records.map(({ key, value, headers, timestamp }) => ({
      topic,
      partition: 0,
      key,
      value,
      headers: new Map(headers.map(([name, value]) => [Buffer.from(name), value])),
      timestamp: BigInt(timestamp)
    }))
    const { offsets } = await producer.send({ messages, compression })
    messages.forEach((_, index) => console.log(Number(offsets[0].offset) + index))
  }
  await producer.close()
}

async function consume (bootstrap, topic, groupId, count) {
  const consumer = new Consumer({ clientId: 'consumer', groupId, bootstrapBrokers: [bootstrap] })
  const stream = await consumer.consume({
    topics: [topic],
    autocommit: true,
    fallbackMode: 'earliest',
    mode: 'committed'
  })
  let left = Number(count)
  for await (const { key, value, headers, timestamp, offset } of stream) {
    const pairs = [...headers].map(([name, value]) => [name.toString(), value])
    common.show(key, value, pairs, timestamp, offset)
    if (--left === 0) break
  }
  await consumer.close(true)
}

// The admin calls of README.md.
async function administrate (bootstrap, topic, old, group, time) {
  const admin = new Admin({ clientId: 'admin', bootstrapBrokers: [bootstrap] })
  const create = async () => {
    const configs = [{ name: 'retention.ms', value: common.KEEP_MS }]
    await admin.createTopics({ topics: [topic], partitions: 3, replicas: 1, configs })
    return 'ok'
  }
  const codeOf = error => error.apiCode ?? (error.errors ?? []).map(codeOf).find(Boolean)
  const known = async () => (await admin.listTopics()).includes(topic)
  const partitions = async () =>
    (await admin.metadata({ topics: [topic], forceUpdate: true })).topics.get(topic).partitionsCount
  const retention = async () => {
    const resources = [{
      resourceType: TOPIC,
      resourceName: topic,
      configurationKeys: ['retention.ms']
    }]
    return (await admin.describeConfigs({ resources }))[0].configs[0].value
  }
  const offset = async timestamp => {
    const partitions = [{ partitionIndex: 0, timestamp: BigInt(timestamp) }]
    const [answer] = await admin.listOffsets({ topics: [{ name: old, partitions }] })
    return Number(answer.partitions[0].offset)
  }
  const listed = async () => (await admin.listGroups()).has(group)
  await common.steps({
    'create-topic': create,
    'create-again': () => create().catch(codeOf),
    'list-topics': () => common.until(true, known),
    'describe-topic': partitions,
    'create-partitions': async () => {
      await admin.createPartitions({ topics: [{ name: topic, count: 5, assignments: null }] })
      return common.until(5, partitions)
    },
    'describe-configs': retention,
    'alter-configs': async () => {
      const value = common.KEEP_LONGER_MS
      const configs = [{ name: 'retention.ms', configOperation: SET, value }]
      const resources = [{ resourceType: TOPIC, resourceName: topic, configs }]
      await admin.incrementalAlterConfigs({ resources })
      return common.until(value, retention)
    },
    'list-offsets': async () =>
      `${await offset(EARLIEST)} ${await offset(LATEST)} ${await offset(time)}`,
    'delete-records': async () => {
      const partitions = [{ partition: 0, offset: BigInt(common.DELETE_BEFORE) }]
      await admin.deleteRecords({ topics: [{ name: old, partitions }] })
      return common.until(common.DELETE_BEFORE, () => offset(EARLIEST))
    },
    'list-groups': listed,
    'describe-group': async () => {
      const { state } = (await admin.describeGroups({ groups: [group] })).get(group)
      return state[0] + state.slice(1).toLowerCase()
    },
    'committed-offsets': async () => {
      const [answer] = await admin.listConsumerGroupOffsets({ groups: [group] })
      return answer.topics[0].partitions[0].committedOffset
    },
    'delete-group': async () => {
      await admin.deleteGroups({ groups: [group] })
      return common.until(false, listed)
    },
    'delete-topic': async () => {
      await admin.deleteTopics({ topics: [topic] })
      return common.until(false, known)
    }
  })
  await admin.close()
}

await common.main({
  produce,
  idempotent: (bootstrap, topic, codec, path) => produce(bootstrap, topic, codec, path, true),
  consume,
  admin: administrate
})
