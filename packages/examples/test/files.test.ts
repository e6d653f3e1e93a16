import { assert, describe, it } from "@effect/vitest"
import { createHash } from "node:crypto"
import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { digestOf, isUnchanged, listFiles } from "../src/digest/files.js"

const withTree = async (use: (root: string) => Promise<void>) => {
  const root = mkdtempSync(join(tmpdir(), "orrery-files-"))
  try {
    await use(root)
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
}

describe("listFiles", () => {
  it("lists each file once, follows no links, and stops at the limit", () =>
    withTree(async (root) => {
      mkdirSync(join(root, "a/b"), { recursive: true })
      writeFileSync(join(root, "one"), "1")
      writeFileSync(join(root, "a/b/two"), "2")
      linkSync(join(root, "one"), join(root, "a/one-again"))
      symlinkSync(root, join(root, "a/b/round"))
      symlinkSync(join(root, "one"), join(root, "a/one-linked"))

      assert.strictEqual((await listFiles(root, 100)).length, 2)
      assert.strictEqual((await listFiles(root, 1)).length, 1)
    }))

  it("notices a file that changed since", () =>
    withTree(async (root) => {
      writeFileSync(join(root, "one"), "1")
      const [file] = await listFiles(root, 1)
      assert.isTrue(await isUnchanged(file!))

      writeFileSync(join(root, "one"), "22")

      assert.isFalse(await isUnchanged(file!))
    }))
})

describe("digestOf", () => {
  it("is the same for a file read whole and one read in pieces", () =>
    withTree(async (root) => {
      for (const size of [0, 10, 1024 * 1024, 3 * 1024 * 1024 + 1]) {
        const content = Buffer.alloc(size, "orrery")
        writeFileSync(join(root, "file"), content)

        assert.deepStrictEqual(await digestOf(join(root, "file")), {
          sha256: createHash("sha256").update(content).digest("hex"),
          bytes: size
        })
      }
    }))
})
