/** Tells a person how far it is: one line, redrawn, on a terminal; else a plain line now and then. */
import { Effect, type Scope } from "effect"

export interface Progress {
  /** What stays on the screen. */
  readonly say: (line: string) => Effect.Effect<void>
  /** What is replaced by the next. */
  readonly status: (line: string) => Effect.Effect<void>
}

/** Between two status lines where they cannot be redrawn. */
const plainEveryMs = 1_000

/** `out` is standard error when standard output belongs to a machine. */
export const make = (out: NodeJS.WriteStream): Effect.Effect<Progress, never, Scope.Scope> =>
  Effect.gen(function*() {
    let shown = ""
    let lastPlainAt = -Infinity
    const clear = () => {
      if (shown !== "") out.write("\r\u001b[2K")
      shown = ""
    }
    yield* Effect.addFinalizer(() => Effect.sync(clear))
    return {
      say: (line) =>
        Effect.sync(() => {
          const redraw = shown
          clear()
          out.write(`${line}\n`)
          if (redraw !== "") out.write(shown = redraw)
        }),
      status: (line) =>
        Effect.sync(() => {
          if (out.isTTY) {
            clear()
            // A line that wraps could not be taken back.
            out.write(shown = line.slice(0, (out.columns ?? 80) - 1))
          } else if (performance.now() - lastPlainAt >= plainEveryMs) {
            lastPlainAt = performance.now()
            out.write(`${line}\n`)
          }
        })
    }
  })

const width = 30

export const bar = (done: number, total: number): string => {
  const filled = total === 0 ? width : Math.floor((done / total) * width)
  return `${"█".repeat(filled)}${"░".repeat(width - filled)}`
}
