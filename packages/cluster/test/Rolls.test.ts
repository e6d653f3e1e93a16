/** Starts under a limit: one row for all of a commit, and a mark of its own for each attempt that lasts. */
import * as ClusterConfig from "@orrery/core/ClusterConfig"
import { Journal } from "@orrery/core/Journal"
import * as MemoryStore from "@orrery/core/MemoryStore"
import { PartitionStore } from "@orrery/core/PartitionStore"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { assert, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { attach, heldBack, name, reportOf, request, startNode, success, until } from "./actorRig.js"

const limited = JSON.stringify({ limits: [{ name: "t", key: "k", limit: 100 }] })
const requests = (count: number) =>
  Array.from({ length: count }, (_, at) => request({ id: unsafeMakeRunId(1_700_000_000_000 + at), keys: limited }))

const rig = Effect.gen(function*() {
  const store = yield* Layer.build(MemoryStore.layer)
  const { journal, letGo, submitted } = yield* Effect.provide(heldBack(({ roll }) => roll !== undefined), store)
  const { actor, residents } = yield* Effect.provide(startNode(), Context.merge(store, Context.make(Journal, journal)))
  return { actor, letGo, submitted, ...attach(residents), partitions: Context.get(store, PartitionStore) }
}).pipe(Effect.provide(ClusterConfig.layer()))

it.scopedLive("are told to workers when their roll is durable, and those that end soon are not written again", () =>
  Effect.gen(function*() {
    const { actor, assigned, letGo, session, submitted } = yield* rig
    yield* actor.enqueue(requests(5))
    yield* until(() => submitted.some(({ roll }) => roll !== undefined))
    yield* Effect.sleep("20 millis")
    assert.lengthOf(assigned, 0)
    yield* letGo
    yield* until(() => assigned.length === 5)
    const [last, ...short] = assigned
    yield* session.report(short.map((each) => reportOf(each, success)))
    yield* until(() => submitted.some(({ updates }) => updates.length > 0))

    const rolls = submitted.flatMap(({ roll }) => roll ?? [])
    assert.deepStrictEqual(rolls.map(({ slot, starts }) => [slot, starts.length]), [[0, 5]])
    const marked = submitted.flatMap(({ updates }) => updates.map(({ id, lease, state }) => ({ id, lease, state })))
    const shortIds = new Set(short.map(({ runId }) => runId))
    // A slow machine may have marked some of them before they were reported.
    assert.deepInclude(marked, { id: last!.runId, lease: last!.lease, state: "running" })
    assert.isTrue(marked.every(({ id }) => id === last!.runId || shortIds.has(id)))
    yield* session.report([reportOf(last!, success)])

    // Its slot is free.
    yield* actor.enqueue([request({ id: unsafeMakeRunId(1_700_000_001_000), keys: limited })])
    yield* until(() => assigned.length === 6)
    assert.deepStrictEqual(submitted.flatMap(({ roll }) => roll?.slot ?? []), [0, 0])
  }))

it.scopedLive("are found by the next owner", () =>
  Effect.gen(function*() {
    const { actor, assigned, letGo, partitions } = yield* rig
    yield* letGo
    yield* actor.enqueue(requests(3))
    yield* until(() => assigned.length === 3)

    const { running } = yield* partitions.takeOver(name, "another")

    const held = (list: ReadonlyArray<{ readonly lease: number; readonly attempt: number }>) =>
      list.map(({ attempt, lease }) => ({ attempt, lease }))
    assert.sameDeepMembers(held(running), held(assigned))
    assert.deepStrictEqual(running.map(({ state, worker }) => ({ state, worker })), [
      { state: "running", worker: "w" },
      { state: "running", worker: "w" },
      { state: "running", worker: "w" }
    ])
  }))
