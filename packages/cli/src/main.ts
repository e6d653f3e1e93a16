/** The process of the `orrery` command. Exit codes: `ExitCode.ts`. */
import { ofFailure } from "./ExitCode.js"
import { command, explain } from "./orrery.js"
import { runCommand } from "./runCommand.js"

runCommand(command, { name: "orrery", codeOf: ofFailure, explain })
