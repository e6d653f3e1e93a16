/**
 * What the connections and the signals of a process count, as metrics of Effect, for whoever exports those. Brought up to date every
 * second: a call to Redis pays nothing for it.
 *
 *   orrery_redis_up                        1 or 0, by role
 *   orrery_redis_..._total                 connects, commands, failures, timeouts, refused, by role
 *   orrery_redis_waiting, ..._unanswered   now, by role
 *   orrery_redis_signals_..._total         published, failed, malformed, gaps, safety_gaps
 *   orrery_redis_signals_watches, ..._owed now
 */
import { Effect, Layer, Metric } from "effect"
import { RedisClients } from "./RedisClients.js"
import { RedisSignalsCounters } from "./RedisSignals.js"

const every = "1 second"

const total = (name: string, description: string) =>
  Metric.counter(`orrery_redis_${name}_total`, { description, incremental: true })
const gauge = (name: string, description: string) => Metric.gauge(`orrery_redis_${name}`, { description })

const up = gauge("up", "whether there is a connection to Redis")
const connection = {
  connects: total("connects", "connections made"),
  commands: total("commands", "commands asked for"),
  failures: total("failures", "commands without an answer, or with an error"),
  timeouts: total("timeouts", "of the failures: no answer in time"),
  refused: total("refused", "of the failures: more waited already than may")
}
const waiting = gauge("waiting", "commands that wait for a connection")
const unanswered = gauge("unanswered", "commands that wait for an answer")
const signals = {
  published: total("signals_published", "hints published"),
  failed: total("signals_failed", "publications that were replaced by a gap"),
  malformed: total("signals_malformed", "messages that are none of ours"),
  gaps: total("signals_gaps", "gaps told as Redis was lost, did not answer, or is away"),
  safetyGaps: total("signals_safety_gaps", "gaps told for what nobody can see")
}
const watches = gauge("signals_watches", "watches of queues that are open")
const owed = gauge("signals_owed", "queues whose watchers are owed a gap")

type Totals<Name extends string> = Readonly<Record<Name, Metric.Metric.Counter<number>>>

/** Adds what has been counted since it was last called. */
const adder = <Name extends string>(totals: Totals<Name>) => {
  const told = new Map<string, number>()
  return (counts: Readonly<Record<Name, number>>, of = ""): Effect.Effect<void> =>
    Effect.forEach(Object.keys(totals) as Array<Name>, (name) => {
      const key = `${of} ${name}`
      const more = counts[name] - (told.get(key) ?? 0)
      told.set(key, counts[name])
      const metric = totals[name]
      return Metric.incrementBy(of === "" ? metric : Metric.tagged(metric, "role", of), more)
    }, { discard: true })
}

/** For as long as its scope is open. */
export const layer: Layer.Layer<never, never, RedisClients | RedisSignalsCounters> = Layer.scopedDiscard(
  Effect.gen(function*() {
    const clients = yield* RedisClients
    const counters = yield* RedisSignalsCounters
    const [addConnection, addSignals] = [adder(connection), adder(signals)]
    const now = Effect.suspend(() =>
      Effect.forEach(clients.health(), (health) => {
        const set = (metric: Metric.Metric.Gauge<number>, value: number) =>
          Metric.set(Metric.tagged(metric, "role", health.role), value)
        return Effect.all([
          addConnection(health, health.role),
          set(up, health.isUp ? 1 : 0),
          set(waiting, health.waiting),
          set(unanswered, health.unanswered)
        ], { discard: true })
      }, { discard: true })
    ).pipe(
      Effect.zipRight(Effect.suspend(() => {
        const counts = counters()
        return Effect.all([addSignals(counts), Metric.set(watches, counts.watches), Metric.set(owed, counts.owed)])
      }))
    )
    yield* now.pipe(Effect.zipRight(Effect.sleep(every)), Effect.forever, Effect.forkScoped)
  })
)
