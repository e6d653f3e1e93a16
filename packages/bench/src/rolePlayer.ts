/**
 * The process of a role: one driver is compiled into it (`Role.ts`), one system of it is played. Ends when its channel
 * does, so it never outlives the benchmark.
 */
import type { CallName, Calls, Message, Question } from "./Calls.js"
import * as delayProxy from "./delayProxy.js"
import { HandlerLog } from "./HandlerLog.js"
import * as producing from "./producing.js"
import { monotonicUs, type Place, type Producer, type Running, type System } from "./System.js"

/** Starts are told at most this often, unless each is asked for. */
const tellEveryMs = 20
/** How often a store is asked whether it is empty: the end of a drain is known to this much. */
const emptyEveryMs = 10

/** Left by `compile.mjs`: the driver, compiled into this program. */
const compiled = (globalThis as { readonly [key: symbol]: unknown })[Symbol.for("@orrery/cli/compiledHandlers")] as {
  readonly load: () => Promise<{ readonly systems: ReadonlyArray<System> }>
}

/** What this process is. Made by the first call that needs it. */
const role: {
  log?: HandlerLog
  producer?: Producer
  running?: Running
  /** CPU time before the role began. */
  began?: NodeJS.CpuUsage
  /** Starts, as last told. */
  told: number
} = { told: 0 }

const send = (message: Message): void => void process.send?.(message)

const systemOf = async ({ system }: { readonly system: string }): Promise<System> => {
  const { systems } = await compiled.load()
  const found = systems.find(({ id }) => id === system)
  if (found === undefined) throw new Error(`the driver has no system ${system}`)
  role.began ??= process.cpuUsage()
  return found
}

const needed = <Value>(value: Value | undefined): Value => {
  if (value === undefined) throw new Error("this process does not play that role")
  return value
}

const answers: { readonly [Name in CallName]: (input: Calls[Name]["in"]) => Promise<Calls[Name]["out"]> } = {
  describe: async () => {
    const { systems } = await compiled.load()
    return systems.map(({ prepare: _p, produce: _m, remaining: _r, serve, work: _w, workApart, ...facts }) => ({
      ...facts,
      hasServe: serve !== undefined,
      hasWorkApart: workApart !== undefined
    }))
  },
  prepare: async (input) => {
    const system = await systemOf(input)
    await system.prepare(input.place, { queues: input.queues, keepHistory: input.keepHistory })
    return null
  },
  serve: async (input) => {
    const { serve } = await systemOf(input)
    return started(await needed(serve)(input.place))
  },
  work: async (input) => {
    const system = await systemOf(input)
    const log = new HandlerLog({
      handlerMs: input.handlerMs,
      keys: input.keys,
      tenants: input.tenants,
      onStart: () => input.tellEach && tell()
    })
    role.log = log
    if (!input.tellEach) setInterval(tell, tellEveryMs).unref()
    const { concurrency, keepHistory, place, queues } = input
    const work = input.apart ? system.workApart ?? system.work : system.work
    return started(await work(place, { concurrency, queues, keepHistory, handler: log.handle }))
  },
  produce: async (input) => {
    role.producer = await (await systemOf(input)).produce(input.place, { keepHistory: input.keepHistory })
    return null
  },
  bulk: async (input) => producing.bulk(needed(role.producer), input),
  closedLoop: async (input) => producing.closedLoop(needed(role.producer), input),
  openLoop: async (input) => producing.openLoop(needed(role.producer), input),
  forget: async () => {
    needed(role.log).forget()
    tell()
    return null
  },
  report: async ({ overMs }) => needed(role.log).report(overMs),
  running: async () => needed(role.log).runningNow(),
  startsSince: async ({ sinceUs }) => needed(role.log).startsSince(sinceUs),
  awaitEmpty: async (input) => awaitEmpty(await systemOf(input), input.place, input.withinMs),
  usage: async () => {
    const { system, user } = process.cpuUsage(role.began)
    return {
      cpuUs: user + system,
      rssBytes: process.memoryUsage.rss(),
      rssMaxBytes: process.resourceUsage().maxRSS * 1_024
    }
  },
  proxy: async ({ delayMs, url }) => ({ url: await delayProxy.listen(url, delayMs) }),
  close: async () => {
    await role.producer?.close()
    await role.running?.close()
    return null
  }
}

const tell = (): void => {
  const count = role.log?.handled ?? 0
  if (count === role.told) return
  role.told = count
  send({ tag: "started", count })
}

const started = (running: Running): { readonly address: string | null } => {
  role.running = running
  return { address: running.address ?? null }
}

const awaitEmpty = async (system: System, place: Place, withinMs: number): Promise<Calls["awaitEmpty"]["out"]> => {
  const endUs = monotonicUs() + withinMs * 1_000
  for (;;) {
    const left = await system.remaining(place)
    const nowUs = monotonicUs()
    if (left === 0) return { emptyUs: nowUs, left }
    if (nowUs >= endUs) return { emptyUs: 0, left }
    await new Promise((resolve) => setTimeout(resolve, emptyEveryMs))
  }
}

const answer = async (question: Question): Promise<void> => {
  try {
    const ask = answers[question.name] as (input: unknown) => Promise<unknown>
    send({ tag: "answer", id: question.id, out: await ask(question.in) })
  } catch (error) {
    const reason = error instanceof Error ? `${error.message}\n${error.stack ?? ""}` : String(error)
    send({ tag: "failed", id: question.id, reason })
  }
}

process.on("message", (question: Question) => void answer(question))
process.once("disconnect", () => process.exit(0))
