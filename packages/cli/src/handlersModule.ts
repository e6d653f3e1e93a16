/** Handlers come from a module of the user: its default export is a Layer made with `Task.toLayer`. */
import * as Handlers from "@orrery/core/Handlers"
import { Data, Effect, Layer, Option } from "effect"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"

export class HandlersInvalid extends Data.TaggedError("HandlersInvalid")<{
  readonly file: string
  readonly reason: string
}> {
  override get message() {
    return `--handlers ${this.file}: ${this.reason}`
  }
}

interface Module {
  readonly default?: unknown
}

/** Left by `compile.mjs`: the module of `--handlers`, compiled into this program. */
const compiled = (globalThis as { readonly [key: symbol]: unknown })[Symbol.for("@orrery/cli/compiledHandlers")] as
  | { readonly file: string; readonly load: () => Promise<Module> }
  | undefined

const load = (file: string): Promise<Module> =>
  compiled?.file === resolve(file) ? compiled.load() : import(pathToFileURL(resolve(file)).href) as Promise<Module>

const exported = (file: string): Effect.Effect<unknown, HandlersInvalid> =>
  Effect.tryPromise({
    try: async () => (await load(file)).default,
    catch: (cause) =>
      new HandlersInvalid({ file, reason: `cannot be imported: ${cause instanceof Error ? cause.message : cause}` })
  })

const isLayer = (value: unknown): value is Layer.Layer<never, unknown, Handlers.Handlers> => Layer.isLayer(value)

/** `Handlers` with what the file registers; without a file, none: such a process executes nothing. */
export const layer = (
  file: Option.Option<string>
): Layer.Layer<Handlers.Handlers, HandlersInvalid> =>
  Option.match(file, {
    onNone: () => Handlers.layer,
    onSome: (name) =>
      Effect.flatMap(exported(name), (value) =>
        isLayer(value)
          ? Effect.succeed(Layer.mapError(value, (cause) =>
            new HandlersInvalid({
              file: name,
              reason: `its layer failed: ${cause instanceof Error ? cause.message : cause}`
            })))
          : Effect.fail(
            new HandlersInvalid({
              file: name,
              reason: "has no Layer as its default export (export default task.toLayer(...))"
            })
          )).pipe(
          Layer.unwrapEffect,
          Layer.provideMerge(Handlers.layer)
        )
  })
