/** Who this node is, for as long as its process lives: a restarted node is a new one. */
import { SqlClient } from "@effect/sql"
import { ClusterConfig } from "@orrery/core/ClusterConfig"
import { NodeConfig } from "@orrery/core/NodeConfig"
import { Context, Data, Effect, Layer, Schedule } from "effect"
import { randomUUID } from "node:crypto"
import { createServer } from "node:net"

export class NodeIdentity extends Context.Tag("@orrery/cluster/NodeIdentity")<NodeIdentity, {
  readonly nodeId: string
  readonly host: string
  readonly runnerPort: number
  readonly dataPort: number
  /** `host:port` */
  readonly runnerAddress: string
  readonly dataAddress: string
}>() {}

/** The node cannot start; the message says what to change. */
export class StartFailed extends Data.TaggedError("StartFailed")<{
  readonly reason: string
  /** The same start may succeed later: a database that was down, say. False: something must be changed first. */
  readonly isTemporary: boolean
  readonly cause?: unknown
}> {
  override get message() {
    return this.reason
  }
}

const freePort = (host: string, port: number) =>
  Effect.async<number, StartFailed>((resume) => {
    const server = createServer()
    server.once("error", (error: NodeJS.ErrnoException) =>
      resume(
        new StartFailed({
          isTemporary: false,
          reason: `port ${port} of ${host} cannot be used (${
            error.code ?? error.message
          }): stop what uses it or set ORRERY_RUNNER_PORT / ORRERY_DATA_PORT to another`
        })
      ))
    server.listen(port, host, () => {
      const address = server.address()
      const found = typeof address === "object" && address !== null ? address.port : port
      server.close(() => resume(Effect.succeed(found)))
    })
  })

const make = Effect.gen(function*() {
  const { host, dataPort: dataWanted, runnerPort: runnerWanted } = yield* NodeConfig
  const runnerPort = yield* freePort(host, runnerWanted)
  let dataPort = yield* freePort(host, dataWanted)
  while (dataPort === runnerPort) dataPort = yield* freePort(host, dataWanted)
  return NodeIdentity.of({
    nodeId: randomUUID(),
    host,
    runnerPort,
    dataPort,
    runnerAddress: `${host}:${runnerPort}`,
    dataAddress: `${host}:${dataPort}`
  })
})

export const layer = Layer.effect(NodeIdentity, make)

/** Of a node that has just been killed: its sessions are gone by then. */
const leftWithin = "6 seconds"

/** Another node says that it can be reached where this one can. Two of them would get each other's calls. */
class AddressTaken extends Data.TaggedError("AddressTaken")<{ readonly nodeId: string }> {}

/**
 * A node with one of our addresses that holds sessions for its locks is alive: on another machine, since on this one the
 * port could not be had.
 */
export const findTwin = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const self = yield* NodeIdentity
  const [twin] = yield* sql<{ node_id: string }>`
    select n.node_id::text as node_id from orrery.nodes n
    where n.node_id <> ${self.nodeId}::uuid
      and (n.runner_address = ${self.runnerAddress} or n.data_address = ${self.dataAddress})
      and exists (
        select from pg_stat_activity s
        where s.application_name = 'orrery-lock-' || n.node_id::text and s.datname = current_database()
      ) limit 1`
  return twin?.node_id
})

const aloneAtAddress = Effect.gen(function*() {
  const twin = yield* findTwin
  if (twin !== undefined) return yield* new AddressTaken({ nodeId: twin })
}).pipe(
  Effect.retry({
    while: (error) => error._tag === "AddressTaken",
    schedule: Schedule.spaced("250 millis").pipe(Schedule.upTo(leftWithin))
  }),
  Effect.catchTag(
    "AddressTaken",
    ({ nodeId }) =>
      Effect.flatMap(NodeIdentity, ({ dataAddress, runnerAddress }) =>
        new StartFailed({
          isTemporary: true,
          reason: `node ${nodeId} is alive and has the address of this one (${runnerAddress} or ${dataAddress}): `
            + "stop it, or set ORRERY_HOST, ORRERY_RUNNER_PORT and ORRERY_DATA_PORT to others"
        }))
  )
)

/** Writes the node down, and refuses to start when the cluster was begun with other settings. */
export const enroll = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const self = yield* NodeIdentity
  const config = yield* ClusterConfig
  for (const [key, value] of Object.entries(config)) {
    const own = JSON.stringify(value)
    yield* sql`insert into orrery.cluster_settings (key, value) values (${key}, ${own}) on conflict (key) do nothing`
    const rows = yield* sql<
      { value: string }
    >`select value::text as value from orrery.cluster_settings where key = ${key}`
    const recorded = rows[0]?.value
    if (recorded !== own) {
      return yield* new StartFailed({
        isTemporary: false,
        reason: `setting ${key} is ${own} here but ${recorded} in this cluster: use the cluster's value`
      })
    }
  }
  yield* aloneAtAddress
  // A node that was killed leaves its row; the rows of a day ago are of no use to anyone.
  yield* sql`delete from orrery.nodes where started_at < now() - interval '1 day' and runner_address = ${self.runnerAddress}`
  yield* sql`insert into orrery.nodes (node_id, runner_address, data_address)
    values (${self.nodeId}, ${self.runnerAddress}, ${self.dataAddress})`
  yield* Effect.addFinalizer(() =>
    sql`delete from orrery.nodes where node_id = ${self.nodeId}`.pipe(
      Effect.timeoutOption("2 seconds"),
      Effect.catchAllCause(() => Effect.void)
    )
  )
})
