/**
 * Puts a server further away: a TCP proxy that holds what it passes on for a time. Order is kept; what comes within one
 * delay travels together, as on a real line.
 *
 * A timer of Node fires after at least 1 ms, so the whole delay of a round trip is put on the way to the server: half of
 * it each way would become twice as much.
 */
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"

const host = "127.0.0.1"
const portDefault = 5_432

/** The same url, by way of the proxy. */
export const listen = async (url: string, delayMs: number): Promise<string> => {
  const target = new URL(url)
  const port = target.port === "" ? portDefault : Number(target.port)
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ host: target.hostname, port, noDelay: true })
    pass(client, upstream, delayMs)
    upstream.pipe(client)
    for (const [one, other] of [[client, upstream], [upstream, client]] as const) {
      one.on("error", () => other.destroy())
      one.on("close", () => other.destroy())
    }
  })
  server.listen(0, host)
  await once(server, "listening")
  const address = server.address()
  const through = new URL(url)
  through.hostname = host
  through.port = String(typeof address === "object" && address !== null ? address.port : 0)
  return through.href
}

const pass = (from: Socket, to: Socket, delayMs: number): void => {
  from.on("data", (chunk: Buffer) => setTimeout(() => to.write(chunk), delayMs))
  from.on("end", () => setTimeout(() => to.end(), delayMs))
}
