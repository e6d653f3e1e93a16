/**
 * Vitest `setupFiles`: before each test file. `layer` of @effect/vitest writes its own `it.effect` and `it.scoped` over those of `it`
 * that all files share where they are not isolated from each other: they would go on with the layer of a file that is over.
 */
import { it, makeMethods } from "@effect/vitest"
import { afterEach, chai } from "vitest"

makeMethods(it)

// Notices misspelt words of `expect(...).to.be...`, which nobody writes here, and takes half the time of a test that asserts a lot.
chai.config.useProxy = false

/** What the report at the end of a run tells is the stack alone: that of an `SqlError` does not say what the database said. */
afterEach(({ task }) => {
  for (const error of task.result?.errors ?? []) {
    const said = causes(error.cause).map((message) => `\n    because: ${message}`)
    error.stack = `${error.stack ?? error.message}${said.join("")}`
  }
})

const causesMax = 5

const causes = (cause: unknown): ReadonlyArray<string> => {
  const messages: Array<string> = []
  let next = cause
  while (typeof next === "object" && next !== null && "message" in next && messages.length < causesMax) {
    messages.push(String(next.message))
    next = "cause" in next ? next.cause : undefined
  }
  return messages
}
