/** What clients do to the cluster, in good faith: too much, too large, all at once, and then cancel it. */
import type { RunId } from "@orrery/core/RunId"
import type { RunRequest } from "@orrery/core/RunRequest"
import { Runs } from "@orrery/core/Runs"
import { Context, Effect } from "effect"
import { steps, swallow } from "../chaosTasks.js"
import type { Scenario, Scene } from "../Scenario.js"
import { allSurvive, inTurn, nodeIdOf, reborn } from "./processes.js"

const numbers = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, at) => at)

const ask = (scene: Scene, requests: ReadonlyArray<RunRequest>): void => {
  for (const { id, queue } of requests) scene.history.write({ _tag: "asked", run: id, queue, dueAt: 0 })
}

const acknowledge = (scene: Scene, requests: ReadonlyArray<RunRequest>): void => {
  for (const { id } of requests) scene.history.write({ _tag: "acknowledged", run: id })
}

const floodBatches = 40
const floodRuns = 500
const floodChars = 2_000
const floodAtOnce = 40
/** A burst is refused by some: what a caller sees who does not wait for long. */
const impatient = { budget: "2 seconds", callTimeout: "2 seconds", pendingRowsMax: 100_000 } as const
const expectedRefusals: ReadonlyArray<string> = ["Overloaded", "ClusterUnavailable"]

export const overload: Scenario = {
  name: "overload",
  catalogue: "T21",
  what: "40 MB of runs at once on nodes that may hold 1 MB unwritten: typed refusals, bounded memory, others served",
  setting: { env: { ORRERY_JOURNAL_PENDING_BYTES_MAX: String(1024 * 1024) } },
  times: 2,
  quickTimes: 1,
  play: (scene) =>
    allSurvive(
      scene,
      Effect.gen(function*() {
        const refusals = new Map<string, number>()
        const runs = Context.get(yield* scene.newClient(impatient), Runs)
        const flood = Effect.gen(function*() {
          const requests = yield* Effect.orDie(
            Effect.forEach(numbers(floodRuns), (n) => swallow.request({ n, text: "x".repeat(floodChars) }))
          )
          ask(scene, requests)
          yield* runs.enqueueMany(requests).pipe(
            Effect.zipRight(Effect.sync(() => acknowledge(scene, requests))),
            Effect.catchAll((error) =>
              Effect.sync(() => {
                refusals.set(error._tag, (refusals.get(error._tag) ?? 0) + 1)
                if (expectedRefusals.includes(error._tag)) return
                scene.violate({ checker: "refusal", what: `an overloaded cluster said ${error.message}` })
              })
            )
          )
        })
        for (let n = 0; n < scene.times; n++) {
          yield* scene.event("a flood", {
            inject: Effect.forEach(numbers(floodBatches), () => flood, { concurrency: floodAtOnce, discard: true })
          })
        }
        for (const [name, count] of refusals) scene.note(`refused as ${name}`, count)
      })
    )
}

const kib = 1024
const limit = 256 * kib
/** Text that is JSON of a given length. */
const jsonOf = (length: number): string => `"${"x".repeat(length - 2)}"`
const nested = (depth: number): string => "[".repeat(depth) + "]".repeat(depth)

interface Payload {
  readonly what: string
  readonly make: () => string
  readonly expected: "stored" | "PayloadTooLarge" | "refused"
}

const payloads: ReadonlyArray<Payload> = [
  { what: "of exactly the limit", make: () => jsonOf(limit), expected: "stored" },
  { what: "one byte above the limit", make: () => jsonOf(limit + 1), expected: "PayloadTooLarge" },
  { what: "of 1 MiB", make: () => jsonOf(kib * kib), expected: "PayloadTooLarge" },
  { what: "of 16 MiB", make: () => jsonOf(16 * kib * kib), expected: "refused" },
  { what: "above the largest message", make: () => jsonOf(40 * kib * kib), expected: "refused" },
  { what: "nested 100,000 deep", make: () => nested(100_000), expected: "stored" },
  {
    what: "of 10,000 keys",
    make: () => JSON.stringify(Object.fromEntries(numbers(10_000).map((n) => [`k${n}`, n]))),
    expected: "stored"
  },
  {
    what: "in the form of a prototype",
    make: () => `{"__proto__":{"polluted":true},"constructor":1}`,
    expected: "stored"
  }
]
/** The client library looks first: this one lets everything through, as a client of another make might. */
const careless = {
  payloadBytesMax: 1024 * 1024 * 1024,
  batchCharsMax: 256 * 1024 * 1024,
  // Each try costs the harness, which is a client too, as much as the node.
  budget: "2 seconds",
  callTimeout: "5 seconds"
} as const

