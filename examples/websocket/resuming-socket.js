// A WebSocket to a gateway that comes back by itself and goes on where it was. It needs nothing but a WebSocket class:
// browsers and Node.js from 22 have one.

// After these close codes the same request would be refused again.
const FINAL = new Set([1008, 1009, 4401, 4403])
const LONGEST_WAIT = 30_000 // ms

export class ResumingSocket {
  // gateway is an http: or https: URL. handlers are event(frame), gap(frame), error(problem) and state(text), each as
  // you need it. position is where an earlier run ended; keep frame.position once you have dealt with an event.
  constructor(gateway, topics, { position, ...handlers } = {}) {
    this.url = new URL('/v1/ws', gateway)
    this.url.protocol = this.url.protocol === 'https:' ? 'wss:' : 'ws:'
    for (const topic of topics) this.url.searchParams.append('topic', topic)
    this.position = position
    this.handlers = handlers
    this.failures = 0
    this.#connect()
  }

  close() {
    this.closed = true
    clearTimeout(this.timer)
    this.socket.close()
  }

  #connect() {
    if (this.position) this.url.searchParams.set('lastEventId', this.position)
    this.socket = new WebSocket(this.url, 'streamgw.v1')
    this.socket.onmessage = m => this.#take(JSON.parse(m.data))
    this.socket.onclose = e => this.#comeBack(e.code)
  }

  #take(frame) {
    if (frame.type === 'subscribed') {
      this.failures = 0
      this.handlers.state?.('open')
    }
    if (frame.type === 'event') this.handlers.event?.(frame)
    if (frame.type === 'gap') this.handlers.gap?.(frame)
    if (frame.type === 'error') this.handlers.error?.(frame.problem)
    if (frame.position) this.position = frame.position // also of frames that carry nothing else
  }

  #comeBack(code) {
    if (this.closed) return
    if (FINAL.has(code)) return this.handlers.state?.(`refused (${code})`)
    this.handlers.state?.('reconnecting')
    const longest = Math.min(LONGEST_WAIT, 1000 * 2 ** this.failures++)
    this.timer = setTimeout(() => this.#connect(), longest * (0.5 + Math.random() / 2)) // not all clients in one moment
  }
}
