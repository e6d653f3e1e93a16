import { assert, layer } from "@effect/vitest"
import { PartitionStore } from "@orrery/core/PartitionStore"
import { type QueueCall, rulesOf } from "@orrery/core/QueueSettings"
import { QueueSettingsStore } from "@orrery/core/QueueSettingsStore"
import * as Queues from "@orrery/core/Queues"
import { Effect, Either, type Layer } from "effect"
import { samplePartition } from "./storeSamples.js"

/** What every `QueueSettingsStore` must do, together with the `PartitionStore` and the `Queues` made of them. */
export const queueSettingsContract = (
  name: string,
  store: Layer.Layer<QueueSettingsStore | PartitionStore, unknown>
): void =>
  layer(store, { excludeTestServices: true, timeout: 60_000 })(`QueueSettingsStore contract: ${name}`, (it) => {
    const queuesOf = (told: Array<number> = []) =>
      Effect.gen(function*() {
        const store = yield* QueueSettingsStore
        const { now } = yield* PartitionStore
        return Queues.make({
          store,
          now,
          partitionsOf: ({ queue }) => queue === "wide" ? 4 : 1,
          tell: ({ revision }) => Effect.sync(() => void told.push(revision))
        })
      })
    const sample = () => {
      const { namespace, queue } = samplePartition()
      return { namespace, queue }
    }
    const pauseOf = (of: ReturnType<typeof sample>, by = "ann"): QueueCall => ({
      _tag: "pause",
      ...of,
      by,
      why: "leak"
    })

    it.effect("keeps what is said, and tells owners and lists of it", () =>
      Effect.gen(function*() {
        const of = sample()
        const told: Array<number> = []
        const queues = yield* queuesOf(told)
        const { newerSettings, takeOver } = yield* PartitionStore
        const fresh = yield* takeOver({ ...of, partition: 0 }, "node")
        const none = yield* queues.get(of)
        const listed = yield* queues.list({ namespace: of.namespace, limit: 10 })

        const first = yield* queues.call(pauseOf(of))
        const again = yield* queues.call(pauseOf(of))
        const second = yield* queues.call({ _tag: "setLimits", ...of, by: "bob", limits: { concurrency: 3 } })

        assert.isUndefined(fresh.settings)
        assert.strictEqual(none.revision, 0)
        assert.deepStrictEqual(listed, [none])
        assert.strictEqual(first.settings.paused?.by, "ann")
        assert.isAbove(first.changedAt!, 1_000_000)
        assert.deepStrictEqual(again, first, "said again it changes nothing")
        assert.deepStrictEqual([second.revision, second.changedBy], [2, "bob"])
        assert.deepStrictEqual(told, [1, 2])
        assert.deepStrictEqual(yield* queues.get(of), second)
        assert.deepStrictEqual((yield* takeOver({ ...of, partition: 0 }, "node")).settings, second)
        assert.deepStrictEqual(yield* queues.list({ namespace: of.namespace, limit: 10 }), [second])
        const known = (revision: number) => [{ ...of, revision }, { ...sample(), revision: 0 }]
        assert.deepStrictEqual(yield* newerSettings(known(1)), [second])
        assert.deepStrictEqual(yield* newerSettings(known(2)), [])
      }))

    it.effect("lists page by page, by namespace and name", () =>
      Effect.gen(function*() {
        const { namespace } = sample()
        const queues = yield* queuesOf()
        const names = ["b", "a", "c"].map((queue) => ({ namespace, queue }))
        yield* Effect.forEach(names, (of) => queues.call(pauseOf(of)))

        const head = yield* queues.list({ namespace, limit: 2 })
        const rest = yield* queues.list({ namespace, limit: 2, after: `${namespace}|b` })

        assert.deepStrictEqual([head, rest].map((page) => page.map(({ queue }) => queue)), [["a", "b"], ["c"]])
      }))

    it.effect("lets one of many that saw the same revision change it", () =>
      Effect.gen(function*() {
        const of = sample()
        const queues = yield* queuesOf()
        yield* queues.call(pauseOf(of))

        const results = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, n) => n + 1),
          (concurrency) =>
            Effect.either(
              queues.call({ _tag: "setLimits", ...of, by: `n${concurrency}`, expected: 1, limits: { concurrency } })
            ),
          { concurrency: "unbounded" }
        )

        const won = results.flatMap((each) => Either.isRight(each) ? [each.right] : [])
        const lost = results.flatMap((each) => Either.isLeft(each) ? [each.left._tag] : [])
        assert.strictEqual(won.length, 1)
        assert.deepStrictEqual([...new Set(lost)], ["RevisionStale"])
        assert.deepStrictEqual(yield* queues.get(of), won[0])
      }))

    it.effect("loses nothing that many say at once of different things", () =>
      Effect.gen(function*() {
        const of = sample()
        const queues = yield* queuesOf()
        const keys = Array.from({ length: 12 }, (_, n) => ({ kind: "fairness", key: `t${n}` } as const))

        yield* Effect.forEach(
          keys,
          (key) => queues.call({ _tag: "pause", ...of, by: "ann", why: "", key }),
          { concurrency: "unbounded" }
        )

        const { revision, settings } = yield* queues.get(of)
        assert.strictEqual(revision, keys.length)
        assert.sameDeepMembers(settings.pausedKeys.map((each) => each.of), keys)
        const resumed = yield* queues.call({ _tag: "resume", ...of, by: "ann", key: keys[3]! })
        assert.strictEqual(resumed.settings.pausedKeys.length, keys.length - 1)
      }))

    it.effect("is not changed by a stale deploy, whatever the order in which releases come", () =>
      Effect.gen(function*() {
        const of = sample()
        const queues = yield* queuesOf()
        const declare = (version: number): QueueCall => (
          { _tag: "declare", ...of, by: `v${version}`, version, limits: { concurrency: version * 10 } }
        )
        yield* queues.call({ _tag: "setLimits", ...of, by: "ann", limits: { rate: { limit: 5, perMs: 1_000 } } })

        yield* Effect.forEach([3, 1, 5, 2, 4], (version) => queues.call(declare(version)), { concurrency: "unbounded" })
        const last = yield* queues.get(of)
        const again = yield* queues.call(declare(4))

        assert.deepStrictEqual(last.settings.declared, { version: 5, limits: { concurrency: 50 } })
        assert.deepStrictEqual(again, last)
        assert.deepStrictEqual(last.settings.override, { rate: { limit: 5, perMs: 1_000 } }, "what people said stays")
        const reset = yield* queues.call({ _tag: "resetLimits", ...of, by: "ann" })
        assert.deepStrictEqual(reset.settings.override, {})
      }))

    it.effect("keeps retention said at run time before what the code declares, until it is taken back", () =>
      Effect.gen(function*() {
        const of = sample()
        const queues = yield* queuesOf()
        const declared = { version: 2, limits: {}, retention: { succeeded: "1 day", failed: "90 days" } } as const
        yield* queues.call({ _tag: "declare", ...of, by: "v2", ...declared })
        yield* queues.call({ _tag: "setRetention", ...of, by: "ann", retention: { failed: "365 days" } })

        const { settings } = yield* queues.call({
          _tag: "setRetention",
          ...of,
          by: "ann",
          retention: { expired: "1 day" }
        })
        const again = yield* queues.call({ _tag: "setRetention", ...of, by: "bob", retention: { failed: "365 days" } })
        yield* queues.call({ _tag: "declare", ...of, by: "v1", version: 1, limits: {} })
        yield* queues.call({ _tag: "resetLimits", ...of, by: "ann" })
        const kept = yield* queues.get(of)
        const reset = yield* queues.call({ _tag: "resetRetention", ...of, by: "ann" })

        assert.deepStrictEqual(settings.retention, { failed: "365 days", expired: "1 day" })
        assert.deepStrictEqual(settings.declared, declared)
        assert.strictEqual(again.revision, 3, "said again it changes nothing")
        assert.deepStrictEqual(kept, again)
        assert.deepStrictEqual(rulesOf(kept.settings, 0, 1).retention, {
          succeeded: "1 day",
          failed: "365 days",
          expired: "1 day"
        })
        assert.deepStrictEqual(rulesOf(reset.settings, 0, 1).retention, declared.retention)
        assert.notProperty(reset.settings, "retention")
      }))

    it.effect("refuses what it could not keep, and names it", () =>
      Effect.gen(function*() {
        const of = sample()
        const queues = yield* queuesOf()
        const refused = (call: QueueCall) => Effect.map(Effect.flip(queues.call(call)), ({ message }) => message)
        const limits = { _tag: "setLimits", ...of, by: "ann" } as const

        assert.match(
          yield* refused({ ...limits, limits: { concurrency: 0 } }),
          /^settings.limits.concurrency must.* got 0$/
        )
        assert.match(
          yield* refused({ ...limits, queue: "wide", limits: { concurrency: 3 } }),
          /concurrency must be at least 4, one for each partition of the queue, got 3/
        )
        assert.match(
          yield* refused({ ...limits, limits: { rate: { limit: 10_001, perMs: 1 } } }),
          /^settings.limits.rate.limit must.* got 10001$/
        )
        const many = Array.from({ length: 101 }, (_, n) => ({ name: `n${n}`, limit: 1 }))
        yield* queues.call({ ...limits, limits: { limits: many.slice(0, 60) } })
        assert.match(
          yield* refused({ ...limits, limits: { limits: many.slice(50) } }),
          /named limits must be at most 100 of one queue, got 101/
        )
        const retention = (said: object) => refused({ _tag: "setRetention", ...of, by: "ann", retention: said })
        assert.match(
          yield* retention({ failed: "14 days" }),
          /^retention.failed must be one of 1 day, 7 days.*forever, got 14 days$/
        )
        assert.match(yield* retention({ succeeded: "none" }), /^retention.succeeded must .* said of a task.* got none$/)
        assert.match(
          yield* retention({ retrying: "1 day" }),
          /^retention must be an object of succeeded.* got retrying$/
        )
        assert.match(yield* retention({}), /^retention must be at least one of succeeded.* got none of them$/)
        assert.strictEqual((yield* queues.get(of)).revision, 1)
      }))
  })
