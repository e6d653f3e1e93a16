/**
 * What people and programs ask of schedules. Operations that wait while others are written are then written together, in one
 * commit, in the order in which they came; one of a schedule that the same commit changes already begins the next.
 */
import { ClusterUnavailable, InvalidRequest, type StoreUnavailable } from "@orrery/core/Errors"
import * as ScheduleDefinition from "@orrery/core/schedule/ScheduleDefinition"
import type { Schedule } from "@orrery/core/schedule/ScheduleDefinition"
import * as ScheduleMachine from "@orrery/core/schedule/ScheduleMachine"
import {
  type ScheduleCall,
  type ScheduleError,
  ScheduleExists,
  ScheduleNotFound
} from "@orrery/core/schedule/Schedules"
import { RevisionConflict, type ScheduleState } from "@orrery/core/schedule/ScheduleState"
import { Cause, Deferred, Effect, Exit, Queue } from "effect"
import {
  ask,
  type Asked,
  type Change,
  changeOf,
  commit,
  type Held,
  joined,
  noDecisions,
  type ScheduleBook
} from "./ScheduleBook.js"

/** Operations that wait for one actor; who asks for one more waits to ask. Also the most of one commit. */
export const callsMax = 500
/** Steps in a row that one operation may need to catch up with what was due before it. */
const settleStepsMax = 10_000

/** What an operation comes to. Without a change, and nothing to delete, nothing need be written for it. */
interface Plan {
  readonly answer: Schedule
  readonly change?: Change
  readonly isDeleted?: boolean
}

/** Answers when it is committed. */
export const askFor = (self: ScheduleBook, call: ScheduleCall): Effect.Effect<Schedule, ScheduleError> =>
  Effect.gen(function*() {
    const answer = yield* Deferred.make<Schedule, ScheduleError>()
    yield* Queue.offer(self.calls, { call, answer })
    return yield* Deferred.await(answer)
  }).pipe(
    Effect.raceFirst(
      Effect.flatMap(Deferred.await(self.ended), (reason) => unavailable(`their owner has ended: ${reason}`))
    )
  )

/** Until the scope closes; those that wait then are told. */
export const operating = (self: ScheduleBook): Effect.Effect<never> =>
  Queue.takeBetween(self.calls, 1, callsMax).pipe(
    Effect.flatMap((batch) =>
      self.turn.withPermits(1)(operateAll(self, [...batch])).pipe(
        Effect.onExit(() => Effect.forEach(batch, (asked) => Deferred.fail(asked.answer, gone), { discard: true }))
      )
    ),
    Effect.forever,
    Effect.onExit(() =>
      Effect.flatMap(Queue.takeAll(self.calls), (left) =>
        Effect.forEach(left, (asked) => Deferred.fail(asked.answer, gone), { discard: true }))
    )
  )

const operateAll = Effect.fnUntraced(function*(self: ScheduleBook, batch: ReadonlyArray<Asked>) {
  let planned: Array<readonly [Asked, Plan]> = []
  const touched = new Set<string>()
  const flush = Effect.suspend(() => {
    if (planned.length === 0) return Effect.void
    const together = planned
    planned = []
    touched.clear()
    const changes = together.flatMap(([, { change }]) => change === undefined ? [] : [change])
    const deleted = together.flatMap(([{ call }, { isDeleted }]) => isDeleted === true ? [idOf(call)] : [])
    return Effect.flatMap(
      Effect.exit(commit(self, changes, deleted)),
      (exit) => Effect.forEach(together, ([asked, { answer }]) => tell(asked, Exit.as(exit, answer)), { discard: true })
    )
  })
  for (const asked of batch) {
    const id = idOf(asked.call)
    if (touched.has(id)) yield* flush
    const plan = yield* Effect.exit(planOf(self, asked.call))
    if (Exit.isFailure(plan)) yield* tell(asked, Exit.failCause(plan.cause))
    else if (plan.value.change === undefined && plan.value.isDeleted !== true) {
      yield* tell(asked, Exit.succeed(plan.value.answer))
    } else {
      planned.push([asked, plan.value])
      touched.add(id)
    }
  }
  yield* flush
})

const tell = ({ answer }: Asked, exit: Exit.Exit<Schedule, ScheduleError | StoreUnavailable>) =>
  Deferred.done(
    answer,
    Exit.mapErrorCause(
      exit,
      Cause.map((error) => error._tag === "StoreUnavailable" ? unavailable(error.message) : error)
    )
  )

const idOf = (call: ScheduleCall): string => "definition" in call ? ScheduleDefinition.idOf(call.definition) : call.id

const unavailable = (reason: string) => new ClusterUnavailable({ operation: "schedules", reason })
const gone = unavailable("their owner has moved")

