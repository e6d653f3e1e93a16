/* eslint-disable @typescript-eslint/no-explicit-any -- settings of any value type share a table; values are typed by their kind */
/**
 * A setting is a row of a table: its variable, default, unit, bounds and consequence. The typed record, the reading by
 * Effect `Config`, the check of values given in code, and the reference in docs/configuration.md are derived from it.
 *
 * Nothing stops at the first mistake: all problems of a record are gathered into one `ConfigInvalid`.
 */
import { Config, ConfigError, Data, Effect, Either, Option, Redacted } from "effect"

/** Every variable starts with this and `_`. */
export const prefix = "ORRERY"

/** The configuration cannot be used. A mistake of the deployment, not of the moment: do not retry. */
export class ConfigInvalid extends Data.TaggedError("ConfigInvalid")<{
  /** One sentence each, naming the setting. */
  readonly problems: ReadonlyArray<string>
}> {
  override get message() {
    return `wrong configuration: ${this.problems.join("; ")}`
  }
}

export interface Setting<A> {
  /** Variable without the prefix. */
  readonly env: string
  /** `undefined`: it must be given. */
  readonly default: A | undefined
  readonly unit: string
  /** What it does, and what follows from a larger or smaller value. */
  readonly doc: string
  readonly isSecret: boolean
  /** Read when the prefixed variable is absent; without prefix. */
  readonly fallbackEnv: string | undefined
  /** What is accepted, in words. */
  readonly accepts: string
  readonly parse: (text: string) => A | undefined
  readonly check: (value: A) => boolean
  readonly print: (value: A) => string
}

/** A table of settings is read as one record. */
export type Settings = { readonly [name: string]: Setting<any> }
export type Values<T extends Settings> = { readonly [K in keyof T]: T[K] extends Setting<infer A> ? A : never }

const fullName = (setting: Setting<any>): string => `${prefix}_${setting.env}`

interface Described<A> {
  readonly env: string
  readonly default: A
  readonly doc: string
}

export const integer = (
  options: Described<number> & { readonly unit: string; readonly min: number; readonly max: number }
): Setting<number> => ({
  env: options.env,
  default: options.default,
  unit: options.unit,
  doc: options.doc,
  isSecret: false,
  fallbackEnv: undefined,
  accepts: `a whole number of ${options.unit}, ${options.min} to ${options.max}`,
  parse: (text) => (/^-?\d{1,15}$/.test(text.trim()) ? Number(text) : undefined),
  check: (value) => Number.isInteger(value) && value >= options.min && value <= options.max,
  print: String
})

export const text = (
  options: Described<string> & {
    readonly unit: string
    readonly accepts: string
    readonly check: (value: string) => boolean
  }
): Setting<string> => ({
  ...options,
  isSecret: false,
  fallbackEnv: undefined,
  parse: (value) => value.trim(),
  print: (value) => value
})

export const list = (
  options: Described<ReadonlyArray<string> | undefined> & {
    readonly unit: string
    readonly accepts: string
    readonly check: (value: string) => boolean
  }
): Setting<ReadonlyArray<string>> => ({
  ...options,
  isSecret: false,
  fallbackEnv: undefined,
  parse: (value) => value.split(",").map((part) => part.trim()).filter((part) => part !== ""),
  check: (values) => values.length > 0 && values.every(options.check),
  print: (values) => values.join(",")
})

/** Never shown: neither by `print`, nor in a problem. Without a default: it must be given. */
export const secret = (options: {
  readonly env: string
  readonly fallbackEnv: string
  readonly unit: string
  readonly doc: string
  readonly accepts: string
  readonly check: (value: string) => boolean
}): Setting<Redacted.Redacted<string>> => ({
  ...options,
  default: undefined,
  isSecret: true,
  parse: (value) => Redacted.make(value),
  check: (value) => options.check(Redacted.value(value)),
  print: () => "<redacted>"
})

/** What is wrong with a value, in words that name the setting. */
const problemOf = (name: string, setting: Setting<any>, actual: string): string =>
  `${fullName(setting)} (${name}) must be ${setting.accepts}, got ${setting.isSecret ? "something else" : actual}`

