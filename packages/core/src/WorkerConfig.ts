/** Settings of a worker process that is not a node (`orrery worker`). */
import { Context, Effect, Layer } from "effect"
import * as Setting from "./Setting.js"

/** 8 attempts at a time. */
export const slotsDefault = 8
/** 10 s for attempts to end by themselves. */
export const shutdownGraceMsDefault = 10_000

const hourMs = 3_600_000
const addressPattern = /^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):(\d{1,5})$/

/** `host:port`, IPv6 hosts in brackets. */
export const isAddress = (value: string): boolean => {
  const port = Number(addressPattern.exec(value)?.[2] ?? 0)
  return port >= 1 && port <= 65_535
}

export const settings = {
  nodes: Setting.list({
    env: "NODES",
    default: undefined,
    unit: "addresses",
    accepts: "one or more host:port, separated by commas",
    doc: "Data addresses of nodes (told in their ready line). One that is alive is enough: it tells the others.",
    check: isAddress
  }),
  slots: Setting.integer({
    env: "SLOTS",
    default: slotsDefault,
    unit: "attempts",
    min: 1,
    max: 100_000,
    doc: "Attempts this worker runs at a time, over all nodes."
  }),
  shutdownGraceMs: Setting.integer({
    env: "SHUTDOWN_GRACE_MS",
    default: shutdownGraceMsDefault,
    unit: "ms",
    min: 0,
    max: hourMs,
    doc:
      "After SIGTERM attempts may end by themselves for this long; then they are interrupted and start again elsewhere, uncounted."
  })
}

export type Values = Setting.Values<typeof settings>
export type Options = Partial<Values> & Pick<Values, "nodes">

export class WorkerConfig extends Context.Tag("@orrery/core/WorkerConfig")<WorkerConfig, Values>() {}

const together = () => []

/** Values given in code; what is left out gets its default. */
export const layer = (options: Options): Layer.Layer<WorkerConfig, Setting.ConfigInvalid> =>
  Layer.effect(WorkerConfig, Effect.suspend(() => Setting.orFail(Setting.check(settings, options, together))))

/** ORRERY_NODES, ORRERY_SLOTS, ORRERY_SHUTDOWN_GRACE_MS. */
export const layerConfig: Layer.Layer<WorkerConfig, Setting.ConfigInvalid> = Layer.effect(
  WorkerConfig,
  Effect.flatMap(Setting.read(settings, together), Setting.orFail)
)
