import { fileURLToPath } from "node:url"

/** Which module of `fixtures/handlers.ts` a process has. */
export const handlersVariable = "HANDLERS_OF_TEST"
export type Name = "control" | "crash" | "pages" | "stubborn" | "transaction"

const handlers = fileURLToPath(new URL("./fixtures/handlers.ts", import.meta.url))

/** For `LocalCluster.start`: the module `fixtures/NAMEHandlers.ts`, in a program that all of them share. */
export const handlersOf = (name: Name, env: Readonly<Record<string, string>> = {}) => ({
  handlers,
  env: { ...env, [handlersVariable]: name }
})
