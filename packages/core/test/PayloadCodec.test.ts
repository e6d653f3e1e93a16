import { assert, describe, it } from "@effect/vitest"
import { InvalidRequest } from "@orrery/core/Errors"
import * as PayloadCodec from "@orrery/core/PayloadCodec"
import { ConfigProvider, Effect, Either, FastCheck as fc, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import { inspect } from "node:util"
import { deflateRawSync } from "node:zlib"

const keyText = () => randomBytes(32).toString("base64")
const key = () => Redacted.make(keyText())
const place: PayloadCodec.Place = { namespace: "default", run: "run-1", task: "charge", field: "payload" }
const keys = { old: key(), new: key() }
const before = PayloadCodec.make({ encrypt: { key: "old", keys: { old: keys.old } } })
const after = PayloadCodec.make({ compressFrom: 100, encrypt: { key: "new", keys } })
const squeezing = PayloadCodec.make({ compressFrom: 100 })

const reasonOf = (result: Either.Either<string, { readonly reason: string }>) =>
  Either.match(result, { onLeft: ({ reason }) => reason, onRight: (text) => `opened ${text}` })

describe("PayloadCodec", () => {
  it.prop(
    "gives back what was sealed, at the same place",
    [fc.string({ unit: "grapheme", maxLength: 2_000 })],
    ([text]) => {
      const json = JSON.stringify(text)
      for (const codec of [before, after, squeezing]) {
        const sealed = codec.seal(json, place)
        assert.strictEqual(reasonOf(codec.open(sealed, place)), `opened ${json}`)
        // PostgreSQL text, and no JSON.
        assert.match(sealed, sealed === json ? /^"/ : /^~[ze]1:[A-Za-z0-9_.:-]+$/)
      }
      return true
    }
  )

  it("encrypts the same text differently each time, and shows nothing of it", () => {
    const text = JSON.stringify({ card: "canary-4111" })

    assert.notStrictEqual(before.seal(text, place), before.seal(text, place))
    assert.notInclude(Buffer.from(before.seal(text, place).split(":")[3]!, "base64url").toString("latin1"), "canary")
  })

  it("opens what was written before a rotation, and writes with the new key", () => {
    const sealed = before.seal("1", place)

    assert.strictEqual(reasonOf(after.open(sealed, place)), "opened 1")
    assert.match(after.seal("1", place), /^~e1:new:r:/)
    assert.strictEqual(reasonOf(before.open(after.seal("1", place), place)), "unknown-key")
  })

  it("opens what was written before there was a codec", () => {
    assert.strictEqual(reasonOf(after.open(`{"a":1}`, place)), `opened {"a":1}`)
  })

  it("refuses a text that was moved: to another run, namespace, or field of the same run", () => {
    const sealed = before.seal("1", place)
    for (const moved of [{ run: "run-2" }, { namespace: "other" }, { field: "result" as const }]) {
      assert.strictEqual(reasonOf(before.open(sealed, { ...place, ...moved })), "not-authentic")
    }
    // Which binding it has cannot be changed either.
    assert.strictEqual(reasonOf(before.open(sealed.replace(":r:", ":t:"), place)), "not-authentic")
  })

  it("binds a text of no run to its task", () => {
    const sealed = before.seal("1", { ...place, run: undefined })

    assert.strictEqual(reasonOf(before.open(sealed, { ...place, run: "any" })), "opened 1")
    assert.strictEqual(reasonOf(before.open(sealed, { ...place, task: "other" })), "not-authentic")
  })

  it("refuses a text of which any byte was changed", () => {
    const sealed = before.seal(`{"amount":1}`, place)
    const [mark, id, scope, body] = sealed.split(":")
    const bytes = Buffer.from(body!, "base64url")
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes)
      changed[at]! ^= 1
      const text = [mark, id, scope, changed.toString("base64url")].join(":")
      assert.strictEqual(reasonOf(before.open(text, place)), "not-authentic")
    }
    assert.strictEqual(reasonOf(before.open(sealed.slice(0, 40), place)), "not-authentic")
    assert.strictEqual(reasonOf(before.open("~e1:old:r", place)), "malformed")
    assert.strictEqual(reasonOf(before.open("~x9:whatever", place)), "malformed")
  })

  it("refuses the key of another process with the same id", () => {
    const other = PayloadCodec.make({ encrypt: { key: "old", keys: { old: key() } } })

    assert.strictEqual(reasonOf(other.open(before.seal("1", place), place)), "not-authentic")
  })

  it("does not unpack more than there may be", () => {
    const bomb = deflateRawSync(Buffer.alloc(PayloadCodec.openedBytesMax + 1, 32))
    assert.isBelow(bomb.length, 20_000)

    assert.strictEqual(reasonOf(squeezing.open(`~z1:${bomb.toString("base64url")}`, place)), "too-large")
    assert.strictEqual(reasonOf(squeezing.open("~z1:AAAA", place)), "malformed")
  })

  it("compresses from the threshold, and only what becomes smaller", () => {
    const long = JSON.stringify("a".repeat(1_000))

    assert.isBelow(squeezing.seal(long, place).length, 100)
    assert.isBelow(after.seal(long, place).length, 150)
    assert.strictEqual(squeezing.seal(`"short"`, place), `"short"`)
    const noise = JSON.stringify(randomBytes(200).toString("base64"))
    assert.strictEqual(squeezing.seal(noise, place), noise)
  })

  it("refuses bad options, and never shows a key", () => {
    const secret = `canary-${keyText()}`
    const make = (options: PayloadCodec.CodecOptions) => () => PayloadCodec.make(options)
    const short = make({ encrypt: { key: "a", keys: { a: Redacted.make(secret) } } })

    assert.throws(short, InvalidRequest, /key a must be 32 bytes as base64, got \d+ bytes/)
    assert.throws(make({ encrypt: { key: "b", keys: { a: key() } } }), InvalidRequest, "encrypt.key must be one of")
    assert.throws(make({ encrypt: { key: "a:b", keys: { "a:b": key() } } }), InvalidRequest, "id of a key")
    assert.throws(make({ compressFrom: -1 }), InvalidRequest, "compressFrom")
    try {
      short()
    } catch (problem) {
      assert.notInclude(inspect(problem, { depth: 9, showHidden: true }), "canary")
    }
    const known = keyText()
    const codec = PayloadCodec.make({ encrypt: { key: "a", keys: { a: Redacted.make(known) } } })
    const failed = codec.open(before.seal("1", place), place)
    const shown = inspect([codec, failed, Either.isLeft(failed) && failed.left.message], { depth: 9, showHidden: true })
    assert.notInclude(shown, known)
    assert.include(shown, "key old")
  })

  it.effect("reads its keys from the environment", () =>
    Effect.gen(function*() {
      const [a, b] = [keyText(), keyText()]
      const read = (values: ReadonlyArray<readonly [string, string]>) =>
        Effect.withConfigProvider(PayloadCodec.config, ConfigProvider.fromMap(new Map(values)))
      const codec = yield* read([["ORRERY_PAYLOAD_KEYS", `a=${a}, b=${b}`], ["ORRERY_PAYLOAD_KEY", "b"]])
      const first = yield* read([["ORRERY_PAYLOAD_KEYS", `a=${a}`]])
      const none = yield* read([])
      const wrong = yield* Effect.flip(read([["ORRERY_PAYLOAD_KEYS", `a=canary`]]))

      assert.strictEqual(reasonOf(codec.open(first.seal("1", place), place)), "opened 1")
      assert.match(codec.seal("1", place), /^~e1:b:/)
      assert.strictEqual(none.seal("1", place), "1")
      assert.notInclude(inspect(wrong, { depth: 9 }), "canary")
    }))
})
