/** A node whose owner is scripted by the test: it assigns within its credit and remembers what it was told. */
import { ClusterUnavailable } from "@orrery/core/Errors"
import { unsafeMakeRunId } from "@orrery/core/RunId"
import type { NoteReport } from "@orrery/core/RunNotes"
import type {
  Assignment,
  AttemptRef,
  NodeLink,
  OutcomeAnswer,
  OutcomeReport,
  ToWorker
} from "@orrery/core/WorkerProtocol"
import { Deferred, Effect, FiberId, Schedule } from "effect"

export interface FakeNode {
  readonly link: NodeLink
  /** Of the session of now. */
  readonly say: (message: ToWorker) => void
  /** Assigns runs that wait, as far as the credit goes. */
  readonly pump: () => void
  /** Ends `isSlow`. */
  readonly arrive: () => void
  /** Breaks the session without goodbye. */
  readonly cut: () => void
  readonly waiting: Array<Assignment>
  readonly out: Map<string, Assignment>
  readonly reports: Array<OutcomeReport>
  readonly notes: Array<NoteReport>
  /** By run. */
  readonly checkpoints: Map<string, string>
  readonly announced: Array<{ readonly partitionId: number; readonly held: ReadonlyArray<AttemptRef> }>
  readonly state: {
    credit: number
    /** May be out beyond the credit. */
    ahead: number
    /** Calls of `report`. */
    calls: number
    attached: number
    goodbyes: number
    heartbeats: number
    isHungry: boolean
    /** Refuses new attachments. */
    isDown: boolean
    /** Answers no call any more. */
    isSilent: boolean
    /** Assignments stay on their way until `arrive`. */
    isSlow: boolean
    /** Answers to reports; `undefined`: the call fails. */
    answer: (report: OutcomeReport) => OutcomeAnswer | undefined
    /** As `announcing`, of reports. */
    reporting: Effect.Latch
    /** Answers to announcements stay on their way until it is open. */
    announcing: Effect.Latch
    /** Of an announcement: what the owner has given up. */
    givenUp: (held: ReadonlyArray<AttemptRef>) => ReadonlyArray<AttemptRef>
    /** It answers for checkpoints only when it counts the attempt. */
    counts: boolean
    /** Answers to notes, as `answer`. */
    noteAnswer: (report: NoteReport) => OutcomeAnswer | undefined
  }
}

export const assignment = (fields: Partial<Assignment> = {}): Assignment => ({
  partitionId: 1,
  runId: unsafeMakeRunId(1_700_000_000_000),
  task: "work",
  payload: "1",
  attempt: 1,
  lease: 1,
  timeoutMs: 0,
  ...fields
})

