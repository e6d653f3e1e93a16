/**
 * Texts that a `PayloadCodec` has made. They begin with `~`, as no JSON text does:
 *
 *   ~z1:BODY              compressed
 *   ~e1:KEY:SCOPE:BODY    encrypted with the key of this id, bound to a run (`r`) or to its task (`t`)
 */
import { Schema } from "effect"

/** A text cannot be opened here: its key is not known, it was changed or moved, or it grows beyond what may be. */
export class CodecFailed extends Schema.TaggedError<CodecFailed>("@orrery/core/CodecFailed")("CodecFailed", {
  reason: Schema.Literal("no-codec", "unknown-key", "not-authentic", "too-large", "malformed"),
  /** Of the key it is encrypted with; `null`: it is not encrypted. */
  keyId: Schema.NullOr(Schema.String)
}) {
  override get message() {
    const what = this.keyId === null ? "a compressed text" : `a text encrypted with key ${this.keyId}`
    switch (this.reason) {
      case "no-codec":
        return `${what} was met by a process without a codec`
      case "unknown-key":
        return `${what} was met by a process without that key`
      case "not-authentic":
        return `${what} was changed, or belongs to another run, or the key of that id is another one`
      case "too-large":
        return `${what} is larger than it may be when it is decompressed`
      case "malformed":
        return `${what} is malformed`
    }
  }
}

export const isSealed = (text: string): boolean => text.charCodeAt(0) === 126

/** Readable only as a text of the run it was made for. */
export const isBoundToRun = (text: string): boolean => /^~e1:[^:]{1,40}:r:/.test(text)

/** The id of a key in a text that is encrypted. */
export const keyIdOf = (text: string): string | null => {
  const [mark, keyId] = text.slice(0, 64).split(":", 2)
  return mark === "~e1" ? keyId ?? null : null
}
