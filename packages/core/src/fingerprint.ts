/** What failures of one cause have in common, so that the dead letters of one mistake are seen as one. */
import { createHash } from "node:crypto"
import type { RunFailure } from "./Run.js"
import { nameOf } from "./TaskName.js"

/** Kinds whose tag says little: one `TypeError` is not another. */
const byMessage: ReadonlySet<string> = new Set(["defect", "undecodable", "unencodable"])

/** What differs from run to run: numbers, hexadecimal ids, what stands in quotes. */
const plain = (message: string): string =>
  message.slice(0, 1_000)
    .replace(/"[^"]*"|'[^']*'|`[^`]*`/g, "?")
    .replace(/\b(?:0x)?[0-9a-f]*[0-9][0-9a-f]*(?:-[0-9a-f]+)*\b/gi, "#")

/**
 * The same for failures of one task, in any version, with one kind and tag; of defects, and of values that do not fit their schema, also with
 * one message but for numbers, ids and quotes. Twelve hexadecimal digits.
 */
export const fingerprint = (task: string, failure: Pick<RunFailure, "kind" | "tag" | "message">): string => {
  const what = byMessage.has(failure.kind) ? plain(failure.message) : ""
  return createHash("sha256").update([nameOf(task), failure.kind, failure.tag, what].join("\n")).digest("hex").slice(
    0,
    12
  )
}

/** The text of a failure with its fingerprint. */
export const marked = (task: string, text: string): string => {
  const failure = JSON.parse(text) as RunFailure
  return failure.fingerprint === undefined
    ? JSON.stringify({ ...failure, fingerprint: fingerprint(task, failure) })
    : text
}
