// What the Node programs share: records as lines of JSON, and steps whose failure is printed.

const fs = require('node:fs')

// What `admin` does, as README.md says.
exports.KEEP_MS = '315360000000'
exports.KEEP_LONGER_MS = '946080000000'
exports.DELETE_BEFORE = 50

const decode = text => (text === null ? null : Buffer.from(text, 'base64'))
const encode = data => (data === null || data === undefined ? null : data.toString('base64'))

// The records of a file: { key, value, headers: [[name, value]], timestamp }.
exports.read = path =>
  fs.readFileSync(path, 'utf8').trim().split('\n').map(line => {
    const { key, value, headers, timestamp } = JSON.parse(line)
    return {
      key: decode(key),
      value: decode(value),
      headers: headers.map(([name, value]) => [name, decode(value)]),
      timestamp
    }
  })

// Runs of records that each make a batch below the largest a broker takes: these clients make one
// batch of all that is sent at once.
exports.batches = records => {
  const batches = []
  let bytes = Infinity
  for (const record of records) {
    const size = (record.key?.length ?? 0) + (record.value?.length ?? 0) + 100
    if (bytes + size > 900_000) {
      batches.push([])
      bytes = 0
    }
    batches.at(-1).push(record)
    bytes += size
  }
  return batches
}

// Prints a record that was read.
exports.show = (key, value, headers, timestamp, offset) => {
  const pairs = headers.map(([name, value]) => [name, encode(value)])
  console.log(JSON.stringify({
    key: encode(key),
    value: encode(value),
    headers: pairs,
    timestamp: Number(timestamp),
    offset: Number(offset)
  }))
}

// Takes each step; prints its name and what came of it, an error too.
exports.steps = async table => {
  for (const [name, step] of Object.entries(table)) {
    let result
    try {
      result = await step()
    } catch (error) {
      const causes = (error.errors ?? []).map(String).join('; ')
      result = `failed: ${error} ${causes}`.replaceAll('\n', ' ')
    }
    console.log(name, String(result))
  }
}

// Asks until the answer is the wanted one, for 10 s; returns the last answer.
exports.until = async (wanted, ask) => {
  for (let turn = 0; ; turn++) {
    const answer = await ask()
    if (answer === wanted || turn === 50) return answer
    await new Promise(resolve => setTimeout(resolve, 200))
  }
}

// Returns once the file is there.
exports.stopped = async path => {
  while (!fs.existsSync(path)) await new Promise(resolve => setTimeout(resolve, 50))
}

// Runs the program that the command line names, and fails when it takes long, unless it is a member
// of a group: that one ends when it is told to.
exports.main = async programs => {
  const [command, ...rest] = process.argv.slice(2)
  const late = command !== 'group' && setTimeout(() => {
    console.error(`${command}: not done after 90 s`)
    process.exit(1)
  }, 90_000)
  try {
    await programs[command](...rest)
  } catch (error) {
    console.error(error)
    process.exit(1)
  }
  clearTimeout(late)
}
