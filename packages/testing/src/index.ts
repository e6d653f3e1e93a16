/** For tests of programs that use Orrery. The suites and servers of Orrery's own tests are beside it. */
export { EnqueuedMismatch, OrreryTest } from "./OrreryTest.js"
export type { Enqueued, Like, Matcher, OrreryTestOptions } from "./OrreryTest.js"
