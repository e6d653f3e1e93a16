/** What owners make of notes: guarded by the lease, fenced by the epoch, through a take-over. Over the memory store. */
import { assert, describe, it } from "@effect/vitest"
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { StoreUnavailable } from "@orrery/core/Errors"
import * as MemoryStore from "@orrery/core/MemoryStore"
import * as MemorySignals from "@orrery/core/MemorySignals"
import { ProgressStore } from "@orrery/core/ProgressStore"
import type { NoteReport } from "@orrery/core/RunNotes"
import * as Signals from "@orrery/core/Signals"
import type { AttemptRef } from "@orrery/core/WorkerProtocol"
import { Effect, Layer, Stream } from "effect"
import type { Residents } from "../src/Residents.js"
import * as rig from "./actorRig.js"
import { name, request, until } from "./actorRig.js"

const startNode = (nodeId: string) => rig.startNode({ nodeId })
const attach = ({ residents }: { readonly residents: Residents["Type"] }) => rig.attach(residents)

const reportOf = (attempt: AttemptRef, fields: Partial<NoteReport> = {}): NoteReport => ({
  ...rig.refOf(attempt),
  progress: undefined,
  firstLine: 1,
  lines: [],
  checkpoint: undefined,
  ...fields
})

const store = Layer.mergeAll(MemoryStore.layer, ClusterConfig.layer())

describe("notes of attempts", () => {
  it.scopedLive("are kept, told to watchers, and refused once the attempt has ended", () =>
    Effect.gen(function*() {
      const progress = yield* ProgressStore
      const node = yield* startNode("a")
      const { assigned, session } = attach(node)
      const told: Array<Signals.RunEvent> = []
      yield* Signals.watch(name).pipe(
        Stream.runForEach((item) => Effect.sync(() => void (item._tag === "events" && told.push(...item.events)))),
        Effect.forkScoped
      )
      yield* node.actor.enqueue([request()])
      yield* until(() => assigned.length === 1)
      const [run] = assigned
      const note = reportOf(run!, { progress: "30", lines: [{ at: 1, text: "a" }], checkpoint: "\"x\"" })

      const first = yield* session.note([note, reportOf({ ...run!, lease: run!.lease - 1 }, { progress: "99" })])
      const again = yield* session.note([note])
      yield* session.report([rig.reportOf(run!, rig.success)])
      const late = yield* session.note([reportOf(run!, { progress: "90", firstLine: 2 })])

      assert.deepStrictEqual([first, again, late], [["accepted", "stale"], ["accepted"], ["stale"]])
      const [kept] = yield* progress.find([run!.runId])
      assert.deepStrictEqual([kept?.progress, kept?.lineCount, kept?.progressCount], ["30", 1, 1])
      yield* until(() => told.some(({ isProgress }) => isProgress === true))
    }).pipe(Effect.provide(Layer.mergeAll(store, MemorySignals.layer))))

  it.scopedLive("survive a take-over: the old owner writes nothing more, the next attempt gets the checkpoint", () =>
    Effect.gen(function*() {
      const progress = yield* ProgressStore
      const a = yield* startNode("a")
      const before = attach(a)
      yield* a.actor.enqueue([request()])
      yield* until(() => before.assigned.length === 1 && a.actor.isWritten)
      const [run] = before.assigned
      const first = reportOf(run!, { progress: "30", lines: [{ at: 1, text: "a" }], checkpoint: "\"half\"" })
      yield* before.session.note([first])

      const b = yield* startNode("b")
      const zombie = yield* before.session.note([reportOf(run!, { progress: "99", checkpoint: "\"zombie\"" })])
      const after = attach(b)
      const known = after.session.announce(run!.partitionId, [run!])
      const more = yield* after.session.note([
        reportOf(run!, { firstLine: 1, lines: [{ at: 1, text: "a" }, { at: 2, text: "b" }], progress: "40" })
      ])

      assert.deepStrictEqual(zombie, ["not-owner"])
      assert.deepStrictEqual(known, [])
      assert.deepStrictEqual(more, ["accepted"])
      assert.strictEqual(yield* after.session.checkpoint(run!), "\"half\"")
      // Of an attempt that it has not heard of yet it does not say that there is nothing to go on from.
      const unknown = yield* Effect.flip(after.session.checkpoint({ ...run!, lease: run!.lease + 1 }))
      assert.strictEqual(unknown._tag, "ClusterUnavailable")
      const [kept] = yield* progress.find([run!.runId])
      assert.deepStrictEqual([kept?.progress, kept?.lines.map(({ text }) => text)], ["40", ["a", "b"]])
    }).pipe(Effect.provide(store)))

  it.scopedLive("are asked for again when the database did not answer, and then known once", () =>
    Effect.gen(function*() {
      const real = yield* ProgressStore
      let failures = 1
      // Written, and the answer lost.
      const flaky = ProgressStore.of({
        ...real,
        write: (batch) =>
          Effect.flatMap(
            real.write(batch),
            () => failures-- > 0 ? new StoreUnavailable({ operation: "write", cause: "cut" }) : Effect.void
          )
      })
      const node = yield* startNode("a").pipe(Effect.provideService(ProgressStore, flaky))
      const { assigned, session } = attach(node)
      yield* node.actor.enqueue([request()])
      yield* until(() => assigned.length === 1)
      const note = reportOf(assigned[0]!, { lines: [{ at: 1, text: "a" }], progress: "1" })

      const lost = yield* Effect.flip(session.note([note]))
      const again = yield* session.note([note])

      assert.strictEqual(lost._tag, "ClusterUnavailable")
      assert.deepStrictEqual(again, ["accepted"])
      assert.deepStrictEqual((yield* real.find([note.runId]))[0]?.lineCount, 1)
    }).pipe(Effect.provide(store)))
})

describe("a worker of an earlier release", () => {
  it.scopedLive("is given assignments without the trace it cannot read", () =>
    Effect.gen(function*() {
      const node = yield* startNode("a")
      const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
      const { assigned, session } = attach(node)
      yield* node.actor.enqueue([{ ...request(), trace }])
      yield* until(() => assigned.length === 1)
      session.setCredit(10, 0, true)
      yield* node.actor.enqueue([{ ...request(), trace }])
      yield* until(() => assigned.length === 2)

      assert.deepStrictEqual(assigned.map((each) => each.trace), [undefined, trace])
    }).pipe(Effect.provide(store)))
})
