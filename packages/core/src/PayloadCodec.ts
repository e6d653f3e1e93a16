/**
 * What clients and workers do to payloads, results, errors and checkpoints before they leave the process: compress and encrypt.
 * Nodes and the database see the outcome only; they need no keys, and have none.
 *
 * Encryption is AES-256-GCM with a random nonce per text. Authenticated with it are the namespace, the run and which of its
 * texts it is, so a text that is moved to another run is refused. A payload that may become that of another run (an identity
 * key: debounce and the like; a schedule) is bound to the namespace and the task instead.
 *
 * Not covered: names, keys of limits and order, identity keys, tags of errors, progress values and log lines.
 */
import { Config, type ConfigError, Context, Effect, Either, Layer, Option, Redacted } from "effect"
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject, randomBytes } from "node:crypto"
import { deflateRawSync, inflateRawSync } from "node:zlib"
import { InvalidRequest } from "./Errors.js"
import { CodecFailed, isSealed, keyIdOf } from "./Sealed.js"

/** Keys of one process. */
export const keysMax = 100
/** Largest text that a compressed one may become, in bytes: that of the largest payload a cluster can be set to. */
export const openedBytesMax = 16 * 1024 * 1024
const keyBytes = 32
const nonceBytes = 12
const tagBytes = 16
const keyIdPattern = /^[A-Za-z0-9_.-]{1,40}$/

export interface CodecOptions {
  /** Texts of at least so many bytes are compressed, where that makes them smaller. Default: none is. */
  readonly compressFrom?: number
  /** Default: nothing is encrypted. */
  readonly encrypt?: {
    /** Id of the key that new texts are encrypted with. */
    readonly key: string
    /** All that are known, by id: 32 bytes as base64. Those besides `key` open what was encrypted before a rotation. */
    readonly keys: { readonly [id: string]: Redacted.Redacted<string> }
  }
  /**
   * An attempt whose payload needs a key that this worker does not have: `fail` ends the run, `retry` tries it again by the policy
   * of its task. Default "fail".
   */
  readonly onUnknownKey?: "fail" | "retry"
}

/** Where a text belongs. */
export interface Place {
  readonly namespace: string
  /** Id of the run; a text of no run in particular has none. */
  readonly run: string | undefined
  /** Without a version. */
  readonly task: string
  readonly field: "payload" | "result" | "error" | "message" | "checkpoint"
}

export interface Codec {
  readonly encrypts: boolean
  readonly onUnknownKey: "fail" | "retry"
  readonly seal: (text: string, place: Place) => string
  /** A text that is not sealed is given back as it is: it was written before there was a codec. */
  readonly open: (text: string, place: Place) => Either.Either<string, CodecFailed>
}

/**
 * The codec of the program, for what goes to the database without passing by its ports: `enqueueInTransaction` and
 * `completeInTransaction`. The layers of `Orrery` that are given a codec provide it, to handlers too.
 */
export class PayloadCodec extends Context.Tag("@orrery/core/PayloadCodec")<PayloadCodec, Codec>() {}

/** That of the program, if it has one. */
export const current: Effect.Effect<Codec | undefined> = Effect.map(
  Effect.serviceOption(PayloadCodec),
  Option.getOrUndefined
)

interface Key {
  readonly id: string
  readonly secret: KeyObject
}

/** Throws `InvalidRequest` on bad options, without showing a key: a wrong codec is a mistake in the program. */
export const make = (options: CodecOptions): Codec => {
  const { compressFrom, encrypt, onUnknownKey = "fail" } = options
  if (compressFrom !== undefined && !(Number.isInteger(compressFrom) && compressFrom >= 0)) {
    throw new InvalidRequest({ field: "compressFrom", limit: "a number of bytes", actual: String(compressFrom) })
  }
  const keys = encrypt === undefined ? new Map<string, Key>() : keysOf(encrypt.keys)
  const current = encrypt === undefined ? undefined : keys.get(encrypt.key)
  if (encrypt !== undefined && current === undefined) {
    throw new InvalidRequest({ field: "encrypt.key", limit: "one of encrypt.keys", actual: encrypt.key })
  }

  const seal = (text: string, place: Place): string => {
    const isLong = compressFrom !== undefined && text.length * 3 >= compressFrom &&
      Buffer.byteLength(text) >= compressFrom
    if (current === undefined && !isLong) return text
    const plain = Buffer.from(text)
    const small = isLong ? deflateRawSync(plain, { level: 1 }) : plain
    const isSmaller = small.length < plain.length
    if (current === undefined) {
      const sealed = `~z1:${small.toString("base64url")}`
      return isSmaller && sealed.length < plain.length ? sealed : text
    }
    const nonce = randomBytes(nonceBytes)
    const cipher = createCipheriv("aes-256-gcm", current.secret, nonce, { authTagLength: tagBytes })
    cipher.setAAD(boundTo(place, current.id))
    const body = [Buffer.of(isSmaller ? 1 : 0), isSmaller ? small : plain].map((part) => cipher.update(part))
    body.push(cipher.final())
    const sealed = Buffer.concat([nonce, cipher.getAuthTag(), ...body]).toString("base64url")
    return `~e1:${current.id}:${place.run === undefined ? "t" : "r"}:${sealed}`
  }

  const open = (text: string, place: Place): Either.Either<string, CodecFailed> => {
    if (!isSealed(text)) return Either.right(text)
    const keyId = keyIdOf(text)
    const refuse = (reason: CodecFailed["reason"]) => Either.left(new CodecFailed({ reason, keyId }))
    if (text.startsWith("~z1:")) {
      const opened = inflated(Buffer.from(text.slice(4), "base64url"))
      return typeof opened === "string" ? refuse(opened) : Either.right(opened.toString())
    }
    const [, , scope, body] = text.split(":", 4)
    if (keyId === null || body === undefined || (scope !== "r" && scope !== "t")) return refuse("malformed")
    const key = keys.get(keyId)
    if (key === undefined) return refuse("unknown-key")
    const plain = decrypted(Buffer.from(body, "base64url"), key, scope === "t" ? { ...place, run: undefined } : place)
    if (plain === undefined) return refuse("not-authentic")
    if (plain[0] !== 1) return Either.right(plain.subarray(1).toString())
    const opened = inflated(plain.subarray(1))
    return typeof opened === "string" ? refuse(opened) : Either.right(opened.toString())
  }

  return { encrypts: current !== undefined, onUnknownKey, seal, open }
}

