// What services in JavaScript do without streamgw, for `make bench` to compare with: node grouper.mjs BROKERS HOST:PORT
// GET /stream?topic=T answers with the topic's values as Server-Sent Events, from a consumer group of the connection's
// own, made with npm's `kafkajs` and its defaults.
import http from 'node:http'
import kafkajs from 'kafkajs'

const [brokers, listen] = process.argv.slice(2)
const kafka = new kafkajs.Kafka({ clientId: 'grouper', brokers: brokers.split(','), logLevel: kafkajs.logLevel.ERROR })
let opened = 0

async function stream(topic, request, response) {
  const consumer = kafka.consumer({ groupId: `sse-${Date.now()}-${++opened}` })
  request.on('close', () => consumer.disconnect())
  await consumer.connect()
  await consumer.subscribe({ topic })
  // After its first fetch, what is published is streamed.
  const reading = new Promise((resolve) => consumer.on(consumer.events.FETCH, resolve))
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      response.write(`id: ${partition}-${message.offset}\ndata: ${message.value}\n\n`)
    },
  })
  await reading
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
  response.write(': ok\n\n')
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://grouper')
  if (url.pathname !== '/stream') return response.end()
  stream(url.searchParams.get('topic'), request, response).catch((e) => {
    console.error(e)
    response.destroy()
  })
})
const [host, port] = listen.split(':')
server.listen(Number(port), host)
process.on('SIGTERM', () => process.exit())
