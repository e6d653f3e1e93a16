/** A worker with the handlers and nodes of a test. */
import { type Handler, Handlers, layer as handlersLayer } from "@orrery/core/Handlers"
import type { NodeLinks } from "@orrery/core/WorkerProtocol"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import * as LocalLinks from "../src/LocalLinks.js"
import * as Worker from "../src/Worker.js"
import type * as FakeNode from "./FakeNode.js"

interface Started {
  /** Ends as the program that holds the worker would. */
  readonly stop: Effect.Effect<void>
}

export const start = (
  handlers: { readonly [task: string]: Handler },
  nodes: ReadonlyArray<FakeNode.FakeNode> | { readonly layer: Layer.Layer<NodeLinks> },
  options: Partial<Worker.WorkerOptions> = {}
) =>
  Effect.gen(function*() {
    const scope = yield* Effect.acquireRelease(Scope.make(), Scope.close)
    const tasks = Layer.effectDiscard(Effect.gen(function*() {
      const registry = yield* Handlers
      for (const [task, handler] of Object.entries(handlers)) yield* registry.register(task, handler)
    }))
    const nodeLinks = "layer" in nodes ? nodes.layer : LocalLinks.layer(nodes.map((node) => node.link))
    yield* Worker.layer({ slots: 4, shutdownGrace: "100 millis", cancelGrace: "200 millis", ...options }).pipe(
      Layer.provide(tasks),
      Layer.provide(handlersLayer),
      Layer.provide(nodeLinks),
      Layer.buildWithScope(scope)
    )
    const isHeld = yield* Effect.makeLatch(false)
    // A signal interrupts the program, and its finalizers run in the interrupted fiber.
    const program = yield* Effect.fork(
      Effect.ensuring(Effect.zipRight(isHeld.open, Effect.never), Scope.close(scope, Exit.void))
    )
    yield* isHeld.await
    const started: Started = { stop: Effect.asVoid(Fiber.interrupt(program)) }
    return started
  })
