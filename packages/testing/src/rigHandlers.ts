/** Handlers module of the cluster tests (`--handlers`). */
import { Effect, Layer } from "effect"
import {
  asked,
  asking,
  guardedClosed,
  guardedOpen,
  heavy,
  inOrder,
  light,
  limited,
  nap,
  once,
  permitted,
  single,
  spanned,
  ticks
} from "./rigTasks.js"

const [first, ...rest] = ticks.map((tick) => tick.toLayer(({ n }) => Effect.succeed(n + 1)))

/** On the same clock in all processes of the machine; `tell` is a line of the log. */
const told = (task: string) => ({ key, ms, n }: { readonly n: number; readonly key: string; readonly ms: number }) => {
  const tell = (what: string) =>
    Effect.log(`${task} ${what} ${key} ${n} ${performance.timeOrigin + performance.now()};`)
  return Effect.acquireUseRelease(tell("begins"), () => Effect.sleep(ms), () => tell("ends"))
}

export default Layer.mergeAll(
  limited.toLayer(told("limited")),
  inOrder.toLayer(told("in-order")),
  heavy.toLayer(told("heavy")),
  light.toLayer(told("light")),
  asking.toLayer((payload) => Effect.flatMap(Effect.orDie(asked.take()), () => told("asking")(payload))),
  guardedClosed.toLayer(told("guarded-closed")),
  guardedOpen.toLayer(told("guarded-open")),
  nap.toLayer(({ ms }) => Effect.sleep(ms)),
  once.toLayer(({ client }) => Effect.succeed(client)),
  single.toLayer(({ ms }) => Effect.sleep(ms)),
  first!,
  ...rest,
  ...spanned.map((task) => task.toLayer(told("spanned"))),
  ...permitted.map((task) => task.toLayer(told("permitted")))
)
