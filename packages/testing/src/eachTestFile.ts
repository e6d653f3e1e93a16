/**
 * Vitest `setupFiles`: before each test file. `layer` of @effect/vitest writes its own `it.effect` and `it.scoped` over those of `it`
 * that all files share where they are not isolated from each other: they would go on with the layer of a file that is over.
 */
import { it, makeMethods } from "@effect/vitest"
import { chai } from "vitest"

makeMethods(it)

// Notices misspelt words of `expect(...).to.be...`, which nobody writes here, and takes half the time of a test that asserts a lot.
chai.config.useProxy = false
