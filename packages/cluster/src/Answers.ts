/**
 * Answers of an actor that come one by one, gathered for the call that waits for all of them. Objects, not closures: these
 * are made once per run.
 */
import type { Waiter } from "@orrery/core/Entry"
import type { OutcomeAnswer } from "@orrery/core/WorkerProtocol"
import { Effect } from "effect"
import { type NotOwner, notOwner, type RowAnswer } from "./ActorHost.js"

/** The answers to one enqueue. */
export class RowAnswers {
  private readonly answers: Array<RowAnswer>
  private left: number
  private isLost = false
  constructor(
    count: number,
    private readonly resume: (result: Effect.Effect<ReadonlyArray<RowAnswer>, NotOwner>) => void
  ) {
    this.answers = new Array<RowAnswer>(count)
    this.left = count
  }
  set(at: number, answer: RowAnswer | NotOwner): void {
    if (answer === notOwner) this.isLost = true
    else this.answers[at] = answer
    if (--this.left === 0) this.resume(this.isLost ? Effect.fail(notOwner) : Effect.succeed(this.answers))
  }
}

/** The answers to one report. */
export class ReportAnswers {
  readonly answers: Array<OutcomeAnswer>
  private left: number
  constructor(count: number, private readonly done: (answers: ReadonlyArray<OutcomeAnswer>) => void) {
    this.answers = new Array<OutcomeAnswer>(count)
    this.left = count
  }
  set(at: number, answer: OutcomeAnswer): void {
    this.answers[at] = answer
    if (--this.left === 0) this.done(this.answers)
  }
}

export class ReportWaiter implements Waiter {
  next: Waiter | undefined
  constructor(private readonly to: ReportAnswers, private readonly at: number) {}
  told(answer: "committed" | NotOwner): void {
    this.to.set(this.at, answer === "committed" ? "accepted" : answer)
  }
}

export const tell = (first: Waiter | undefined, answer: "committed" | NotOwner): void => {
  for (let waiter = first; waiter !== undefined; waiter = waiter.next) waiter.told(answer)
}
