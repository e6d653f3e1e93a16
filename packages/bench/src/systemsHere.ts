/** Which of the wanted systems can be measured on this machine, and why the others cannot. */
import * as RedisServer from "@orrery/testing/RedisServer"
import { Effect, Option } from "effect"
import type { Description } from "./Calls.js"
import * as Role from "./Role.js"
import type { Registered } from "./systems/index.js"

export interface Here {
  readonly systems: ReadonlyArray<Description>
  /** By driver. */
  readonly programs: ReadonlyMap<string, string>
  /** Version, when a system needs it and it could be started. */
  readonly redis: string | undefined
  /** A line for each system that is left out. */
  readonly missing: ReadonlyArray<string>
}

/** A peer that is not installed, or a Redis that is not there, is told and not fatal. */
export const find = (
  wanted: ReadonlyArray<Registered>,
  onOutput: (text: string) => void
): Effect.Effect<Here> =>
  Effect.gen(function*() {
    const programs = new Map<string, string>()
    const systems: Array<Description> = []
    const missing: Array<string> = []
    for (const driver of new Set(wanted.map((each) => each.driver))) {
      const ids = wanted.filter((each) => each.driver === driver).map(({ id }) => id)
      const found = yield* Effect.either(describe(driver, onOutput))
      if (found._tag === "Left") {
        missing.push(...ids.map((id) => `${id} is left out: ${reasonOf(found.left)}`))
        onOutput(`${driver}: ${found.left.message}\n`)
        continue
      }
      programs.set(driver, found.right.program)
      for (const id of ids) {
        const description = found.right.systems.find((each) => each.id === id)
        if (description === undefined) missing.push(`${id} is left out: its driver does not have it`)
        else systems.push(description)
      }
    }
    const isWanted = systems.some(({ needs }) => needs === "redis")
    const redis = yield* Effect.either(Effect.when(redisVersion, () => isWanted))
    if (redis._tag === "Right") return { systems, programs, redis: Option.getOrUndefined(redis.right), missing }
    const withoutRedis = systems.filter(({ needs }) => needs === "redis")
    return {
      systems: systems.filter(({ needs }) => needs !== "redis"),
      programs,
      redis: undefined,
      missing: [...missing, ...withoutRedis.map(({ id }) => `${id} is left out: ${redis.left.message}`)]
    }
  })

const describe = (driver: string, onOutput: (text: string) => void) =>
  Effect.gen(function*() {
    const program = yield* Role.compile(driver)
    const role = yield* Role.start({ program, name: driver, onOutput })
    const facts = yield* role.ask("describe", null)
    return { program, systems: facts.map((each): Description => ({ ...each, driver })) }
  }).pipe(Effect.scoped)

/** The line that says it; the rest is in the log. */
const reasonOf = ({ reason }: Role.RoleFailed): string => /ERROR: (.*)/.exec(reason)?.[1] ?? reason.split("\n")[0]!

const redisVersion = Effect.scoped(
  Effect.map(RedisServer.start({ appendfsync: "everysec" }), ({ version }) => version)
)
