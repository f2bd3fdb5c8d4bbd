// Prints what npm's `eventsource` is given: node eventsource.mjs URL
// One line an event: its name, its last event id and its data as JSON. It reconnects as that library does by itself.
import { EventSource } from 'eventsource'

const stream = new EventSource(process.argv[2])
const print = (name) => (e) => console.log(name, e.lastEventId || '-', JSON.stringify(e.data))
stream.onmessage = print('message')
stream.addEventListener('streamgw.gap', print('gap'))
stream.onopen = () => console.log('open', '-', '""')
stream.onerror = (e) => {
  console.error('error', e.code, e.message)
  if (stream.readyState === EventSource.CLOSED) process.exit(1) // it won't come back
}
