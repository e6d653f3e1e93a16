/** Ports that stay the same over the lives of a node, as in a deployment: a new incarnation comes back at its old address. */
import { Effect } from "effect"
import { createServer } from "node:net"

/** Below those that systems give to outgoing connections, any of which could take the port of a node that is down. */
const first = 20_000
const count = 10_000

/** So many free ports of 127.0.0.1. `random` in [0, 1) chooses where to look, so that two harnesses rarely meet. */
export const freePorts = (wanted: number, random: () => number): Effect.Effect<ReadonlyArray<number>> =>
  Effect.gen(function*() {
    const found: Array<number> = []
    const start = Math.floor(random() * count)
    for (let at = 0; at < count && found.length < wanted; at++) {
      const port = first + (start + at) % count
      if (yield* isFree(port)) found.push(port)
    }
    return found.length === wanted ? found : yield* Effect.dieMessage(`no ${wanted} free ports on this machine`)
  })

const isFree = (port: number): Effect.Effect<boolean> =>
  Effect.async((resume) => {
    const probe = createServer()
    probe.once("error", () => resume(Effect.succeed(false)))
    probe.listen(port, "127.0.0.1", () => probe.close(() => resume(Effect.succeed(true))))
  })
