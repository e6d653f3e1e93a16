/** Flags that several commands share, and how flags meet the environment. */
import { Args, HelpDoc, Options, ValidationError } from "@effect/cli"
import { InvalidRequest } from "@orrery/core/Errors"
import { isName, nameLengthMax } from "@orrery/core/Name"
import * as WorkerConfig from "@orrery/core/WorkerConfig"
import { ConfigProvider, Effect, Layer, Option } from "effect"

export const json = Options.boolean("json").pipe(
  Options.withDescription("Print JSON, one object a line, for programs to read.")
)

export const handlers = Options.file("handlers", { exists: "yes" }).pipe(
  Options.withPseudoName("FILE"),
  Options.withDescription(
    "Module whose default export is a Layer of task handlers (Task.toLayer). Without it the process executes nothing."
  ),
  Options.optional
)

export const nodes = Options.text("nodes").pipe(
  Options.withPseudoName("HOST:PORT,..."),
  Options.filterMap(
    (text) => {
      const list = text.split(",").map((each) => each.trim())
      return list.every(WorkerConfig.isAddress) ? Option.some(list) : Option.none()
    },
    "must be one or more host:port, separated by commas"
  ),
  Options.withDescription(
    "Data addresses of nodes. Left out: ORRERY_NODES, else the nodes known to the database of ORRERY_DATABASE_URL."
  ),
  Options.optional
)

/** What is no name is refused before anything is connected to, in the words of `InvalidRequest`. */
const checked = (field: string, text: string): Effect.Effect<string, HelpDoc.HelpDoc> => {
  const limit = `1 to ${nameLengthMax} characters of A-Z a-z 0-9 _ . : / -`
  const actual = text.length > nameLengthMax ? `${text.length} characters` : JSON.stringify(text)
  const refused = new InvalidRequest({ field, limit, actual })
  return isName(text) ? Effect.succeed(text) : Effect.fail(HelpDoc.p(refused.message))
}

/** A namespace, queue or task. */
export const named = (name: string) =>
  Options.text(name).pipe(
    Options.mapEffect((text) => Effect.mapError(checked(`--${name}`, text), ValidationError.invalidValue))
  )

/** The same where it is no flag. */
export const namedArg = (name: string) => Args.text({ name }).pipe(Args.mapEffect((text) => checked(name, text)))

/** A field for an option that was given, else none. */
export const given = <K extends string, A>(key: K, value: Option.Option<A>): { readonly [P in K]?: A } =>
  Option.isSome(value) ? { [key]: value.value } as { readonly [P in K]?: A } : {}

/** Values given as flags go before the environment; under the same names, so that problems name the variable. */
export const flagsBeforeEnv = (flags: { readonly [variable: string]: Option.Option<string> }): Layer.Layer<never> => {
  const given = Object.entries(flags).flatMap(([variable, value]) =>
    Option.isSome(value) ? [[variable, value.value] as const] : []
  )
  return Layer.setConfigProvider(
    ConfigProvider.orElse(ConfigProvider.fromMap(new Map(given), { pathDelim: "_" }), () => ConfigProvider.fromEnv())
  )
}
