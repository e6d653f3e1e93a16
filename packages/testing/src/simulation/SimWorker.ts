/** One worker of a simulation: the real worker, with the handlers of the user's tasks, in a simulated process. */
import * as Handlers from "@orrery/core/Handlers"
import type { Outcome } from "@orrery/core/Run"
import { NodeLinks } from "@orrery/core/WorkerProtocol"
import * as Worker from "@orrery/worker/Worker"
import { Context, Effect, Exit, Layer, Option, Scope } from "effect"
import type { Mutation } from "./Mutation.js"
import type { Recorder } from "./Recorder.js"
import * as SimLink from "./SimLink.js"
import type { SimNetwork } from "./SimNetwork.js"
import type { SimNode } from "./SimNode.js"
import { SimProcess } from "./SimProcess.js"

export interface WorkerOptions {
  readonly slots: number
  readonly leaseMs: number
  readonly drift: number
  /** The handlers of a worker, in its scope. */
  readonly known: Effect.Effect<Handlers.Handlers["Type"], never, Scope.Scope>
  readonly mutation: Mutation | undefined
}

export class SimWorker {
  readonly process: SimProcess
  private readonly scope = Effect.runSync(Scope.make())
  private readonly watchers = new Set<() => void>()
  private readonly linksByNode = new Map<SimNode, ReturnType<typeof SimLink.make>>()
  private running = 0

  constructor(
    private readonly network: SimNetwork,
    readonly name: string,
    readonly id: string,
    private readonly recorder: Recorder,
    private nodes: ReadonlyArray<SimNode>,
    private readonly options: WorkerOptions
  ) {
    this.process = new SimProcess(network.world, name, options.drift)
    this.process.later(0, () => this.process.run(this.start))
  }

  /** What layers of tasks have registered. */
  static known(
    handlers: Layer.Layer<never, never, Handlers.Handlers>
  ): Effect.Effect<Handlers.Handlers["Type"], never, Scope.Scope> {
    return Effect.map(Layer.build(Layer.provideMerge(handlers, Handlers.layer)), Context.get(Handlers.Handlers))
  }

  private readonly links = NodeLinks.of({
    watch: (changed) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const tell = () => changed(this.nodes.map((node) => this.linkTo(node)))
          this.watchers.add(tell)
          tell()
          return tell
        }),
        (tell) => Effect.sync(() => this.watchers.delete(tell))
      )
  })

  private readonly start = Effect.suspend(() => {
    const { known, mutation, slots } = this.options
    const worker = Worker.layer({
      slots: mutation === "leakSlot" ? slots + 1 : slots,
      workerId: this.id,
      shutdownGrace: "2 seconds",
      cancelGrace: "2 seconds"
    })
    return known.pipe(
      Effect.flatMap((inner) => {
        const context = Context.make(Handlers.Handlers, this.watched(inner))
        return Effect.provide(Layer.build(worker), Context.add(context, NodeLinks, this.links))
      }),
      Scope.extend(this.scope)
    )
  })

  /** It has heard of other nodes. */
  listed(nodes: ReadonlyArray<SimNode>): void {
    this.nodes = nodes
    for (const node of [...this.linksByNode.keys()]) if (!nodes.includes(node)) this.linksByNode.delete(node)
    for (const tell of this.watchers) tell()
  }

  private linkTo(node: SimNode) {
    let link = this.linksByNode.get(node)
    if (link === undefined) {
      link = SimLink.make(this.network, this.process, node, this.options.leaseMs)
      this.linksByNode.set(node, link)
    }
    return link
  }

  /** Lets its handlers end, as at SIGTERM. */
  drain(done: () => void): void {
    this.process.run(Scope.close(this.scope, Exit.void), done)
  }

  private watched(inner: Handlers.Handlers["Type"]): Handlers.Handlers["Type"] {
    return {
      ...inner,
      find: (task) => {
        const found = inner.find(task)
        return found === undefined
          ? undefined
          : {
            ...found,
            handler: (payload, attempt) => this.observed(found.handler(payload, this.heard(attempt)), found.slots)
          }
      }
    }
  }

  /** The history is told of its checkpoints. */
  private heard(attempt: Handlers.Attempt["Type"]): Handlers.Attempt["Type"] {
    const { notes, runId } = attempt
    const of = { by: this.name, run: runId, attempt: attempt.attempt, lease: leaseOf(attempt) }
    const watched: Handlers.AttemptNotes = {
      ...notes,
      saveCheckpoint: (value) =>
        Effect.suspend(() => {
          this.recorder.tell({ _tag: "saving", ...of, value })
          return Effect.tap(
            notes.saveCheckpoint(value),
            () => Effect.sync(() => this.recorder.tell({ _tag: "saved", ...of, value }))
          )
        }),
      loadCheckpoint: Effect.suspend(() => {
        const askedAt = this.network.world.now
        return Effect.tap(notes.loadCheckpoint, (found) =>
          Effect.sync(() => {
            this.recorder.tell({ _tag: "loaded", ...of, value: Option.getOrNull(found), askedAt })
          }))
      })
    }
    return new HeardAttempt(attempt, watched)
  }

  private observed<R>(
    handler: Effect.Effect<Outcome, never, R>,
    slots: number
  ): Effect.Effect<Outcome, never, R | Handlers.Attempt> {
    return Effect.flatMap(Handlers.Attempt, (running) => {
      const { attempt, runId } = running
      const of = { by: this.name, run: runId, attempt, lease: leaseOf(running) }
      return Effect.suspend(() => {
        this.running += slots
        this.recorder.tell({
          _tag: "started",
          ...of,
          databaseTime: this.network.world.databaseTime,
          running: this.running,
          slots: this.options.slots
        })
        return handler
      }).pipe(
        Effect.onExit((exit) =>
          Effect.sync(() => {
            this.running -= slots
            const outcome = Exit.isFailure(exit) ? "interrupted" : exit.value._tag === "success" ? "success" : "failure"
            this.recorder.tell({ _tag: "ended", ...of, outcome })
          })
        )
      )
    })
  }
}

/** All but its notes is the worker's own. One hidden class for all: objects with prototypes of their own are slow. */
class HeardAttempt implements Service {
  constructor(private readonly inner: Service, readonly notes: Handlers.AttemptNotes) {}

  get runId() {
    return this.inner.runId
  }
  get attempt() {
    return this.inner.attempt
  }
  get fencingToken() {
    return this.inner.fencingToken
  }
  get idempotencyKey() {
    return this.inner.idempotencyKey
  }
  get timeoutMs() {
    return this.inner.timeoutMs
  }
  get committed(): Outcome | undefined {
    return this.inner.committed
  }
  set committed(outcome: Outcome | undefined) {
    this.inner.committed = outcome
  }
  get heartbeat() {
    return this.inner.heartbeat
  }
  get deadline() {
    return this.inner.deadline
  }
  get progress() {
    return this.inner.progress
  }
  get log() {
    return this.inner.log
  }
  /** Of a task without a schema for it. */
  get checkpoint() {
    return Option.none()
  }
}

type Service = Handlers.Attempt["Type"]

const leaseOf = ({ fencingToken }: Handlers.Attempt["Type"]): number => Number(fencingToken.split(".")[0])