export const hugePayloads: Scenario = {
  name: "huge-payloads",
  catalogue: "T22",
  what: "payloads at, above and far above the limit, deep and wide ones, past the checks of the client",
  times: payloads.length,
  quickTimes: payloads.length,
  play: (scene) =>
    allSurvive(
      scene,
      Effect.gen(function*() {
        const runs = Context.get(yield* scene.newClient(careless), Runs)
        for (let n = 0; n < scene.times; n++) {
          const { expected, make, what } = inTurn(payloads, n)
          const request = { ...yield* Effect.orDie(swallow.request(null)), payload: make() }
          ask(scene, [request])
          yield* scene.event(`a payload ${what}`, {
            inject: runs.enqueueMany([request]).pipe(
              Effect.match({ onSuccess: () => "stored", onFailure: (error) => `${error._tag}: ${error.message}` }),
              Effect.tap((answer) =>
                Effect.sync(() => {
                  if (answer === "stored") acknowledge(scene, [request])
                  scene.note(what, answer)
                  const isExpected = expected === "refused" ? answer !== "stored" : answer.startsWith(expected)
                  if (!isExpected) scene.violate({ checker: "payload", what: `a payload ${what} was ${answer}` })
                })
              )
            )
          })
        }
      })
    )
}

const raceClients = 10
const raceCallersPerClient = 5
const raceIds = 200

const shuffled = <A>(scene: Scene, some: ReadonlyArray<A>): ReadonlyArray<A> => {
  const left = [...some]
  return numbers(some.length).map(() => left.splice(scene.random.integer(0, left.length - 1), 1)[0]!)
}

export const enqueueRace: Scenario = {
  name: "enqueue-race",
  catalogue: "T32",
  what: "50 callers send the same 200 requests to three nodes, which are killed meanwhile: 200 runs",
  times: 4,
  quickTimes: 2,
  play: (scene) =>
    Effect.gen(function*() {
      const clients = yield* Effect.forEach(numbers(raceClients), () => scene.newClient({ budget: "60 seconds" }))
      for (let n = 0; n < scene.times; n++) {
        const victim = inTurn(scene.cluster.nodes, n)
        const before = yield* nodeIdOf(victim)
        const requests = yield* Effect.orDie(
          Effect.forEach(numbers(raceIds), (at) => inTurn(steps, at).request({ ms: 0, failures: 0 }))
        )
        ask(scene, requests)
        const callers = clients.flatMap((client) => numbers(raceCallersPerClient).map(() => Context.get(client, Runs)))
        const send = (runs: Runs["Type"]) =>
          Effect.forEach(shuffled(scene, requests), (request) => runs.enqueueMany([request]), { discard: true })
        yield* scene.event(`${callers.length} callers, and SIGKILL of ${victim.name}`, {
          inject: Effect.zipRight(
            Effect.all(
              [Effect.forEach(callers, send, { concurrency: callers.length, discard: true }), victim.kill("SIGKILL")],
              { concurrency: 2, discard: true }
            ),
            Effect.sync(() => acknowledge(scene, requests))
          ).pipe(Effect.orDie)
        })
        yield* reborn(victim, before)
        const [found] = yield* scene.query<{ count: number }>(
          `select ((select count(*) from orrery.runs where id = any($1::uuid[]))
             + (select count(*) from orrery.run_history where id = any($1::uuid[])))::int as count`,
          [requests.map(({ id }) => id)]
        )
        if (found!.count !== raceIds) {
          scene.violate({ checker: "doubleAccepted", what: `${raceIds} ids made ${found!.count} runs` })
        }
      }
    })
}

const contested = 300
const contestedAtOnce = 60
/** Runs take longer than callers wait, so that many are in the middle when the cancel comes. */
const contestedMsMax = 800
const cancelAfterMsMax = 400

/** One run, two who cancel it at some moment, and one who waits for its end: all are told the same. */
const contest = (scene: Scene, ends: Map<RunId, string>) =>
  Effect.gen(function*() {
    const runs = Context.get(scene.client, Runs)
    const request = yield* Effect.orDie(
      scene.random.pick(steps).request({
        ms: scene.random.integer(0, contestedMsMax),
        failures: scene.random.integer(0, 1)
      })
    )
    ask(scene, [request])
    yield* runs.enqueueMany([request])
    acknowledge(scene, [request])
    const cancel = () => Effect.delay(Effect.ignore(runs.cancel(request.id)), scene.random.integer(0, cancelAfterMsMax))
    const [end] = yield* Effect.all([runs.awaitFinal(request.id), cancel(), cancel()], { concurrency: 3 })
    ends.set(request.id, end.state)
  }).pipe(Effect.orDie)

export const cancelRace: Scenario = {
  name: "cancel-race",
  catalogue: "T33",
  what: "runs that end, fail, are retried and cancelled by two at the same moment: one end, told alike to all",
  times: 4,
  quickTimes: 2,
  play: (scene) =>
    Effect.gen(function*() {
      for (let n = 0; n < scene.times; n++) {
        const ends = new Map<RunId, string>()
        yield* scene.event(`${contested} runs are cancelled while they end`, {
          inject: Effect.forEach(numbers(contested), () => contest(scene, ends), {
            concurrency: contestedAtOnce,
            discard: true
          })
        })
        const stored = yield* scene.query<{ id: RunId; state: string }>(
          "select id, orrery.state_name(state) as state from orrery.run_history where id = any($1::uuid[])",
          [[...ends.keys()]]
        )
        for (const { id, state } of stored) {
          if (ends.get(id) !== state) {
            scene.violate({ checker: "doubleAccepted", run: id, what: `told as ${ends.get(id)}, stored as ${state}` })
          }
        }
        scene.note("cancelled", stored.filter(({ state }) => state === "cancelled").length)
      }
    })
}
