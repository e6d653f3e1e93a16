import { assert, describe, it } from "@effect/vitest"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import { RunState } from "@orrery/core/RunState"
import { eventsMax, type RunEvent } from "@orrery/core/Signals"
import { FastCheck as fc } from "effect"
import * as Interest from "../src/Interest.js"
import * as SignalFrame from "../src/SignalFrame.js"

const events: fc.Arbitrary<ReadonlyArray<RunEvent>> = fc.array(
  fc.tuple(
    fc.integer({ min: 0, max: 2 ** 41 }).map((ms) => unsafeMakeRunId(ms)),
    fc.constantFrom(...RunState.literals, "tells" as const)
  ).map(([id, state]) => state === "tells" ? { id, state: "running", isProgress: true } : { id, state }),
  { minLength: 1, maxLength: 40 }
)

describe("SignalFrame", () => {
  it("comes back as it was", () => {
    fc.assert(fc.property(events, fc.nat(), (all, number) => {
      const message = SignalFrame.decodeMessage(Buffer.from(`1 17 ${number} ${SignalFrame.encode(all)}`))

      assert.deepStrictEqual(message, { incarnation: "17", number, frame: all })
    }))
  })

  it("tells of a commit that is too large only that there was one", () => {
    const id = unsafeMakeRunId(1)
    const most = Array.from({ length: eventsMax }, (): RunEvent => ({ id, state: "ready" }))

    assert.strictEqual(SignalFrame.encode(most).length, SignalFrame.frameLengthMax)
    assert.deepStrictEqual(SignalFrame.decode(SignalFrame.encode(most)), most)
    assert.strictEqual(SignalFrame.encode([...most, ...most]), SignalFrame.many)
  })

  it("reads nothing from what is not a frame, and does not throw", () => {
    const whole = Buffer.from(`1 17 5 ${SignalFrame.encode([{ id: unsafeMakeRunId(1), state: "failed" }])}`)
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      SignalFrame.decodeMessage(Buffer.from(bytes))
      Interest.decode(Buffer.from(bytes))
    }))
    for (let length = 0; length < whole.length; length++) {
      assert.isUndefined(SignalFrame.decodeMessage(whole.subarray(0, length)))
    }
    for (const cursor of ["", "1", "1.", ".1", "1.1.1", "a.1", `${"1".repeat(30)}.1`]) {
      assert.isUndefined(SignalFrame.positionOf(cursor))
    }
  })

  it("costs little, whatever it is", () => {
    const large = Buffer.alloc(50 * 1024 * 1024, "e")
    const began = performance.now()
    for (let n = 0; n < 10_000; n++) if (SignalFrame.decodeMessage(large) !== undefined) assert.fail("it was read")

    // Some milliseconds. Reading each through would take minutes.
    assert.isBelow(performance.now() - began, 10_000)
  })
})

describe("Interest", () => {
  it("ends without a word, and owes a gap for what was kept back", () => {
    let now = 0
    const interest = new Interest.Interest(() => now)
    interest.kept("a|b")

    assert.isTrue(interest.learn("a|b"))
    assert.isFalse(interest.learn("a|b"))
    assert.isFalse(interest.learn("a|c"))
    assert.isTrue(interest.isWatched("a|b"))
    now = 20_000
    assert.isFalse(interest.isWatched("a|b"))
    assert.isFalse(interest.learn("a|b"))
  })

  it("remembers so many queues and no more", () => {
    const interest = new Interest.Interest(() => 0)
    for (let n = 0; n < 30_000; n++) interest.learn(`a|${n}`)
    for (let n = 0; n < 30_000; n++) interest.kept(`b|${n}`)

    assert.isTrue(interest.isWatched("a|5"))
    assert.isFalse(interest.isWatched("a|29999"))
  })

  it("says what it reads", () => {
    const keys = Array.from({ length: 250 }, (_, n) => `tests|queue-${n}`)
    const messages = Interest.announcements(keys)

    assert.deepStrictEqual(messages.flatMap((each) => Interest.decode(Buffer.from(each))), keys)
    assert.isAtMost(messages.length, 3)
  })
})
