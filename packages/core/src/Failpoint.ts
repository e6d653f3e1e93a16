/**
 * Named places at which a process may be made to die, around every commit: `before-commit` when the change is handed to the
 * journal, `after-commit` when it is durable and nobody has been told. Tests, the simulator and chaos runs arm them; in
 * production nothing is armed and a place costs one comparison.
 *
 *   ORRERY_FAILPOINT=finish.after-commit@3    the node or worker kills itself when it comes there for the third time
 *
 * Names are stable: scripts use them.
 */
import { Config, Effect, Option } from "effect"
import type { JournalBatch } from "./Journal.js"
import { ConfigInvalid, prefix } from "./Setting.js"

export const names = [
  "enqueue.before-commit",
  "enqueue.after-commit",
  "start.before-commit",
  "start.after-commit",
  "retry.before-commit",
  "retry.after-commit",
  "requeue.before-commit",
  "requeue.after-commit",
  "finish.before-commit",
  "finish.after-commit",
  "take-over.before-commit",
  "take-over.after-commit",
  "report.before-send",
  "report.after-answer",
  "inbox-drain.before-commit",
  "inbox-drain.after-commit",
  "complete.before-commit",
  "complete.after-commit"
] as const
export type FailpointName = (typeof names)[number]

/** Passed only where applications complete runs in their own transactions. */
export const isOfCompletions = (name: FailpointName): boolean => name.startsWith("complete.")

/** Passed only where applications enqueue or complete runs in their own transactions. */
export const isOfTransactions = (name: FailpointName): boolean =>
  name.startsWith("inbox-drain.") || isOfCompletions(name)

type Hook = (name: FailpointName) => void

let hook: Hook | undefined

/** Does nothing, unless somebody has armed it. */
export const failpoint = (name: FailpointName): void => {
  if (hook !== undefined) hook(name)
}

/** Those of the changes in a batch. A batch mixes kinds; they are looked for only when somebody listens. */
export const failpointsOf = (batch: JournalBatch, when: "before-commit" | "after-commit"): void => {
  if (hook === undefined) return
  if (batch.fromInbox === true) failpoint(`inbox-drain.${when}`)
  else if (batch.inserts.length > 0) failpoint(`enqueue.${when}`)
  const moved = (state: string) => batch.updates.some((update) => update.state === state)
  if (batch.roll !== undefined || moved("running")) failpoint(`start.${when}`)
  if (moved("retrying")) failpoint(`retry.${when}`)
  // Interrupted, crashed, or due and out of memory: ready again.
  if (moved("ready")) failpoint(`requeue.${when}`)
  if (batch.finishes.length > 0) failpoint(`finish.${when}`)
}

/** `then` is called at every place from now on; it may throw. One at a time: a later call replaces it. Answers how to disarm. */
export const arm = (then: Hook): () => void => {
  hook = then
  return () => {
    if (hook === then) hook = undefined
  }
}

const countMax = 1_000_000
const pattern = /^([a-z.-]+)(?:@(\d{1,7}))?$/

/** What `ORRERY_FAILPOINT` says: a place, and the how-manieth time. `undefined`: it cannot be read. */
export const parse = (text: string): { readonly name: FailpointName; readonly nth: number } | undefined => {
  const [, given, times = "1"] = pattern.exec(text) ?? []
  const name = names.find((each) => each === given)
  const nth = Number(times)
  return name !== undefined && nth >= 1 && nth <= countMax ? { name, nth } : undefined
}

/** Reads `ORRERY_FAILPOINT` and has `die` called when its time has come. Nothing when it is not set. */
export const armFromConfig = (die: Hook): Effect.Effect<void, ConfigInvalid> =>
  Config.string("FAILPOINT").pipe(
    Config.nested(prefix),
    Config.option,
    Effect.orDie,
    Effect.flatMap((given) => {
      if (Option.isNone(given)) return Effect.void
      const wanted = parse(given.value)
      if (wanted === undefined) {
        const problem = `${prefix}_FAILPOINT must be a name, or name@n with n from 1 to ${countMax}, of: `
          + `${names.join(", ")}; got ${JSON.stringify(given.value.slice(0, 200))}`
        return new ConfigInvalid({ problems: [problem] })
      }
      let left = wanted.nth
      return Effect.sync(() => {
        arm((name) => {
          if (name === wanted.name && --left === 0) die(name)
        })
      })
    })
  )
