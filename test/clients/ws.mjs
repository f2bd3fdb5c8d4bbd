// Prints what npm's `ws` is given: node ws.mjs URL
// One line a frame: its type, its position and its event as JSON. It reconnects at the position that it has reached.
import WebSocket from 'ws'

let position = ''

function connect() {
  const url = new URL(process.argv[2])
  if (position) url.searchParams.set('from', position)
  const socket = new WebSocket(url, ['streamgw.v1'])
  socket.on('message', (data) => {
    const frame = JSON.parse(data)
    if (frame.position) position = frame.position
    if (frame.type === 'subscribed') console.log('open', '-', '""')
    const name = frame.type === 'event' ? 'message' : frame.type
    console.log(name, frame.position || '-', JSON.stringify(JSON.stringify(frame.event ?? frame)))
  })
  socket.on('unexpected-response', (_, response) => {
    console.error('refused', response.statusCode)
    if (response.statusCode < 500) process.exit(1) // it won't do later either
    socket.terminate()
  })
  socket.on('error', (e) => console.error('error', e.message))
  socket.on('close', (code) => {
    console.error('close', code)
    setTimeout(connect, 100 + 200 * Math.random())
  })
}

connect()