export const make = (
  name: string,
  options: { readonly leaseMs?: number; readonly gatherMs?: number; readonly onCredit?: () => void } = {}
): FakeNode => {
  let deliver: ((message: ToWorker) => void) | undefined
  let closed = Deferred.unsafeMake<void>(FiberId.none)
  const waiting: Array<Assignment> = []
  const out = new Map<string, Assignment>()
  const reports: Array<OutcomeReport> = []
  const notes: Array<NoteReport> = []
  const checkpoints = new Map<string, string>()
  const announced: Array<{ readonly partitionId: number; readonly held: ReadonlyArray<AttemptRef> }> = []
  const state: FakeNode["state"] = {
    credit: 0,
    ahead: 0,
    calls: 0,
    attached: 0,
    goodbyes: 0,
    heartbeats: 0,
    isHungry: false,
    isDown: false,
    isSilent: false,
    isSlow: false,
    answer: () => "accepted",
    reporting: Effect.unsafeMakeLatch(true),
    announcing: Effect.unsafeMakeLatch(true),
    givenUp: () => [],
    counts: true,
    noteAnswer: () => "accepted"
  }
  const unavailable = new ClusterUnavailable({ operation: "fake", reason: name })
  const held: Array<ToWorker> = []
  const say = (message: ToWorker): void => {
    if (state.isSlow && message._tag === "assign") held.push(message)
    else deliver?.(message)
  }
  const pump = (): void => {
    const some: Array<Assignment> = []
    while (waiting.length > 0 && out.size < state.credit + state.ahead) {
      const next = waiting.shift()!
      out.set(next.runId, next)
      some.push(next)
    }
    if (some.length > 0) say({ _tag: "assign", assignments: some })
    const isHungry = waiting.length > 0
    if (deliver !== undefined && isHungry !== state.isHungry) {
      state.isHungry = isHungry
      say({ _tag: "hungry", hungry: isHungry })
    }
  }
  const call = <A>(answer: () => A): Effect.Effect<A, ClusterUnavailable> =>
    Effect.suspend(() => state.isSilent ? Effect.never : deliver === undefined ? unavailable : Effect.succeed(answer()))
  const end = (): void => {
    deliver = undefined
    state.isHungry = false
    state.credit = 0
    state.ahead = 0
    Deferred.unsafeDone(closed, Effect.void)
  }

  const link: NodeLink = {
    node: name,
    attach: (hello, to) =>
      Effect.gen(function*() {
        if (state.isDown) return yield* unavailable
        closed = yield* Deferred.make<void>()
        deliver = to
        state.attached += 1
        state.credit = hello.credit
        const mine = closed
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => {
            if (mine !== closed || deliver === undefined) return
            state.goodbyes += 1
            end()
          })
        )
        pump()
        return {
          leaseMs: options.leaseMs ?? 10_000,
          gatherMs: options.gatherMs ?? 0,
          report: (batch) =>
            Effect.flatMap(
              Effect.zipLeft(
                call(() => {
                  state.calls += 1
                  for (const report of batch) out.delete(report.runId)
                  pump()
                  return batch.map((report) => ({ report, answer: state.answer(report) }))
                }),
                state.reporting.await
              ),
              (answers) => {
                const failed = answers.some((each) => each.answer === undefined)
                if (failed) return unavailable
                reports.push(...answers.map((each) => each.report))
                return Effect.succeed(answers.map((each) => each.answer!))
              }
            ),
          note: (batch) =>
            Effect.flatMap(
              call(() => {
                notes.push(...batch)
                return batch.map(state.noteAnswer)
              }),
              (answers) =>
                answers.includes(undefined)
                  ? unavailable
                  : Effect.succeed(answers as ReadonlyArray<OutcomeAnswer>)
            ),
          checkpoint: ({ runId }) => state.counts ? call(() => checkpoints.get(runId) ?? null) : unavailable,
          announce: (partitionId, held) =>
            Effect.zipLeft(
              call(() => {
                announced.push({ partitionId, held })
                return state.givenUp(held)
              }),
              state.announcing.await
            ),
          setCredit: (credit, ahead) =>
            call(() => {
              Object.assign(state, { credit, ahead })
              options.onCredit?.()
              pump()
              return out.size
            }),
          heartbeat: call(() => {
            state.heartbeats += 1
          }),
          closed: Deferred.await(mine)
        }
      })
  }
  const arrive = (): void => {
    state.isSlow = false
    for (const message of held.splice(0)) say(message)
  }
  return { link, say, pump, arrive, cut: end, waiting, out, reports, notes, checkpoints, announced, state }
}

const pollSchedule = Schedule.spaced("2 millis")

/** Polls until `check` holds; dies after `seconds`. */
export const eventually = (what: string, check: () => boolean, seconds = 15): Effect.Effect<void> =>
  Effect.suspend(() => check() ? Effect.void : Effect.fail(what)).pipe(
    Effect.retry(pollSchedule),
    Effect.timeoutFail({ duration: `${seconds} seconds`, onTimeout: () => what }),
    Effect.orDieWith((reason) => new Error(`did not happen: ${reason}`))
  )
