/** Handlers module of the cluster tests (`--handlers`). */
import { Effect, Layer } from "effect"
import { nap, ticks } from "./rigTasks.js"

const [first, ...rest] = ticks.map((tick) => tick.toLayer(({ n }) => Effect.succeed(n + 1)))

export default Layer.mergeAll(nap.toLayer(({ ms }) => Effect.sleep(ms)), first!, ...rest)
