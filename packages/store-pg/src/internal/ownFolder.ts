import { Effect } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { EmbeddedPostgresFailed, fileFailure } from "./EmbeddedPostgresFailed.js"

/**
 * A folder in /var/tmp for things the server's user must reach, named for `what`. Everybody may pass through, only we
 * may write. /var/tmp is open to all, so a folder that somebody else put there is refused.
 */
export const ownFolder = Effect.fn("ownFolder")(function*(dataDir: string, what: string) {
  const folder = path.join("/var/tmp", `orrery-${createHash("sha256").update(what).digest("hex").slice(0, 12)}`)
  const entry = yield* Effect.tryPromise({
    try: async () => {
      await fs.mkdir(folder, { recursive: true, mode: 0o711 })
      return fs.lstat(folder)
    },
    catch: fileFailure(dataDir, `creating ${folder}`)
  })
  if (entry.isDirectory() && entry.uid === process.getuid?.() && (entry.mode & 0o022) === 0) return folder
  return yield* new EmbeddedPostgresFailed({
    reason: "NotPermitted",
    dataDir,
    detail: `${folder} belongs to another user or others may write it; remove it`
  })
})