const missing = (name: string, setting: Setting<any>): string =>
  `${fullName(setting)}${
    setting.fallbackEnv === undefined ? "" : ` or ${setting.fallbackEnv}`
  } (${name}) is not set; it must be ${setting.accepts}`

/** `Config` of one setting: absent gives the default, or a problem where there is none. */
const configOf = (name: string, setting: Setting<any>): Config.Config<Option.Option<unknown>> => {
  const raw = Config.string(setting.env).pipe(Config.nested(prefix))
  const withFallback = setting.fallbackEnv === undefined
    ? raw
    : Config.orElse(raw, () => Config.string(setting.fallbackEnv))
  return Config.option(withFallback).pipe(
    Config.mapOrFail(Option.match({
      onNone: () => Either.right(Option.none()),
      onSome: (given) => {
        const value: unknown = setting.parse(given)
        return value !== undefined && setting.check(value)
          ? Either.right(Option.some(value))
          : Either.left(ConfigError.InvalidData([], problemOf(name, setting, JSON.stringify(given.slice(0, 200)))))
      }
    }))
  )
}

export interface Gathered<T extends Settings> {
  /** Usable only when there are no problems. */
  readonly values: Values<T>
  readonly problems: ReadonlyArray<string>
}

/** Reads a table from the current `ConfigProvider`. */
export const read = <T extends Settings>(
  settings: T,
  /** Problems of settings that are right one by one but not together. */
  together: (values: Values<T>) => ReadonlyArray<string>
): Effect.Effect<Gathered<T>> =>
  Effect.gen(function*() {
    const given: Record<string, unknown> = {}
    const problems: Array<string> = []
    for (const [name, setting] of Object.entries(settings)) {
      const value = yield* Effect.either(configOf(name, setting))
      if (Either.isLeft(value)) problems.push(messageOf(value.left))
      else if (Option.isSome(value.right)) given[name] = value.right.value
      else if (setting.default === undefined) problems.push(missing(name, setting))
    }
    if (problems.length > 0) return { values: given as Values<T>, problems }
    return check(settings, given as Partial<Values<T>>, together)
  })

/** Checks values given in code, after filling in defaults. */
export const check = <T extends Settings>(
  settings: T,
  given: Partial<Values<T>>,
  together: (values: Values<T>) => ReadonlyArray<string>
): Gathered<T> => {
  const values: Record<string, unknown> = {}
  const problems: Array<string> = []
  for (const [name, setting] of Object.entries(settings)) {
    const value = (given as Record<string, unknown>)[name] ?? setting.default
    values[name] = value
    if (value === undefined) problems.push(missing(name, setting))
    else if (!setting.check(value)) problems.push(problemOf(name, setting, JSON.stringify(value)))
  }
  const result = values as unknown as Values<T>
  return { values: result, problems: problems.length > 0 ? problems : together(result) }
}

export const orFail = <T extends Settings>(gathered: Gathered<T>): Effect.Effect<Values<T>, ConfigInvalid> =>
  gathered.problems.length === 0
    ? Effect.succeed(gathered.values)
    : Effect.fail(new ConfigInvalid({ problems: gathered.problems }))

/** For the log at start: names and values, secrets hidden. */
export const printed = <T extends Settings>(settings: T, values: Values<T>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(settings).map(([name, setting]) => [name, setting.print(values[name as keyof T])])
  )

/** The variables that give another process these values. Holds secrets in the clear: for `env` of a child only. */
export const toEnv = <T extends Settings>(settings: T, values: Partial<Values<T>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(settings).flatMap(([name, setting]) => {
      const value: unknown = values[name as keyof T]
      if (value === undefined) return []
      return [[fullName(setting), Redacted.isRedacted(value) ? String(Redacted.value(value)) : setting.print(value)]]
    })
  )

const messageOf = (error: ConfigError.ConfigError): string =>
  error._op === "InvalidData" ? error.message : String(error)
