/**
 * A worker's way to a node in a simulation: the session protocol over a `Connection`, as `RemoteLinks` and the node's server
 * speak it over TCP. Every call is answered, or fails: when the connection breaks, or after `callMs`.
 */
import { ClusterUnavailable } from "@orrery/core/Errors"
import type { Hello, NodeLink, ToWorker, WorkerSession } from "@orrery/core/WorkerProtocol"
import type { HubSession } from "@orrery/cluster/WorkerHub"
import { Deferred, Effect, Exit, type Scope } from "effect"
import type { Connection, SimNetwork } from "./SimNetwork.js"
import type { SimNode } from "./SimNode.js"
import type { SimProcess } from "./SimProcess.js"

const callMs = 3_000
const gatherMs = 2

export const make = (network: SimNetwork, worker: SimProcess, node: SimNode, leaseMs: number): NodeLink => ({
  node: node.id,
  attach: (hello, deliver) => attach(network, worker, node, { leaseMs, hello, deliver })
})

/** One generator function for all calls: V8 makes a hidden class for each, which keeps what the function closes over for long. */
const attach = Effect.fnUntraced(function*(
  network: SimNetwork,
  worker: SimProcess,
  node: SimNode,
  { deliver, hello, leaseMs }: {
    readonly leaseMs: number
    readonly hello: Hello
    readonly deliver: (message: ToWorker) => void
  }
): Effect.fn.Return<WorkerSession, ClusterUnavailable, Scope.Scope> {
  if (!node.process.isAlive) return yield* refused("attach")
  const connection = network.connect(worker, node.process)
  const closed = yield* Deferred.make<void>()
  const open = new Set<() => void>()
  connection.onBroken.near = () => {
    for (const giveUp of open) giveUp()
    Deferred.unsafeDone(closed, Exit.void)
  }
  const ask = asking(connection, worker, open)
  // The far side's; empty until the node has been told.
  const far: { session: HubSession | undefined } = { session: undefined }
  connection.onBroken.far = () => far.session?.lost()
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      connection.send("far", () => {
        far.session?.goodbye()
        far.session = undefined
        connection.onBroken.far = () => undefined
        connection.break()
      })
    })
  )
  yield* ask<void>("attach", (answer) => {
    if (node.residents === undefined) return answer(undefined)
    const session = node.residents.hub.attach(
      hello,
      (message) => connection.send("near", () => deliver(message)),
      () => connection.break()
    )
    if (session === "full") return answer(undefined)
    far.session = session
    answer({ value: undefined })
  })
  return sessionOf(node, far, { leaseMs, closed, ask })
})

type Ask = <A>(
  operation: string,
  question: (answer: (found: { readonly value: A } | undefined) => void) => void
) => Effect.Effect<A, ClusterUnavailable>

/** By operation. Made once: its fields are checked each time, and it is made for each try to reach a node that is away. */
const refusals = new Map<string, ClusterUnavailable>()

const refused = (operation: string): ClusterUnavailable => {
  let refusal = refusals.get(operation)
  if (refusal === undefined) {
    refusal = new ClusterUnavailable({ operation, reason: "simulated" })
    refusals.set(operation, refusal)
  }
  return refusal
}

/**
 * A question is put in a turn of the node, and its answer comes back in a turn of the worker. `undefined`: refused. What is
 * in `open` is given up when the connection breaks.
 */
const asking = (connection: Connection, worker: SimProcess, open: Set<() => void>): Ask =>
<A>(
  operation: string,
  question: (answer: (found: { readonly value: A } | undefined) => void) => void
) =>
  Effect.async<A, ClusterUnavailable>((resume) => {
    let isOpen = true
    const end = (result: Effect.Effect<A, ClusterUnavailable>): void => {
      if (!isOpen) return
      isOpen = false
      timer.isCancelled = true
      open.delete(giveUp)
      resume(result)
    }
    const giveUp = (): void => end(refused(operation))
    open.add(giveUp)
    const timer = worker.later(callMs, giveUp)
    if (!connection.isOpen) return giveUp()
    connection.send("far", () =>
      question((found) =>
        connection.send("near", () =>
          end(found === undefined ? refused(operation) : Effect.succeed(found.value)))
      ))
  })

const sessionOf = (
  node: SimNode,
  far: { readonly session: HubSession | undefined },
  { ask, closed, leaseMs }: {
    readonly ask: Ask
    readonly closed: Deferred.Deferred<void>
    readonly leaseMs: number
  }
): WorkerSession => ({
  leaseMs,
  gatherMs,
  report: (reports) =>
    ask("report", (answer) =>
      far.session === undefined
        ? answer(undefined)
        : node.report(far.session, reports, (answers) => answer({ value: answers }))),
  note: (reports) =>
    ask(
      "note",
      (answer) => far.session === undefined ? answer(undefined) : node.ask(far.session.note(reports), answer)
    ),
  checkpoint: (attempt) =>
    ask(
      "checkpoint",
      (answer) => far.session === undefined ? answer(undefined) : node.ask(far.session.checkpoint(attempt), answer)
    ),
  announce: (partitionId, held) =>
    ask("announce", (answer) => {
      const stale = far.session === undefined ? undefined : node.announce(far.session, partitionId, held)
      answer(stale === undefined ? undefined : { value: stale })
    }),
  setCredit: (credit, ahead, slots) =>
    ask("setCredit", (answer) =>
      answer(
        far.session === undefined ? undefined : { value: far.session.setCredit(credit, ahead, false, slots) }
      )),
  heartbeat: ask<void>(
    "heartbeat",
    (answer) => answer(far.session?.heartbeat() === true ? { value: undefined } : undefined)
  ),
  closed: Deferred.await(closed)
})
