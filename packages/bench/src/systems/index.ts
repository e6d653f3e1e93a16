/** Every system that can be measured, and the file of its driver. */

export interface Registered {
  /** `peer:variant`, as on the command line. */
  readonly id: string
  readonly peer: string
  /** File in this folder, without `.ts`; exports `systems`. Compiled and loaded in the processes of its roles only. */
  readonly driver: string
}

const variants = (peer: string, driver: string, ...names: ReadonlyArray<string>): ReadonlyArray<Registered> =>
  names.map((name) => ({ id: `${peer}:${name}`, peer, driver }))

/** Ours. */
export const oursId = "orrery:default"

/** What the database alone gives: shown beside the others, never compared with as a peer. */
export const rawId = "raw:postgres"

export const registered: ReadonlyArray<Registered> = [
  ...variants("orrery", "orrery", "default"),
  ...variants("raw", "rawPostgres", "postgres"),
  ...variants("graphile", "graphile", "batch", "batchpoll"),
  ...variants("pgboss", "pgBoss", "tuned", "lowlat"),
  ...variants("bullmq", "bullmq", "aof", "aofAlways"),
  ...variants("effect-entity", "effectEntity", "default"),
  ...variants("effect-workflow", "effectWorkflow", "default"),
  ...variants("dbos", "dbos", "tuned")
]

/** Those that `--quick` compares with; each takes part in the workloads it is tuned for. */
export const quickPeers: ReadonlyArray<string> = [
  rawId,
  "graphile:batch",
  "graphile:batchpoll",
  "pgboss:tuned",
  "pgboss:lowlat",
  "bullmq:aof"
]
