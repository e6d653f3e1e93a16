/** What a person reads of a demo: the verdict, and the log of the cluster's processes. */
import { Effect, type Scope } from "effect"
import { createWriteStream } from "node:fs"
import type { Verdict } from "./demo.js"

/** What the processes said, of the last demo. */
export const logFile = (path: string): Effect.Effect<(name: string, line: string) => void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => createWriteStream(path, { flags: "w", mode: 0o600 })),
    (stream) => Effect.sync(() => stream.end())
  ).pipe(Effect.map((stream) => (name: string, line: string) => void stream.write(`[${name}] ${line}\n`)))

const count = (value: number): string => value.toLocaleString("en-US")

/** What was verified, for a person. */
export const describe = (verdict: Verdict): string =>
  [
    "",
    `files               ${count(verdict.files)} (${count(verdict.bytes)} bytes)`,
    `runs acknowledged   ${count(verdict.runs)}`,
    `outcomes accepted   ${count(verdict.succeeded)}, each digest compared with a sequential computation`,
    `lost                ${count(verdict.lost)}`,
    `duplicated          ${count(verdict.duplicated)}`,
    `mismatched          ${count(verdict.mismatched)}`,
    ...(verdict.changed === 0 ? [] : [`changed meanwhile   ${count(verdict.changed)} (not comparable)`]),
    `nodes killed        ${verdict.killedNodes}, back again ${verdict.restartedNodes}`,
    `taken over          ${
      count(verdict.takeoverMs)
    } ms after the kill: then all queues of the dead node had other owners`,
    `longest gap         ${count(verdict.longestGapMs)} ms between two ends after the kill`,
    `runs per second     ${
      count(verdict.runsPerSecond)
    }, from the first run made to the last one ended, the kill included`,
    verdict.verified ? "VERIFIED" : "NOT VERIFIED"
  ].join("\n")
