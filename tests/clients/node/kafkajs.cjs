// KafkaJS behind the common command line of README.md.

const { CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs')
const common = require('./common.cjs')

// It asks for a partitioner to be chosen, but every record here names its partition.
process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'

const cluster = bootstrap => new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR })

async function produce (bootstrap, topic, codec, path, idempotent = false) {
  const producer = cluster(bootstrap).producer({ idempotent })
  await producer.connect()
  for (const records of common.batches(common.read(path))) {
    const messages = records.map(({ key, value, headers, timestamp }) => ({
      key,
      value,
      headers: Object.fromEntries(headers),
      timestamp: String(timestamp),
      partition: 0
    }))
    const compression = CompressionTypes[codec === 'none' ? 'None' : codec.toUpperCase()]
    const [{ baseOffset }] = await producer.send({ topic, messages, compression })
    messages.forEach((_, index) => console.log(Number(baseOffset) + index))
  }
  await producer.disconnect()
}

async function consume (bootstrap, topic, groupId, count) {
  const consumer = cluster(bootstrap).consumer({ groupId })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  let left = Number(count)
  let last
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error))
    consumer.run({
      eachMessage: async ({ message: { key, value, headers, timestamp, offset } }) => {
        if (left === 0) return
        common.show(key, value, Object.entries(headers ?? {}), timestamp, offset)
        last = offset
        if (--left === 0) resolve()
      }
    }).catch(reject)
  })
  await consumer.commitOffsets([{ topic, partition: 0, offset: String(Number(last) + 1) }])
  await consumer.disconnect()
}

// Reads as a member of a group until the file `stop` exists, then leaves. Prints "assigned P,P" at
// each rebalance and "record P OFFSET VALUE" once a record is committed. Its assignor is its own.
async function group (bootstrap, topic, groupId, stop) {
  const consumer = cluster(bootstrap).consumer({
    groupId, sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTimeInMs: 500
  })
  consumer.on(consumer.events.GROUP_JOIN, ({ payload: { memberAssignment } }) => {
    console.log(`assigned ${(memberAssignment[topic] ?? []).join(',')}`)
  })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch: { partition, messages }, commitOffsetsIfNecessary }) => {
      const offset = String(Number(messages.at(-1).offset) + 1)
      // Where it is refused it throws, and what was read is read again.
      await commitOffsetsIfNecessary({ topics: [{ topic, partitions: [{ partition, offset }] }] })
      for (const { offset, value } of messages) console.log(`record ${partition} ${offset} ${value}`)
    }
  })
  await common.stopped(stop)
  // It waits for ever for a fetcher that ended while the broker was away; its session then ends.
  setTimeout(() => process.exit(0), 5000).unref()
  await consumer.disconnect()
}

// The admin calls of README.md.
async function administrate (bootstrap, topic, old, group, time) {
  const admin = cluster(bootstrap).admin()
  await admin.connect()
  const create = async () => {
    const configEntries = [{ name: 'retention.ms', value: common.KEEP_MS }]
    // It swallows TOPIC_ALREADY_EXISTS, and then says false.
    const topics = [{ topic, numPartitions: 3, replicationFactor: 1, configEntries }]
    return (await admin.createTopics({ topics })) ? 'ok' : 36
  }
  const known = async () => (await admin.listTopics()).includes(topic)
  const partitions = async () =>
    (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  const retention = async () => {
    const asked = [{ ...resource, configNames: ['retention.ms'] }]
    const answer = await admin.describeConfigs({ resources: asked, includeSynonyms: false })
    return answer.resources[0].configEntries[0].configValue
  }
  const earliest = async () => Number((await admin.fetchTopicOffsets(old))[0].low)
  const listed = async () =>
    (await admin.listGroups()).groups.some(({ groupId }) => groupId === group)
  await common.steps({
    'create-topic': create,
    'create-again': create,
    'list-topics': () => common.until(true, known),
    'describe-topic': partitions,
    'create-partitions': async () => {
      await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
      return common.until(5, partitions)
    },
    'describe-configs': retention,
    'alter-configs': async () => {
      const configEntries = [{ name: 'retention.ms', value: common.KEEP_LONGER_MS }]
      await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries }] })
      return common.until(common.KEEP_LONGER_MS, retention)
    },
    'list-offsets': async () => {
      const [{ low, high }] = await admin.fetchTopicOffsets(old)
      const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(old, Number(time))
      return `${low} ${high} ${offset}`
    },
    'delete-records': async () => {
      const partitions = [{ partition: 0, offset: String(common.DELETE_BEFORE) }]
      await admin.deleteTopicRecords({ topic: old, partitions })
      return common.until(common.DELETE_BEFORE, earliest)
    },
    'list-groups': listed,
    'describe-group': async () => (await admin.describeGroups([group])).groups[0].state,
    'committed-offsets': async () =>
      (await admin.fetchOffsets({ groupId: group, topics: [old] }))[0].partitions[0].offset,
    'delete-group': async () => {
      await admin.deleteGroups([group])
      return common.until(false, listed)
    },
    'delete-topic': async () => {
      await admin.deleteTopics({ topics: [topic] })
      return common.until(false, known)
    }
  })
  await admin.disconnect()
}

common.main({
  produce,
  idempotent: (bootstrap, topic, codec, path) => produce(bootstrap, topic, codec, path, true),
  consume,
  group,
  admin: administrate
})