const planOf = Effect.fnUntraced(function*(
  self: ScheduleBook,
  call: ScheduleCall
): Effect.fn.Return<Plan, ScheduleError | StoreUnavailable> {
  if (!self.host.mayAct()) return yield* unavailable("the node must not act now")
  if (self.clock.isStale) yield* ask(self)
  const id = idOf(call)
  yield* settle(self, id)
  const held = self.held.get(id)
  if (call._tag === "create" || call._tag === "declare") return yield* define(self, call, held)
  if (held === undefined) return yield* new ScheduleNotFound({ schedule: id })
  const { schedule: { state } } = held
  if (call._tag === "update") {
    // Its own answer was lost: it has happened.
    const isDone = call.expected === state.revision - 1 && isSame(held.schedule.definition, call.definition)
    if (isDone) return { answer: held.schedule }
    yield* checkRevision(state, call.expected)
    return yield* redefine(self, held, call.definition)
  }
  if (call._tag === "delete") {
    yield* checkRevision(state, call.expected)
    return { answer: held.schedule, isDeleted: true }
  }
  const problem = call._tag === "backfill" ? ScheduleDefinition.backfillProblem(held.schedule.definition) : undefined
  if (problem !== undefined) return yield* problem
  const step = yield* ScheduleMachine.apply(state, held.fires, call, self.clock.now(), call.expected)
  return planned(changeOf(held, step))
})

const planned = (change: Change): Plan => ({ answer: change.schedule, change })

const checkRevision = (state: ScheduleState, expected: number | undefined) =>
  expected === undefined || expected === state.revision
    ? Effect.void
    : new RevisionConflict({ schedule: state.id, expected, actual: state.revision })

/** An operation follows what was due before it. */
const settle = Effect.fnUntraced(function*(self: ScheduleBook, id: string) {
  for (let steps = 0; steps < settleStepsMax; steps++) {
    const held = self.held.get(id)
    const now = self.clock.now()
    if (held === undefined || held.schedule.state.paused !== null) return
    if (!ScheduleMachine.isOwing(held.schedule.state, now)) return
    yield* commit(self, [changeOf(held, ScheduleMachine.step(held.schedule.state, held.fires, now))])
  }
})

const isSame = (a: ScheduleDefinition.ScheduleDefinition, b: ScheduleDefinition.ScheduleDefinition): boolean =>
  JSON.stringify(a) === JSON.stringify(b)

const define = Effect.fnUntraced(function*(
  self: ScheduleBook,
  { _tag, definition }: Extract<ScheduleCall, { _tag: "create" | "declare" }>,
  held: Held | undefined
): Effect.fn.Return<Plan, ScheduleError> {
  const id = ScheduleDefinition.idOf(definition)
  if (held !== undefined) {
    const { definition: known } = held.schedule
    if (isSame(known, definition)) return { answer: held.schedule }
    if (_tag === "create" || known.version === null) return yield* new ScheduleExists({ schedule: id })
    if (definition.version === null || definition.version < known.version) return { answer: held.schedule }
    if (definition.version > known.version) return yield* redefine(self, held, definition)
    const limit = `more than ${known.version} where the declaration differs`
    return yield* new InvalidRequest({ field: "version", limit, actual: String(definition.version) })
  }
  const fires = yield* ScheduleDefinition.check(definition)
  const now = self.clock.now()
  const state = ScheduleMachine.make({ id, ...termsOf(definition) }, fires, now)
  const schedule = { definition, state, createdAt: now, latenessMs: null }
  return planned({ schedule, fires, decisions: noDecisions })
})

const termsOf = ({ policy, spec }: ScheduleDefinition.ScheduleDefinition) => ({
  policy,
  jitterMs: spec.jitterMs ?? 0,
  maxFires: spec.maxFires ?? null
})

const redefine = Effect.fnUntraced(function*(
  self: ScheduleBook,
  held: Held,
  definition: ScheduleDefinition.ScheduleDefinition
): Effect.fn.Return<Plan, ScheduleError> {
  const fires = yield* ScheduleDefinition.check(definition)
  const now = self.clock.now()
  // What passed during a pause is told by the spec it passed under.
  let settled: Change = { ...held, decisions: noDecisions }
  for (let steps = 0; steps < settleStepsMax && ScheduleMachine.isOwing(settled.schedule.state, now); steps++) {
    settled = joined(settled, ScheduleMachine.settlePause(settled.schedule.state, held.fires, now))
  }
  const state = ScheduleMachine.update(settled.schedule.state, termsOf(definition), fires, now)
  const schedule = { ...settled.schedule, definition, state }
  return planned({ schedule, fires, decisions: settled.decisions })
})
