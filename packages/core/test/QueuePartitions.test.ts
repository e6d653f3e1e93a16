import { assert, describe, it } from "@effect/vitest"
import * as QueuePartitions from "@orrery/core/QueuePartitions"
import { unsafeMakeRunId } from "@orrery/core/RunId"

describe("QueuePartitions", () => {
  it("reads a list, with and without namespaces", () => {
    assert.deepStrictEqual(
      [...QueuePartitions.parse("mail=4, reports|pdf=2")!],
      [["default|mail", 4], ["reports|pdf", 2]]
    )
    assert.strictEqual(QueuePartitions.parse("")!.size, 0)
  })

  it("refuses what is no such list", () => {
    for (const text of ["mail", "mail=", "mail=0", "mail=257", "mail=2,mail=3", "a b=2", "=3", "a|b|c=2", "mail=1.5"]) {
      assert.isUndefined(QueuePartitions.parse(text), text)
    }
  })

  it("spreads the runs of a queue evenly, each always to the same partition, and leaves other queues alone", () => {
    const partitions = QueuePartitions.parse("mail=4")!
    const ids = Array.from({ length: 8_000 }, () => unsafeMakeRunId(1_800_000_000_000))
    const counts = [0, 0, 0, 0]
    for (const id of ids) {
      const run = { namespace: "default", queue: "mail", task: "t", policy: "{}", id, keys: null }
      const partition = QueuePartitions.partitionOf(partitions, run)
      assert.strictEqual(partition, QueuePartitions.partitionOf(partitions, run))
      counts[partition]! += 1
      assert.strictEqual(QueuePartitions.partitionOf(partitions, { ...run, queue: "other" }), 0)
      assert.strictEqual(QueuePartitions.partitionOf(partitions, { ...run, namespace: "other" }), 0)
    }
    for (const count of counts) assert.isAbove(count, 1_700)
  })
})
