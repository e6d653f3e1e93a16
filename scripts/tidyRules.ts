/** The lists of tidy: what may be at the top, and what a line may not hold, with every exception and its reason. */

export const topLevel: ReadonlyArray<string> = [
  ...["package.json", "packages", "scripts", "docs", "vitest.workspace.ts", "tsconfig.json", "pnpm-workspace.yaml"],
  ...["pnpm-lock.yaml", "README.md"]
]

export const decisionHeadings = ["Status", "Context", "Options", "Decision", "Evidence", "Consequences"]

interface Exception {
  readonly files: RegExp
  readonly reason: string
}

interface LineRule {
  readonly name: string
  readonly message: string
  readonly pattern: RegExp
  /** Where it looks. */
  readonly files: RegExp
  /** `skip` looks at code only. */
  readonly comments: "skip" | "count"
  readonly allowed: ReadonlyArray<Exception>
}

const source = /\.(?:ts|mts|mjs)$/
const text = /\.(?:ts|mts|mjs|js|json|md|yaml|yml|sql|html|css|sh)$|^\.|\/\.?run$/

const scripts = { files: /^scripts\//, reason: "plain Node, runs before anything is installed" }
const testing = { files: /^packages\/testing\//, reason: "drives real processes and servers" }
const bench = { files: /^packages\/bench\//, reason: "measures wall time, prints tables" }
const chaos = { files: /^packages\/chaos\//, reason: "drives real processes and servers, cuts connections" }
const tests = { files: /^packages\/[^/]+\/test\//, reason: "drives real processes and the clock from outside" }
const tidyItself = { files: /^scripts\/tidyRules\.ts$|\/tidy\.test\.ts$/, reason: "names what it forbids" }

const rule = (
  name: string,
  pattern: RegExp,
  message: string,
  allowed: ReadonlyArray<Exception> = [],
  options: Partial<Pick<LineRule, "files" | "comments">> = {}
): LineRule => ({
  name,
  pattern,
  message,
  allowed: [...allowed, tidyItself],
  files: options.files ?? source,
  comments: options.comments ?? "skip"
})

const within = {
  files: /^packages\/worker\/src\/within\.ts$/,
  reason: "the time limit of each message of a worker: its fibers would be a good part of the call"
}
const outside = [scripts, testing, bench, chaos]

export const lineRules: ReadonlyArray<LineRule> = [
  rule("random", /\bMath\.random\b/, "use Random, or crypto for secrets", outside),
  rule("environment", /\bprocess\.env\b/, "read it with Config", [
    ...outside,
    tests,
    { files: /^packages\/examples\/src\/digest\//, reason: "starts node processes and hands them their environment" },
    { files: /^packages\/cli\/src\/Supervisor\.ts$/, reason: "starts node processes and hands them its environment" }
  ]),
  rule("timer", /\bset(?:Timeout|Interval)\(/, "use Effect.sleep or Schedule", [
    ...outside,
    { files: /^packages\/[^/]+\/test\/fixtures\//, reason: "stand-ins for processes, in plain Node" },
    {
      files: /^packages\/cluster\/src\/Alarm\.ts$/,
      reason: "one timer for a whole actor, set anew a thousand times a second"
    },
    {
      files: /^packages\/api\/src\/NodeConnection\.ts$/,
      reason: "the time limit of each frame call: a fiber for it would be a good part of the call"
    },
    within,
    { files: /^packages\/cli\/launch\.mjs$/, reason: "plain Node, runs before the program does" },
    {
      files: /^packages\/cli\/src\/(?:Supervisor|supervised)\.ts$/,
      reason: "must fire even when the Effect runtime hangs"
    }
  ]),
  rule("clock", /\bDate\.now\(|\bnew Date\(\)/, "use Clock or DateTime; leases use the database clock", [
    ...outside,
    tests
  ]),
  rule("console", /\bconsole\./, "use Effect.log, or Console in a program for people", [...outside, tests]),
  rule("only", /\b(?:it|test|describe|scoped|live|effect|scopedLive|prop)\.only\(/, "a focused test hides the others"),
  rule("skip", /\b(?:it|test|describe|scoped|live|effect|scopedLive|prop)\.skip\(/, "a skipped test proves nothing"),
  rule("flaky", /\bflakyTest\b|\bretry: ?\d/, "wait for a signal instead of trying again"),
  rule("daemon", /\bforkDaemon\b/, "use forkScoped, FiberMap or FiberSet", [within]),
  rule("unbounded", /["']unbounded["']|\.unbounded\b/, "say the bound, and what happens when it is reached", [
    tests,
    testing
  ]),
  rule("todo", /\b(?:TODO|FIXME)\b(?!\(#\d+\))/, "name its issue: TODO(#123)", [], { comments: "count", files: text }),
  // Placeholders, and the secret that tests look for in logs, are no credentials.
  rule(
    "credentials",
    /:\/\/[\w.-]+:(?!\$|<|\*|\.\.\.|…|password@|canary)[^@/\s"'`{}]+@/,
    "a url with a password in it",
    [],
    {
      comments: "count",
      files: text
    }
  ),
  rule("machine", /(?<![\w.~/-])\/(?:work|home\/\w+|root)\//, "a path of one machine", [], {
    comments: "count",
    files: text
  }),
  rule(
    "registry",
    /\bregistry\.(?!npmjs\.org)[\w-]+\.\w+|\b(?:artifactory|nexus)\.[\w.-]+/,
    "the address of a registry",
    [],
    {
      comments: "count",
      files: text
    }
  )
]
