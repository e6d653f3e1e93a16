/** The tree to digest, and the digest of one file. Plain code: workers and the check at the end share it. */
import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import { access, constants, lstat, readdir, readFile, realpath } from "node:fs/promises"
import { join } from "node:path"
import { pipeline } from "node:stream/promises"

export interface Found {
  readonly path: string
  readonly size: number
  readonly modifiedMs: number
}

export interface Digest {
  readonly sha256: string
  readonly bytes: number
}

/** Larger files are read in pieces, so that a worker's memory stays small. */
const wholeBytesMax = 1024 * 1024

export const digestOf = async (path: string): Promise<Digest> => {
  const { size } = await lstat(path)
  const hash = createHash("sha256")
  if (size <= wholeBytesMax) {
    const content = await readFile(path)
    return { sha256: hash.update(content).digest("hex"), bytes: content.length }
  }
  let bytes = 0
  await pipeline(createReadStream(path, { highWaterMark: wholeBytesMax }), async (pieces) => {
    for await (const piece of pieces as AsyncIterable<Buffer>) {
      bytes += piece.length
      hash.update(piece)
    }
  })
  return { sha256: hash.digest("hex"), bytes }
}

/** Readable files under `directory`, at most `limit`. Follows no links; a file with several names counts once. */
export const listFiles = async (directory: string, limit: number): Promise<ReadonlyArray<Found>> => {
  const found: Array<Found> = []
  const seen = new Set<string>()
  const open = [await realpath(directory)]
  for (let at = open.pop(); at !== undefined && found.length < limit; at = open.pop()) {
    const entries = await readdir(at, { withFileTypes: true }).catch(() => [])
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (found.length >= limit) break
      const path = join(at, entry.name)
      if (entry.isDirectory()) open.push(path)
      if (!entry.isFile()) continue
      const about = await statOf(path)
      if (about === undefined || seen.has(about.identity)) continue
      seen.add(about.identity)
      found.push({ path, size: about.size, modifiedMs: about.modifiedMs })
    }
  }
  return found
}

/** Whether the file is still what it was when it was listed. */
export const isUnchanged = async (file: Found): Promise<boolean> => {
  const now = await statOf(file.path)
  return now !== undefined && now.size === file.size && now.modifiedMs === file.modifiedMs
}

const statOf = async (path: string) => {
  try {
    await access(path, constants.R_OK)
    const { dev, ino, mtimeMs, size } = await lstat(path)
    return { size, modifiedMs: mtimeMs, identity: `${dev}:${ino}` }
  } catch {
    return undefined
  }
}
