/**
 * Test projects by what they need, told by the file name: `X.test.ts`, `X.pg.test.ts`, `X.redis.test.ts`,
 * `X.cluster.test.ts`.
 */
import { defineWorkspace } from "vitest/config"

const needs = ["pg", "redis", "cluster"] as const
const filesOf = (need: string) => [`packages/*/test/**/*.${need}.test.ts`]

const fileOf = (path: string) => new URL(path, import.meta.url).pathname

/**
 * Effect and the sources are loaded once for all files of a project, one after the other: to load them anew for each took a third
 * of the time. So no file may leave anything behind: what it builds in a scope ends with it.
 */
const setupFiles = [fileOf("packages/testing/src/eachTestFile.ts")]
const oneThread = { pool: "threads" as const, poolOptions: { threads: { singleThread: true, isolate: false } } }
/** Of a process of their own, where processes and signals are dealt with. */
const oneFork = { pool: "forks" as const, poolOptions: { forks: { singleFork: true, isolate: false } } }

const postgres = {
  globalSetup: [fileOf("packages/testing/src/globalPostgres.ts")],
  hookTimeout: 120_000
}

export default defineWorkspace([
  {
    test: {
      name: "unit",
      setupFiles,
      include: ["packages/*/test/**/*.test.ts"],
      exclude: needs.map((need) => `**/*.${need}.test.ts`),
      // A machine may be busy with other things.
      testTimeout: 30_000,
      ...oneThread
    }
  },
  { test: { ...postgres, ...oneFork, setupFiles, name: "pg", include: filesOf("pg"), testTimeout: 60_000 } },
  {
    test: {
      ...oneFork,
      setupFiles,
      name: "redis",
      include: filesOf("redis"),
      testTimeout: 60_000,
      hookTimeout: 120_000
    }
  },
  {
    test: {
      ...postgres,
      setupFiles,
      name: "cluster",
      include: filesOf("cluster"),
      testTimeout: 120_000,
      // Node processes and kills: two files at once would disturb each other's timing. `npm test` runs them in a vitest of their
      // own, beside the others.
      pool: "forks",
      poolOptions: { forks: { singleFork: true, isolate: false } }
    }
  }
])
