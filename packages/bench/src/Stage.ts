/**
 * Where one system is measured once: an empty store of its own, and the processes of its roles. Everything ends with the
 * scope.
 */
import type { EmbeddedPostgresFailed } from "@orrery/store-pg/EmbeddedPostgres"
import type { RedisServerFailed } from "@orrery/testing/RedisServer"
import { Data, Effect, Option, Redacted, type Scope } from "effect"
import * as BenchPostgres from "./BenchPostgres.js"
import * as BenchRedis from "./BenchRedis.js"
import type { Calls, Description, JobShape, WorkInput } from "./Calls.js"
import * as Role from "./Role.js"
import type { Place } from "./System.js"

/** How large a run of the benchmark is. */
export interface Sizes {
  readonly quick: boolean
  /** Of numbers of jobs and of long waits. 1: as the issue asks. */
  readonly scale: number
  readonly seed: number
}

export interface Bench {
  readonly postgres: BenchPostgres.BenchPostgres
  readonly sizes: Sizes
  /** Programs of the drivers, compiled. */
  readonly programs: ReadonlyMap<string, string>
  /** Refuse stores that may lose what they acknowledged. Only a test of the harness itself goes without. */
  readonly requireDurable: boolean
  readonly onOutput: (text: string) => void
}

/** The measurement is void: it did not come to an end, or broke a rule of the workload. */
export class MeasureInvalid extends Data.TaggedError("MeasureInvalid")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** It takes too long: what a slow system is told as, beside the figures of others. */
export class NotWithin extends Data.TaggedError("NotWithin")<{ readonly ms: number; readonly what?: string }> {
  override get message() {
    const seconds = Number((this.ms / 1_000).toPrecision(3))
    return `${notWithinPrefix}${seconds} s${this.what === undefined ? "" : `: ${this.what}`}`
  }
}
export const notWithinPrefix = "not within "

export type MeasureFailed =
  | Role.RoleFailed
  | BenchPostgres.PostgresFailed
  | BenchPostgres.UnequalDurability
  | RedisServerFailed
  | EmbeddedPostgresFailed
  | MeasureInvalid
  | NotWithin

export interface StageOptions {
  readonly queues: number
  readonly keepHistory: boolean
  /** Added to each round trip between the system and PostgreSQL, ms. */
  readonly storeDelayMs?: number
}

export interface Stage {
  readonly bench: Bench
  readonly system: Description
  readonly database: Option.Option<{ readonly name: string; readonly url: Redacted.Redacted<string> }>
  /** As the next process to start finds it. */
  readonly place: () => Place
  readonly queues: number
  readonly keepHistory: boolean
  /** A process that takes work in; none when the system needs none. */
  readonly serve: Effect.Effect<Option.Option<Role.Role>, Role.RoleFailed, Scope.Scope>
  readonly work: (options?: Partial<WorkOptions>) => Effect.Effect<Role.Role, Role.RoleFailed, Scope.Scope>
  readonly produce: Effect.Effect<Role.Role, Role.RoleFailed, Scope.Scope>
  /** Until the store holds no job that is not completed: when that was, `monotonicUs`. */
  readonly awaitEmpty: (withinMs: number) => Effect.Effect<number, Role.RoleFailed | NotWithin>
  readonly checkpoint: Effect.Effect<void, BenchPostgres.PostgresFailed>
}

export type WorkOptions = Pick<WorkInput, "concurrency" | "handlerMs" | "keys" | "tenants" | "tellEach" | "apart">

const workDefaults: WorkOptions = {
  concurrency: 0,
  handlerMs: 0,
  keys: 0,
  tenants: 0,
  tellEach: false,
  apart: false
}

/** How much longer than the wait the answer about it may take, ms. */
const answerMarginMs = 30_000

/** Characters of filler: a payload of about 100 bytes. */
const fillerCharsDefault = 32

