/** The demo: `npm start`. See `demo.ts` for what it does, and README.md of this package for its flags. */
import { NodeRuntime } from "@effect/platform-node"
import * as EmbeddedPostgres from "@orrery/store-pg/EmbeddedPostgres"
import { Cause, Config, Effect, Exit, Logger, Option } from "effect"
import { resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { readArguments } from "./arguments.js"
import * as Demo from "./demo.js"
import * as Progress from "./Progress.js"
import { describe, logFile } from "./report.js"

const project = fileURLToPath(new URL("../../../../", import.meta.url))

const givenUrl = Config.redacted("DATABASE_URL").pipe(
  Config.nested("ORRERY"),
  Config.orElse(() => Config.redacted("DATABASE_URL")),
  Config.option,
  Effect.orDie
)

const database = Effect.flatMap(
  givenUrl,
  Option.match({
    onSome: (url) => Effect.succeed(url),
    onNone: () =>
      Effect.map(EmbeddedPostgres.start({ dataDir: resolve(project, ".orrery/demo") }), (server) => server.url)
  })
)

const program = Effect.gen(function*() {
  const flags = yield* readArguments(process.argv.slice(2), resolve(project, "node_modules"))
  const verdict = yield* Effect.scoped(Effect.gen(function*() {
    const progress = yield* Progress.make(flags.json ? process.stderr : process.stdout)
    yield* progress.say("starting PostgreSQL")
    const databaseUrl = yield* database
    const onLine = yield* logFile(resolve(project, ".orrery/demo-processes.log"))
    const { cluster, verdict } = yield* Demo.run({ ...flags, databaseUrl, onLine }, progress)
    yield* progress.say(describe(verdict))
    if (!flags.once) {
      yield* progress.say(
        `\nthe cluster stays up: npm run orrery -- runs list --nodes ${cluster.addresses[0]}\nCtrl-C stops it`
      )
      return yield* Effect.never
    }
    yield* progress.say("stopping")
    return verdict
  }))
  // After everything has stopped, so that it is the last line whatever the others still had to say.
  if (flags.json) yield* Effect.sync(() => process.stdout.write(`${JSON.stringify(verdict)}\n`))
  if (!verdict.verified) return yield* new Demo.DemoFailed({ reason: "not verified" })
})

NodeRuntime.runMain(
  program.pipe(
    Effect.tapErrorCause((cause) => {
      const failure = Cause.failureOption(cause)
      return Cause.isInterruptedOnly(cause) ? Effect.void : Effect.sync(() => {
        process.stderr.write(`demo: ${Option.isSome(failure) ? failure.value.message : Cause.pretty(cause)}\n`)
      })
    }),
    Effect.provide(Logger.replace(Logger.defaultLogger, Logger.withConsoleError(Logger.logfmtLogger)))
  ),
  {
    disableErrorReporting: true,
    teardown: (exit, done) => done(Exit.isSuccess(exit) || Cause.isInterruptedOnly(exit.cause) ? 0 : 1)
  }
)