const keysOf = (given: NonNullable<CodecOptions["encrypt"]>["keys"]): Map<string, Key> => {
  const entries = Object.entries(given)
  if (entries.length > keysMax) {
    throw new InvalidRequest({ field: "encrypt.keys", limit: `at most ${keysMax}`, actual: `${entries.length}` })
  }
  return new Map(entries.map(([id, value]) => {
    if (!keyIdPattern.test(id)) {
      throw new InvalidRequest({
        field: "id of a key",
        limit: "1 to 40 of A-Z a-z 0-9 _ . -",
        actual: id.slice(0, 100)
      })
    }
    const bytes = Buffer.from(Redacted.value(value), "base64")
    if (bytes.length !== keyBytes) {
      throw new InvalidRequest({ field: `key ${id}`, limit: "32 bytes as base64", actual: `${bytes.length} bytes` })
    }
    return [id, { id, secret: createSecretKey(bytes) }]
  }))
}

/** No part can hold a NUL. */
const boundTo = ({ field, namespace, run, task }: Place, keyId: string): Buffer =>
  Buffer.from(["orrery1", keyId, field, namespace, ...run === undefined ? ["t", task] : ["r", run]].join("\0"))

/** `undefined`: it is not what was sealed there with that key. */
const decrypted = (body: Buffer, key: Key, place: Place): Buffer | undefined => {
  if (body.length <= nonceBytes + tagBytes) return undefined
  const decipher = createDecipheriv("aes-256-gcm", key.secret, body.subarray(0, nonceBytes), {
    authTagLength: tagBytes
  })
  decipher.setAAD(boundTo(place, key.id))
  decipher.setAuthTag(body.subarray(nonceBytes, nonceBytes + tagBytes))
  try {
    return Buffer.concat([decipher.update(body.subarray(nonceBytes + tagBytes)), decipher.final()])
  } catch {
    return undefined
  }
}

const inflated = (body: Buffer): Buffer | "too-large" | "malformed" => {
  try {
    return inflateRawSync(body, { maxOutputLength: openedBytesMax })
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE" ? "too-large" : "malformed"
  }
}

const made = (options: CodecOptions) =>
  Effect.try({ try: () => make(options), catch: (problem) => problem as InvalidRequest })

/**
 * From the environment: `ORRERY_PAYLOAD_KEYS` (`id=base64,...`, a secret), `ORRERY_PAYLOAD_KEY` (the id to write with; default: the
 * first) and `ORRERY_PAYLOAD_COMPRESS_FROM` (bytes). Nothing set: a codec that changes nothing.
 */
export const config: Effect.Effect<Codec, ConfigError.ConfigError | InvalidRequest> = Effect.gen(function*() {
  const keys = yield* Config.option(Config.redacted("ORRERY_PAYLOAD_KEYS"))
  const key = yield* Config.option(Config.string("ORRERY_PAYLOAD_KEY"))
  const from = yield* Config.option(Config.integer("ORRERY_PAYLOAD_COMPRESS_FROM"))
  const compress = from._tag === "None" ? {} : { compressFrom: from.value }
  if (keys._tag === "None") return yield* made(compress)
  const pairs = Redacted.value(keys.value).split(",").map((pair) => {
    const at = pair.indexOf("=")
    return [pair.slice(0, Math.max(at, 0)).trim(), Redacted.make(pair.slice(at + 1).trim())] as const
  })
  const first = pairs[0]![0]
  return yield* made({
    ...compress,
    encrypt: { key: key._tag === "None" ? first : key.value, keys: Object.fromEntries(pairs) }
  })
})

/** Wrong options are a mistake in the program: a defect. */
export const layer = (options: CodecOptions): Layer.Layer<PayloadCodec> => Layer.sync(PayloadCodec, () => make(options))

/** As `config`. */
export const layerConfig: Layer.Layer<PayloadCodec, ConfigError.ConfigError | InvalidRequest> = Layer.effect(
  PayloadCodec,
  config
)