export const shapeOf = (stage: Stage, options: Partial<JobShape> = {}): JobShape => ({
  queues: stage.queues,
  fillerChars: fillerCharsDefault,
  keys: 0,
  tenants: 0,
  seed: stage.bench.sizes.seed,
  ...options
})

/** A number of jobs, as large as the system and this run of the benchmark allow. */
export const jobsOf = (bench: Bench, system: Description, whole: number): number =>
  Math.max(1, Math.round(whole * bench.sizes.scale * (system.share ?? 1)))

/** Makes the store and its tables. */
export const open = (
  bench: Bench,
  system: Description,
  options: StageOptions
): Effect.Effect<Stage, MeasureFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const database = system.needs === "postgres"
      ? Option.some(yield* BenchPostgres.freshDatabase(bench.postgres))
      : Option.none()
    if (Option.isSome(database) && bench.requireDurable) yield* BenchPostgres.requireDurable(database.value.url)
    const redisUrl = system.needs === "redis" ? yield* BenchRedis.start(system) : ""
    const keeper = yield* startRole(bench, system, "store")
    const directUrl = Option.match(database, { onNone: () => "", onSome: ({ url }) => Redacted.value(url) })
    const databaseUrl = options.storeDelayMs === undefined || directUrl === ""
      ? directUrl
      : (yield* keeper.ask("proxy", { url: directUrl, delayMs: options.storeDelayMs })).url
    const addresses: Array<string> = []
    const place = (): Place => ({ databaseUrl, redisUrl, addresses: [...addresses] })
    const { keepHistory, queues } = options
    const of = () => ({ system: system.id, place: place() })
    // The keeper looks at the store itself, whatever is between it and the system.
    const ofStore = () => ({ system: system.id, place: { ...place(), databaseUrl: directUrl } })
    yield* keeper.ask("prepare", { ...ofStore(), queues, keepHistory })
    const listed = ({ address }: { readonly address: string | null }) =>
      address === null ? Effect.void : Effect.acquireRelease(
        Effect.sync(() => void addresses.push(address)),
        () => Effect.sync(() => void addresses.splice(addresses.indexOf(address), 1))
      )
    const stage: Stage = {
      bench,
      system,
      database,
      place,
      queues,
      keepHistory,
      serve: !system.hasServe ? Effect.succeedNone : Effect.gen(function*() {
        const role = yield* startRole(bench, system, "serve")
        yield* Effect.flatMap(role.ask("serve", of()), listed)
        return Option.some(role)
      }),
      work: (given) =>
        Effect.gen(function*() {
          const role = yield* startRole(bench, system, "work")
          yield* Effect.flatMap(role.ask("work", { ...of(), queues, keepHistory, ...workDefaults, ...given }), listed)
          return role
        }),
      produce: Effect.gen(function*() {
        const role = yield* startRole(bench, system, "produce")
        yield* role.ask("produce", { ...of(), keepHistory })
        return role
      }),
      awaitEmpty: (withinMs) => awaitEmpty(keeper, ofStore(), withinMs),
      checkpoint: Option.isSome(database) ? BenchPostgres.checkpoint(bench.postgres) : Effect.void
    }
    yield* stage.checkpoint
    return stage
  })

const startRole = (bench: Bench, system: Description, role: string) =>
  Role.start({
    program: bench.programs.get(system.driver) ?? "",
    name: `${system.id} ${role}`,
    onOutput: bench.onOutput
  })

const awaitEmpty = (
  keeper: Role.Role,
  of: Pick<Calls["awaitEmpty"]["in"], "system" | "place">,
  withinMs: number
) =>
  keeper.ask("awaitEmpty", { ...of, withinMs }, withinMs + answerMarginMs).pipe(
    Effect.flatMap(({ emptyUs, left }) =>
      emptyUs > 0
        ? Effect.succeed(emptyUs)
        : new NotWithin({ ms: withinMs, what: `the store still held ${left} jobs` })
    )
  )
