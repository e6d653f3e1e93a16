import { assert, describe, it } from "@effect/vitest"
import { Either } from "effect"
import { scenariosOf } from "../src/Arguments.js"
import { scenarios } from "../src/scenarios/index.js"

const reasonOf = (names: ReadonlyArray<string>) =>
  Either.match(scenariosOf(names, scenarios), { onLeft: ({ message }) => message, onRight: () => "" })

describe("arguments of chaos", () => {
  it("takes all scenarios when none is named", () => {
    assert.strictEqual(Either.getOrThrow(scenariosOf([], scenarios)).length, scenarios.length)
  })

  it("keeps the order of the list, whatever the order of the names", () => {
    const chosen = Either.getOrThrow(scenariosOf(["pause-node", "kill-node"], scenarios))
    assert.deepStrictEqual(chosen.map(({ name }) => name), ["kill-node", "pause-node"])
  })

  it("names what there is when a scenario is unknown, and points to --help for a flag", () => {
    assert.match(reasonOf(["kil-node"]), /no scenario "kil-node"; there are kill-node, /)
    assert.match(reasonOf(["--nodes"]), /no flag --nodes/)
  })

  it("has each scenario once, with at least one event", () => {
    const names = scenarios.map(({ name }) => name)
    assert.deepStrictEqual([...new Set(names)], names)
    for (const { quickTimes, times } of scenarios) assert.isTrue(quickTimes >= 1 && times >= quickTimes)
  })
})
