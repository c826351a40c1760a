// @confluentinc/kafka-javascript behind the common command line of README.md.

const { Kafka, logLevel } = require('@confluentinc/kafka-javascript').KafkaJS
const common = require('./common.cjs')

const cluster = bootstrap =>
  new Kafka({ kafkaJS: { brokers: [bootstrap], logLevel: logLevel.ERROR } })

async function produce (bootstrap, topic, codec, path, idempotent = false) {
  const producer = cluster(bootstrap).producer({
    kafkaJS: { idempotent },
    'compression.codec': codec,
    'message.max.bytes': 2_000_000
  })
  await producer.connect()
  const sent = common.read(path).map(({ key, value, headers, timestamp }) => producer.send({
    topic,
    messages: [{
      key,
      value,
      headers: Object.fromEntries(headers),
      timestamp: String(timestamp),
      partition: 0
    }]
  }))
  for (const [{ baseOffset }] of await Promise.all(sent)) console.log(Number(baseOffset))
  await producer.disconnect()
}

async function consume (bootstrap, topic, groupId, count) {
  const consumer = cluster(bootstrap).consumer({ kafkaJS: { groupId, fromBeginning: true } })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic] })
  let left = Number(count)
  let last
  await new Promise((resolve, reject) => {
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

// The admin calls of README.md; it has none for configs and partitions.
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
  const earliest = async () => Number((await admin.fetchTopicOffsets(old))[0].low)
  const listed = async () =>
    (await admin.listGroups()).groups.some(({ groupId }) => groupId === group)
  await common.steps({
    'create-topic': create,
    'create-again': create,
    'list-topics': () => common.until(true, known),
    'describe-topic': async () =>
      (await admin.fetchTopicMetadata({ topics: [topic] }))[0].partitions.length,
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
    'describe-group': async () => {
      const EMPTY = 5 // RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY
      const { state } = (await admin.describeGroups([group])).groups[0]
      return state === EMPTY ? 'Empty' : state
    },
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
  admin: administrate
})
