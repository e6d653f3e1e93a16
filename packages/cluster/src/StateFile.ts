/**
 * The little that a node remembers of its database across its own lives, in a folder of the machine: for the case that all
 * nodes were down when the database was replaced. Nothing else depends on it; without a folder it does nothing.
 */
import { Effect, Option, Queue, Schema, type Scope } from "effect"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import type { Memory } from "./DatabaseMemory.js"
import { StartFailed } from "./NodeIdentity.js"

const fileName = "orrery-database.json"
/** Take-overs come in bursts: they are written down together. */
const gather = "1 second"

const State = Schema.Struct({
  incarnation: Schema.String,
  timeline: Schema.NullOr(Schema.Number),
  epochs: Schema.NonNegativeInt
})
const decode = Schema.decodeOption(Schema.parseJson(State))
const encode = Schema.encodeSync(Schema.parseJson(State))

/** `undefined`: no folder, or nothing in it yet. */
export const read = (folder: string): Effect.Effect<Memory | undefined, StartFailed> =>
  Effect.gen(function*() {
    if (folder === "") return undefined
    const file = path.join(folder, fileName)
    const text = yield* Effect.tryPromise({
      try: async () => {
        await fs.mkdir(folder, { recursive: true })
        return fs.readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
          if (error.code === "ENOENT") return undefined
          throw error
        })
      },
      catch: (cause) => unusable(`ORRERY_STATE_DIR cannot be used: ${String(cause)}`, cause)
    })
    if (text === undefined) return undefined
    const state = Option.getOrUndefined(decode(text))
    return state ?? (yield* unusable(`${file} is not what a node has written: remove it if you know why`))
  })

const unusable = (reason: string, cause?: unknown) => new StartFailed({ isTemporary: false, reason, cause })

/** Several nodes may share the folder: each writes a file of its own and puts it in place whole. */
const write = (folder: string, memory: Memory) =>
  Effect.tryPromise(async () => {
    const file = path.join(folder, fileName)
    const known = Option.getOrUndefined(decode(await fs.readFile(file, "utf8").catch(() => "")))
    const epochs = known?.incarnation === memory.incarnation ? Math.max(known.epochs, memory.epochs) : memory.epochs
    const own = `${file}.${process.pid}`
    await fs.writeFile(own, encode({ ...memory, epochs }))
    await fs.rename(own, file)
  }).pipe(Effect.catchAll((error) => Effect.logWarning("could not write the state file", error.cause)))

/** Keeps the file up to date until the scope closes. */
export const keep = (
  folder: string,
  memory: () => Memory
): Effect.Effect<{ readonly changed: () => void }, never, Scope.Scope> =>
  Effect.gen(function*() {
    if (folder === "") return { changed: () => undefined }
    const save = Effect.suspend(() => write(folder, memory()))
    const changes = yield* Queue.sliding<void>(1)
    yield* save
    yield* Effect.addFinalizer(() => save)
    yield* Queue.take(changes).pipe(
      Effect.zipRight(Effect.sleep(gather)),
      Effect.zipRight(save),
      Effect.forever,
      Effect.forkScoped
    )
    return { changed: () => void changes.unsafeOffer(undefined) }
  })
