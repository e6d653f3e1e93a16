/** Clocks of machines that are wrong, and change. The clock of the database is what counts. */
import { Effect } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { variables } from "../chaosEnv.js"
import type { Scenario } from "../Scenario.js"
import { inTurn } from "./processes.js"

const minuteMs = 60_000
/** At the start, in ms. */
const offsets: Readonly<Record<string, number>> = {
  "node-1": 5 * minuteMs,
  "node-2": -5 * minuteMs,
  "worker-1": 7 * minuteMs,
  "worker-2": -60 * minuteMs
}
/** What is then done to a node's clock, one after the other, in ms. */
const steps = [-10_000, 60 * minuteMs, -60 * minuteMs, 24 * 60 * minuteMs, 250, -3_000]

const fileOf = (folder: string, name: string): string => join(folder, `${name}.clock`)

const set = (folder: string, name: string, offsetMs: number): string => {
  const file = fileOf(folder, name)
  writeFileSync(file, String(offsetMs))
  return file
}

export const clockSkew: Scenario = {
  name: "clock-skew",
  catalogue: "T17",
  what: "clocks of nodes and workers minutes apart, and steps of 10 s to a day in both directions",
  setting: {
    envOf: (name, folder) => ({ [variables.clockFile]: set(folder, name, offsets[name] ?? 0) })
  },
  times: steps.length,
  quickTimes: 3,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const { name } = inTurn(scene.cluster.nodes, n)
        const step = inTurn(steps, n)
        yield* scene.event(`the clock of ${name} steps by ${step} ms`, {
          inject: Effect.sync(() => {
            const before = Number(readFileSync(fileOf(scene.folder, name), "utf8"))
            set(scene.folder, name, before + step)
          })
        })
      }
    })
}
