/** Handlers module of every process under fire (`--handlers`): does the work, and writes down that it did. */
import { Attempt } from "@orrery/core/Handlers"
import { Effect, Exit, Layer } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Role, variables } from "./chaosEnv.js"
import { beats, block, nap, newer, poison, StepFailed, steps, swallow } from "./chaosTasks.js"
import * as HistoryFile from "./HistoryFile.js"
import { poisoned } from "./poisoned.js"

const given = (variable: string): string => {
  const value = process.env[variable]
  if (value === undefined) throw new Error(`${variable} is not set: these handlers run under the chaos harness only`)
  return value
}

const folder = given(variables.folder)
const history = HistoryFile.open(folder, given(variables.name))
const slots = Number(given(variables.slots))
const clockOffset = Number(given(variables.clockOffset))
const role = given(variables.role) as Role

let running = 0

/** `body` between its two lines of history. */
const recorded = <A, E>(body: (attempt: Attempt["Type"]) => Effect.Effect<A, E>): Effect.Effect<A, E, Attempt> =>
  Effect.flatMap(Attempt, (self) => {
    const { attempt, fencingToken, runId: run } = self
    const lease = Number(fencingToken.slice(0, fencingToken.indexOf(".")))
    return Effect.suspend(() => {
      running += 1
      const databaseTime = HistoryFile.monotonicMs() + clockOffset
      history.write({ _tag: "started", run, attempt, lease, databaseTime, running, slots })
      return body(self)
    }).pipe(Effect.onExit((exit) =>
      Effect.sync(() => {
        running -= 1
        history.write({ _tag: "ended", run, attempt, lease, outcome: outcomeOf(exit) })
      })
    ))
  })

const outcomeOf = (exit: Exit.Exit<unknown, unknown>) => {
  if (Exit.isSuccess(exit)) return "success"
  return Exit.isInterrupted(exit) ? "interrupted" : "failure"
}

const pause = (ms: number) => ms === 0 ? Effect.void : Effect.sleep(ms)

const step = ({ failures, ms }: { readonly ms: number; readonly failures: number }) =>
  recorded(({ attempt }) =>
    Effect.zipRight(
      pause(ms),
      attempt <= failures ? new StepFailed({ attempt }) : Effect.succeed(attempt)
    )
  )

/** True the first time in any process. */
const isFirst = (run: string): boolean => {
  try {
    writeFileSync(join(folder, `${run}.seen`), "", { flag: "wx" })
    return true
  } catch {
    return false
  }
}

const standStill = (ms: number): void => {
  const until = performance.now() + ms
  while (performance.now() < until);
}

const blocked = ({ ms }: { readonly ms: number }) =>
  recorded(({ runId }) => Effect.sync(() => isFirst(runId) ? standStill(ms) : undefined))

const [first, ...rest] = steps.map((task) => task.toLayer(step))
const always = Layer.mergeAll(first!, ...rest, ...beats.map((task) => task.toLayer(() => recorded(() => Effect.void))))
const napping = ({ ms }: { readonly ms: number }) => recorded(() => pause(ms))

const inWorkers = Layer.mergeAll(
  nap.toLayer(napping),
  poison.toLayer(({ kind }) => recorded(() => poisoned(kind))),
  swallow.toLayer(() => recorded(() => Effect.void))
)

export default {
  node: Layer.mergeAll(always, block.toLayer(blocked)),
  worker: Layer.mergeAll(always, inWorkers),
  newer: Layer.mergeAll(always, inWorkers, newer.toLayer(napping))
}[role]
