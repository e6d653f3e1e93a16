/** One worker of a simulation: the real worker, with the handlers of the user's tasks, in a simulated process. */
import * as Handlers from "@orrery/core/Handlers"
import type { Outcome } from "@orrery/core/Run"
import { NodeLinks } from "@orrery/core/WorkerProtocol"
import * as Worker from "@orrery/worker/Worker"
import { Effect, Exit, Layer, Option, Scope } from "effect"
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
  readonly handlers: Layer.Layer<never, never, Handlers.Handlers>
  readonly mutation: Mutation | undefined
}

export class SimWorker {
  readonly process: SimProcess
  private readonly scope = Effect.runSync(Scope.make())
  private readonly watchers = new Set<() => void>()
  private readonly links = new Map<SimNode, ReturnType<typeof SimLink.make>>()
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

  private readonly start = Effect.suspend(() => {
    const { handlers, mutation, slots } = this.options
    const links = Layer.succeed(
      NodeLinks,
      NodeLinks.of({
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
    )
    const known = Layer.provideMerge(handlers, Handlers.layer)
    const watched = Layer.effect(Handlers.Handlers, Effect.map(Handlers.Handlers, (inner) => this.watched(inner)))
    const worker = Worker.layer({
      slots: mutation === "leakSlot" ? slots + 1 : slots,
      workerId: this.id,
      shutdownGrace: "2 seconds",
      cancelGrace: "2 seconds"
    })
    return Layer.buildWithScope(
      worker.pipe(Layer.provide(watched.pipe(Layer.provide(known))), Layer.provide(links)),
      this.scope
    )
  })

  /** It has heard of other nodes. */
  listed(nodes: ReadonlyArray<SimNode>): void {
    this.nodes = nodes
    for (const node of [...this.links.keys()]) if (!nodes.includes(node)) this.links.delete(node)
    for (const tell of this.watchers) tell()
  }

  private linkTo(node: SimNode) {
    let link = this.links.get(node)
    if (link === undefined) {
      link = SimLink.make(this.network, this.process, node, this.options.leaseMs)
      this.links.set(node, link)
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
    // All but its notes is the worker's own.
    return Object.create(attempt, { notes: { value: watched } }) as Handlers.Attempt["Type"]
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

const leaseOf = ({ fencingToken }: Handlers.Attempt["Type"]): number => Number(fencingToken.split(".")[0])
