/**
 * Each command that controls queues and runs, on a node of a cluster: one of each family, and each way to end, by a process of
 * its own; the many other cases in this one.
 */
import * as LocalCluster from "@orrery/cli/LocalCluster"
import { assert, describe, it } from "@effect/vitest"
import type * as DeadLetters from "@orrery/core/DeadLetters"
import type { QueueRecord } from "@orrery/core/QueueSettings"
import type { Edited } from "@orrery/core/RunEdit"
import { endAtOnce, eventually } from "@orrery/testing/ClusterRig"
import * as TestPostgres from "../../testing/src/TestPostgres.js"
import { Effect, Fiber } from "effect"
import { handlersOf } from "./handlersOf.js"
import { type Answer, orrery, orreryHere } from "./orrery.js"

const noRun = "01890000-0000-7000-8000-000000000000"

describe("control of a cluster by its command", () => {
  it.scopedLive(
    "does what it says, prints it for people and for programs, and refuses with a reason",
    () =>
      Effect.gen(function*() {
        const databaseUrl = yield* TestPostgres.freshDatabase
        const cluster = yield* LocalCluster.start({ databaseUrl, nodes: 1, ...handlersOf("control") })
        yield* endAtOnce(cluster)
        const env = { ORRERY_NODES: cluster.addresses[0]! }
        const run = (...args: ReadonlyArray<string>) => orreryHere(env, ...args)
        const process = (...args: ReadonlyArray<string>) => orrery(env, ...args)
        const okOf = (how: typeof run) => (...args: ReadonlyArray<string>) =>
          Effect.map(how(...args), ({ code, err, out }) => {
            assert.strictEqual(code, 0, `${args.join(" ")}: ${err}`)
            return out
          })
        const ok = okOf(run)
        const okProcess = okOf(process)
        const json = <A>(...args: ReadonlyArray<string>) =>
          Effect.map(ok(...args, "--json"), (out) => JSON.parse(out) as A)
        const lines = (text: string) => text.split("\n").filter((line) => line !== "")
        const refused = (cases: ReadonlyArray<readonly [args: ReadonlyArray<string>, reason: RegExp]>, how = run) =>
          Effect.forEach(cases, ([args, reason]) =>
            Effect.map(how(...args), ({ code, err, out }: Answer) => {
              assert.strictEqual(code, 1, `${args.join(" ")}: ${out} ${err}`)
              // The parser of arguments explains on standard output or error.
              assert.match(`${out}\n${err}`, reason, args.join(" "))
            }), { concurrency: 4, discard: true })
        const enqueue = (task: string, ...args: ReadonlyArray<string>) =>
          Effect.map(ok("enqueue", task, "--queue", "work", ...args), lines)
        // No cluster, and none that answers: 10 s each, beside all else.
        const nowhere = yield* Effect.forkScoped(Effect.all([
          orreryHere({}, "queues", "list"),
          orrery({ ORRERY_NODES: "127.0.0.1:1" }, "runs", "edit", noRun, "--priority", "1"),
          orreryHere({}, "runs", "list", "--nodes", "127.0.0.1:9"),
          orreryHere({ ORRERY_NODES: "127.0.0.1:1" }, "runs", "delete-many", "--queue", "work")
        ], { concurrency: 4 }))

        // By a process: the parser refuses, a node does.
        yield* refused([[["queues", "show"], /QUEUE/], [
          ["runs", "edit", noRun, "--priority", "1"],
          /run 01890000-\S+ not found/
        ]], process)

        // Queues.
        const paused = yield* okProcess("queues", "pause", "work", "--by", "ann", "--why", "the relay is down")
        assert.match(paused, /^default\/work {2}revision 1 .* ann\n {2}paused by ann: the relay is down$/)
        const limited = yield* json<QueueRecord>("queues", "set-limit", "work", "--concurrency", "3", "--rate", "50")
        assert.deepInclude(limited, { revision: 2, queue: "work" })
        assert.deepStrictEqual(limited.settings.override, { concurrency: 3, rate: { limit: 50, perMs: 1_000 } })
        yield* refused([
          [["queues", "pause", "work", "--revision", "7"], /are at revision 2, not 7/],
          [["queues", "set-limit", "work"], /limit must be --concurrency, --rate or --max-depth, got none/],
          [["queues", "set-limit", "work", "--concurrency", "0"], /concurrency/],
          [
            ["queues", "set-limit", "work", "--concurrency", "1", "--per", "1 second"],
            /--per must be absent without --rate/
          ],
          [["queues", "pause", "work", "--key", "nonsense"], /key/i],
          [["queues", "pause", "not a name"], /1 to 200 characters/]
        ])

        // Edits, while the queue is paused.
        const [id] = lines(yield* okProcess("enqueue", "echo", "--queue", "work", "--payload", "{\"a\":1}"))
        assert.match(yield* ok("runs", "explain", id!), /ann/)
        assert.match(
          yield* ok("runs", "edit", id!, "--payload", "{\"a\":2}", "--priority", "1"),
          /^ready {2}\S+Z {2}priority 1$/
        )
        const later = yield* json<Edited>("runs", "edit", id!, "--delay", "3600000")
        assert.deepStrictEqual([later.id, later.state, later.priority], [id, "scheduled", 1])
        const at = yield* json<Edited>("runs", "edit", id!, "--at", "2040-01-01T00:00:00Z")
        assert.strictEqual(at.scheduledAt, Date.UTC(2040, 0))
        yield* refused([
          [["runs", "edit", id!], /edit must be of payload, priority, delay or at, got none/],
          [["runs", "edit", id!, "--payload", "{a"], /--payload is not JSON/],
          [["runs", "edit", id!, "--payload-version", "2"], /version must be absent without a payload/],
          [["runs", "edit", id!, "--payload", "1", "--payload-version", "0"], /version must be 1 to 9999, got 0/],
          [["runs", "edit", id!, "--priority", "12"], /priority must be an integer from 0 to 9, got 12/],
          [["runs", "edit", id!, "--delay", "-1"], /delay must be 0 to/],
          [["runs", "edit", id!, "--delay", "1", "--at", "2040-01-01"], /--at must be absent with --delay, got both/],
          [["runs", "edit", id!, "--at", "tomorrow"], /must be an instant/],
          [["runs", "edit", "nobody", "--priority", "1"], /UUID|version 7|nobody/i]
        ])
        yield* ok("runs", "edit", id!, "--delay", "0")
        const resumed = yield* ok("queues", "resume", "work", "--by", "ann")
        assert.notInclude(resumed, "paused")
        const done = yield* json<{ readonly result: unknown }>("runs", "await", id!)
        assert.deepStrictEqual(done.result, { a: 2 })
        yield* refused([[["runs", "edit", id!, "--priority", "1"], /is succeeded, only one that waits can be edited/]])
        const reset = yield* json<QueueRecord>("queues", "reset-limits", "work")
        assert.deepStrictEqual(reset.settings.override, {})
        const listed = (yield* ok("queues", "list", "--json")).split("\n").map((line) =>
          JSON.parse(line) as QueueRecord
        )
        assert.deepStrictEqual(listed.map(({ queue, revision }) => [queue, revision]), [["work", 4]])
        assert.strictEqual((yield* json<QueueRecord>("queues", "show", "work")).changedBy, "orrery queues")

        // Many at once.
        yield* enqueue("echo", "--delay", "3600000", "--count", "5")
        const [stuck] = yield* enqueue("stuck")
        yield* eventually(
          json<{ readonly state: string }>("runs", "get", stuck!),
          ({ state }) => state === "running"
        )
        const dry = yield* ok("runs", "cancel-many", "--queue", "work", "--dry-run")
        assert.match(dry, /^6 runs\nnone cancelled, this is a dry run\n/)
        assert.strictEqual(lines(dry).length, 8)
        const some = yield* json("runs", "cancel-many", "--queue", "work", "--state", "scheduled", "--limit", "2")
        assert.deepInclude(some, { matched: 2, cancelled: 2, isComplete: false })
        const rest = yield* ok("runs", "cancel-many", "--task", "echo")
        assert.strictEqual(rest, "3 runs\n3 cancelled, 0 being interrupted, 0 had ended")
        const running = yield* json("runs", "cancel-many", "--queue", "work", "--state", "running")
        assert.deepInclude(running, { matched: 1, requested: 1 })
        assert.strictEqual((yield* process("runs", "await", stuck!)).code, 1)
        yield* refused([
          [["runs", "cancel-many"], /filter must be with a namespace, a queue or a task, got none/],
          [["runs", "cancel-many", "--task", "echo@2"], /must be 1 to 200 characters of/],
          [["runs", "cancel-many", "--queue", "work", "--limit", "0"], /limit must be 1 to 1000000, got 0/],
          [["runs", "cancel-many", "--queue", "work", "--state", "failed"], /scheduled|Expected/]
        ])

        const [flaky] = yield* enqueue("flaky")
        yield* eventually(
          json<{ readonly state: string }>("runs", "get", flaky!),
          ({ state }) => state === "retrying"
        )
        assert.match(yield* ok("runs", "retry-many", "--task", "flaky", "--dry-run"), /^1 runs\nnone changed, .*\n0/)
        assert.strictEqual(
          yield* ok("runs", "retry-many", "--task", "flaky"),
          "1 runs\n1 due now, 0 did not wait any more"
        )
        assert.deepInclude(yield* json("runs", "await", flaky!), { state: "succeeded", attempt: 2 })
        assert.deepInclude(yield* json("runs", "delete-many", "--task", "flaky"), { matched: 1, deleted: 1 })
        yield* refused([[["runs", "retry-many"], /filter must be with a namespace, a queue or a task, got none/]])

        // Dead letters.
        yield* enqueue("doomed", "--count", "3")
        const dead = yield* eventually(
          Effect.map(ok("dead-letters", "list", "--queue", "work"), lines),
          (found) => found.length === 3
        )
        assert.match(dead[0]!, /work\/doomed {2}Down: /)
        const groups = yield* json<DeadLetters.Group>("dead-letters", "groups")
        assert.deepInclude(groups, { count: 3, tag: "Down", task: "doomed" })
        const filter = ["--queue", "work", "--fingerprint", groups.fingerprint]
        assert.match(yield* ok("dead-letters", "redrive", ...filter, "--dry-run"), /matched +3\nredriven +0\n/)
        const stopped = yield* process("dead-letters", "redrive", ...filter, "--canary", "1", "--json")
        assert.strictEqual(stopped.code, 1)
        assert.deepInclude(JSON.parse(stopped.out), { redriven: 1, failed: 1, stopped: "canaries failed" })
        assert.match(stopped.err, /stopped after 1 runs, canaries failed: 1 failed, 0 succeeded/)
        const again = yield* json<{ origin: string; isNew: boolean }>(
          ...["dead-letters", "redrive", dead[0]!.slice(0, 36)]
        )
        assert.deepInclude(again, { origin: dead[0]!.slice(0, 36), isNew: false })
        assert.match(
          yield* ok("dead-letters", "delete", ...filter, "--dry-run"),
          /^4 runs\nnone deleted, this is a dry run\n/
        )
        assert.deepInclude(yield* json("dead-letters", "delete", ...filter, "--limit", "1"), {
          matched: 1,
          deleted: 1,
          isComplete: false
        })
        assert.strictEqual(yield* ok("dead-letters", "delete", "--queue", "work"), "3 runs\n3 deleted")
        assert.strictEqual(yield* ok("dead-letters", "list", "--queue", "work"), "")
        yield* refused([
          [["dead-letters", "delete"], /filter must be with a namespace, a queue or a task, got none/],
          [["dead-letters", "redrive", "--rate", "0"], /perSecond must be 0.1 to 1000, got 0/],
          [["dead-letters", "list", "--since", "soon"], /soon|date/i],
          [["dead-letters", "redrive", noRun], /not found/]
        ])

        // Deletes.
        const kept = yield* json("runs", "delete-many", "--queue", "work", "--until", "2020-01-01")
        assert.deepInclude(kept, { matched: 0, deleted: 0 })
        assert.strictEqual(
          yield* ok("runs", "delete-many", "--queue", "work", "--state", "succeeded"),
          "1 runs\n1 deleted"
        )
        assert.deepInclude(yield* json("runs", "delete-many", "--task", "echo", "--dry-run"), {
          matched: 5,
          deleted: 0
        })
        assert.deepInclude(yield* json("runs", "delete-many", "--queue", "work"), { matched: 6, deleted: 6 })
        assert.strictEqual(yield* ok("runs", "list", "--queue", "work"), "")
        yield* refused([
          [["runs", "get", id!], /not found/],
          [
            ["runs", "delete-many", "--state", "failed"],
            /filter must be with a namespace, a queue or a task, got none/
          ],
          [["runs", "delete-many", "--queue", "work", "--since", "soon"], /must be an instant/]
        ])

        // Retention.
        const forever = yield* json<QueueRecord>(
          "queues",
          "set-retention",
          "work",
          "--failed",
          "forever",
          "--by",
          "ann"
        )
        assert.deepStrictEqual([forever.revision, forever.settings.retention], [5, { failed: "forever" }])
        const more = yield* json<QueueRecord>("queues", "set-retention", "work", "--succeeded", "1 day")
        assert.deepStrictEqual(more.settings.retention, { failed: "forever", succeeded: "1 day" })
        yield* refused([
          [
            ["queues", "set-retention", "work", "--failed", "14 days"],
            /retention.failed must be one of 1 day, .*, got 14 days/
          ],
          [["queues", "set-retention", "work"], /retention must be /],
          [["queues", "reset-retention", "work", "--revision", "5"], /are at revision 6, not 5/]
        ])
        const unsaid = yield* json<QueueRecord>("queues", "reset-retention", "work")
        assert.deepStrictEqual([unsaid.revision, unsaid.settings.retention], [7, undefined])

        const [none, edit, list, remove] = yield* Fiber.join(nowhere)
        assert.deepStrictEqual([none, edit, list, remove].map(({ code }) => code), [1, 69, 69, 69])
        assert.match(none.err, /which cluster\? give --nodes/)
        assert.match(edit.err, /cluster unavailable in edit/)
        assert.match(list.err, /cluster unavailable/)
      }),
    600_000
  )
})
